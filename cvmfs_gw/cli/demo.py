"""``cvmfs-gw demo``: a repository, both servers, a first publish, and what to do next. What ``make up`` runs."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Final

from cvmfs_gw.api.server import Listen, serve
from cvmfs_gw.cli.serve import set_up_logging
from cvmfs_gw.client.errors import ClientError
from cvmfs_gw.client.keys import read_key_file
from cvmfs_gw.client.publish import publish
from cvmfs_gw.client.reader import RepositoryReader
from cvmfs_gw.client.request import Destination, PublishRequest, Step
from cvmfs_gw.engine.configure import RepositoryOptions
from cvmfs_gw.engine.create import create_repository
from cvmfs_gw.engine.names import check_fqrn
from cvmfs_gw.engine.repository import replace_file
from cvmfs_gw.gateway.config import Config
from cvmfs_gw.ingest.directory import DirectorySource
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.formats.keychain import write_key_file

if TYPE_CHECKING:
    from cvmfs_gw.cli.types import Subparsers

FQRN: Final = "demo.example.org"
_FILES: Final = {
    "hello.txt": "Hello from a repository that nobody needed root to publish.\n",
    "bin/greet": "#!/bin/sh\necho greetings from /cvmfs\n",
    "lib/.cvmfscatalog": "",
    "lib/data.txt": "This folder is a nested catalog.\n",
}

_NEXT: Final = """
Look at:    {page} in a browser, or {program} status
            {program} leases, repos, disable, enable, cancel, doctor, check, ...
Publish:    {program} publish {fqrn}/my/software DIRECTORY
Or with the CernVM-FS tools, on any machine that reaches this one:
            cvmfs_server mkfs -w {web} -u gw,/srv/cvmfs/{fqrn}/data/txn,{gateway} \\
              -k {keys} -o $(id -un) {fqrn}
Mount:      copy {pub} to /etc/cvmfs/keys/ and put into /etc/cvmfs/config.d/{fqrn}.conf:
              CVMFS_SERVER_URL={web}
              CVMFS_PUBLIC_KEY=/etc/cvmfs/keys/{fqrn}.pub
              CVMFS_HTTP_PROXY=DIRECT
Subscribe:  {scripts}cvmfs-notify watch {gateway} {fqrn}
Stop:       Ctrl-C
"""


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser("demo", help="make a demo repository, serve it, publish to it", description=__doc__)
    parser.add_argument("--fqrn", default=FQRN)
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=4929)
    parser.add_argument("--web-port", type=int, default=8080)
    parser.add_argument("--once", action="store_true", help="stop after the demonstration")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    """Serve, and demonstrate from a second thread."""
    fqrn = check_fqrn(arguments.fqrn)
    web = f"http://{arguments.host}:{arguments.web_port}/cvmfs/{fqrn}"
    if not os.path.exists(os.path.join(paths.repository_storage(fqrn), ".cvmfspublished")):
        create_repository(fqrn, paths, {}, RepositoryOptions(stratum0=web), time.time())
        _make_administrator(paths)
        print(f"Made the repository {fqrn} below {paths.root}", flush=True)
    config = Config.load(paths, {"port": arguments.port})
    set_up_logging(config)
    gateway = f"http://{arguments.host}:{config.port}/api/v1"
    failed = threading.Event()

    def demonstrate() -> None:
        try:
            _publish_and_read(fqrn, paths, gateway, web)
        except (ClientError, OSError) as error:
            print(f"The demonstration failed: {error}", flush=True)
            failed.set()
        else:
            pub = paths.key_file(fqrn, "pub")
            scripts = os.path.join(os.path.dirname(sys.argv[0]), "")
            program = f"{scripts}cvmfs-gw --root {paths.root}"
            values = {"program": program, "scripts": scripts, "fqrn": fqrn, "web": web, "gateway": gateway}
            values["page"] = gateway.removesuffix("api/v1")
            print(_NEXT.format(**values, keys=paths.keys, pub=pub), flush=True)
        if arguments.once or failed.is_set():
            os.kill(os.getpid(), 15)

    listen = Listen(arguments.host, config.port, arguments.web_port)
    thread = threading.Thread(target=demonstrate, name="demonstration", daemon=True)
    asyncio.run(serve(config, paths, os.environ, listen, thread.start))
    return 1 if failed.is_set() else 0


def _make_administrator(paths: SystemPaths) -> None:
    """A key for the commands that want one, unless ``repo.json`` names keys already."""
    with open(paths.access_config, "rb") as file:
        access = json.load(file)
    if "keys" not in access:
        name = os.path.join(paths.keys, "admin.gw")
        write_key_file(name, f"plain_text admin {secrets.token_urlsafe(32)}\n".encode(), 0o400)
        access["keys"] = [{"type": "file", "file_name": name, "admin": True}]
        replace_file(paths.access_config, json.dumps(access, indent=2).encode() + b"\n", 0o640)


def _publish_and_read(fqrn: str, paths: SystemPaths, gateway: str, web: str) -> None:
    with open(paths.key_file(fqrn, "pub"), "rb") as file:
        public_keys = file.read()
    with tempfile.TemporaryDirectory(prefix="cvmfs-demo-") as folder:
        for name, text in _FILES.items():
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file_out:
                file_out.write(text)
        os.chmod(os.path.join(folder, "bin/greet"), 0o755)  # noqa: S103 (a program of the demonstration)
        key = read_key_file(paths.key_file(fqrn, "gw"))
        started = time.monotonic()
        destination = Destination(fqrn, gateway, web, key, public_keys)
        report = publish(PublishRequest(destination, (Step("/demo", DirectorySource(folder)),)))
        milliseconds = (time.monotonic() - started) * 1000
    print(f"Published /demo through the gateway: revision {report.revision}, {milliseconds:.0f} ms", flush=True)
    with RepositoryReader(fqrn, web, public_keys) as reader:
        for name, text in _FILES.items():
            if reader.read(f"/demo/{name}") != text.encode():
                raise ClientError(f"/demo/{name} does not read as it was published")
        print(f"Read back over HTTP, signatures and hashes verified: {len(_FILES)} files, {web}", flush=True)
