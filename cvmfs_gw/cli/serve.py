"""``cvmfs-gw serve``: gateway and web server in one process, and a parent that keeps their sockets open."""

from __future__ import annotations

import argparse
import logging
import os
import re
import time
from typing import TYPE_CHECKING, Final

from cvmfs_gw.api.logs import JsonFormatter
from cvmfs_gw.api.server import Listen, Worker, serve
from cvmfs_gw.api.supervisor import run_server
from cvmfs_gw.engine.create import ensure_repository
from cvmfs_gw.engine.repository import replace_file
from cvmfs_gw.gateway.config import Config
from cvmfs_gw.paths import SystemPaths

if TYPE_CHECKING:
    from cvmfs_gw.cli.types import Subparsers

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser("serve", help="run gateway and web server", description=__doc__)
    parser.add_argument("--host", default="localhost", help="where to listen; 0.0.0.0 or :: for every interface")
    parser.add_argument("--port", type=int, help="of the gateway (default: 4929, or what user.json says)")
    parser.add_argument("--web-port", type=int, default=8080, help="of the repositories (default: %(default)s)")
    parser.add_argument("--no-web", action="store_true", help="another web server serves the repositories")
    parser.add_argument("--no-fsync", action="store_true", help="do not wait for the disk: a power cut loses commits")
    parser.add_argument("--in-process", action="store_true", help="no parent process that keeps the sockets open")
    parser.add_argument(
        "--init",
        action="append",
        default=[],
        metavar="FQRN",
        help="make this repository first, empty and with the keys that are there, if its storage is gone",
    )
    parser.add_argument(
        "--init-keys", default="", metavar="DIR", help="import the keys for --init, and uploads.json, from here"
    )
    parser.add_argument("--init-url", default="", metavar="URL", help="where clients read what --init makes")
    parser.add_argument(
        "--init-set",
        action="append",
        default=[],
        type=_assignment,
        metavar="KEY=VALUE",
        help="a line for the server.conf of what --init makes, as in CVMFS_AUTO_GC_TIMESPAN='1 hour ago'",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    """Serve until told to stop."""
    config = Config.load(paths, {"port": arguments.port})
    set_up_logging(config)
    if arguments.init_keys:
        _import_upload_settings(arguments.init_keys, paths)
    for fqrn in arguments.init:
        host = "localhost" if arguments.host in ("0.0.0.0", "::") else arguments.host  # noqa: S104 (compared)
        url = arguments.init_url or f"http://{host}:{arguments.web_port}/cvmfs/{fqrn}"
        settings = dict(arguments.init_set)
        if ensure_repository(fqrn, paths, url, time.time(), keys=arguments.init_keys, settings=settings):
            print(f"made         {fqrn}, empty, in {paths.repository_storage(fqrn)}", flush=True)
    listen = Listen(arguments.host, config.port, None if arguments.no_web else arguments.web_port)

    def ready() -> None:
        print(f"gateway      http://{arguments.host}:{config.port}/api/v1", flush=True)
        if listen.web_port is not None:
            print(f"repositories http://{arguments.host}:{listen.web_port}/cvmfs/", flush=True)

    async def start(worker: Worker | None) -> None:
        durable = not arguments.no_fsync
        await serve(config, paths, os.environ, listen, ready, durable=durable, worker=worker)

    return run_server(start, listen, os.environ, supervised=not arguments.in_process)


def _assignment(text: str) -> tuple[str, str]:
    """``KEY=VALUE`` for a file that shells read, too."""
    match = re.fullmatch(r"([A-Z][A-Z0-9_]*)=([^\"\\$`\n]*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"not KEY=VALUE without quotes in it: {text!r}")
    return match[1], match[2]


def _import_upload_settings(folder: str, paths: SystemPaths) -> None:
    """Take over who may upload, unless this machine has settings of its own."""
    source = os.path.join(folder, os.path.basename(paths.upload_config))
    if os.path.exists(source) and not os.path.exists(paths.upload_config):
        os.makedirs(os.path.dirname(paths.upload_config), exist_ok=True)
        with open(source, "rb") as file:
            replace_file(paths.upload_config, file.read(), 0o600)


def set_up_logging(config: Config) -> None:
    """Log as *config* says."""
    timestamps = "%(asctime)s " if config.log_timestamps else ""
    level = _LEVELS.get(config.log_level, logging.INFO)
    handler = logging.StreamHandler()
    if config.log_format == "json":
        handler.setFormatter(JsonFormatter(timestamps=config.log_timestamps))
    else:
        handler.setFormatter(logging.Formatter(f"{timestamps}%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=level, force=True)
