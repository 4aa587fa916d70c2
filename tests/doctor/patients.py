"""A repository in good order for the doctor to look at, and a web server whose headers can be set."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import closing
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cvmfs_gw.care.resign import resign_whitelist
from cvmfs_gw.engine.configure import RepositoryOptions
from cvmfs_gw.engine.create import create_repository
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.paths import SystemPaths
from tests.engine.repositories import FQRN

Say = Callable[..., tuple[int, list[dict[str, str]]]]
"""Asks the doctor with some arguments; gives the exit code and the findings."""


class Site:
    """A web server for one repository whose headers can be set."""

    def __init__(self) -> None:
        self.root = ""
        self.headers = {"Cache-Control": "max-age=61"}
        self.manifest: bytes | None = None
        self.ahead = 0.0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = Path(site.root + self.path)
                if not path.is_file():
                    self.send_response_only(404)
                    self.end_headers()
                    return
                data = site.manifest if site.manifest and path.name == ".cvmfspublished" else path.read_bytes()
                self.send_response_only(200)
                for name, value in site.headers.items():
                    self.send_header(name, value)
                self.send_header("Date", formatdate(time.time() + site.ahead, usegmt=True))
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


class Patient:
    """A repository in good order, a gateway's configuration, and a web server."""

    def __init__(self, root: str, keys: str, site: Site) -> None:
        self.site = site
        self.paths = SystemPaths(root)
        options = RepositoryOptions(site.url, keys=keys, garbage_collection=True)
        create_repository(FQRN, self.paths, {}, options, time.time() - 60)
        self.repository = Repository(FQRN, self.paths, {}, durable=False)
        resign_whitelist(self.repository, time.time())
        self.storage = Path(self.paths.repository_storage(FQRN))
        self.spool = Path(self.paths.repository_spool(FQRN))
        site.root = str(self.storage)
        access = json.loads(Path(self.paths.access_config).read_text())
        access.setdefault("keys", []).append({"type": "plain_text", "id": "boss", "secret": "x" * 20, "admin": True})
        Path(self.paths.access_config).write_text(json.dumps(access))
        with closing(socket.socket()) as free:
            free.bind(("", 0))
            self.settings(port=free.getsockname()[1])

    def settings(self, **settings: object) -> None:
        path = Path(self.paths.user_config)
        path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **settings}))

    def configure(self, line: str) -> None:
        with open(self.paths.server_conf(FQRN), "a", encoding="utf-8") as file:
            file.write(line + "\n")
