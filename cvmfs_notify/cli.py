"""``cvmfs-notify``: the stand-alone server, and commands to subscribe and to publish.

Exit codes: 0 done, 1 an error, 2 wrong usage, 3 a server cannot be reached, 4 a signature is wrong, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import aiohttp

from cvmfs_notify import client, sockets
from cvmfs_notify.config import DEFAULT_PATH, DEFAULT_STATE, NotifyConfig, RelaySource
from cvmfs_notify.errors import InvalidMessage, NotifyConfigError, NotifyError
from cvmfs_notify.hub import NotificationHub
from cvmfs_notify.messages import EVERYTHING, Activity, format_timestamp
from cvmfs_notify.relay import relay
from cvmfs_notify.remote import RemoteAnchors
from cvmfs_notify.server import API_ROOT, NotificationApp, Server
from cvmfs_notify.store import EventStore
from cvmfs_notify.supervisor import Parent, Supervisor, is_worker, this_program
from cvmfs_notify.webhook import run_all
from cvmfs_objstore.errors import ManifestError
from cvmfs_objstore.formats.manifest import SignedManifest

log = logging.getLogger(__name__)

_SOCKET = "notify"
_RESERVED_FILES = 256


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="cvmfs-notify", description="Notifications of CernVM-FS repositories.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = commands.add_parser("serve", help="run the notification server, alone or as a relay")
    command.add_argument("--config", default=DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
    command.add_argument("--host", help="where to listen (default: as configured, or localhost)")
    command.add_argument("--port", type=int, help="default: as configured, or 4930")
    command.add_argument("--state", metavar="FILE", help=f"file of the newest messages (default: {DEFAULT_STATE})")
    command.add_argument("--relay", action="append", metavar="URL", help="subscribe to this server; may be repeated")
    command.add_argument("--in-process", action="store_true", help="no supervisor process that keeps the sockets open")
    command.set_defaults(run=_serve)

    command = commands.add_parser("watch", help="print revisions as they are published")
    command.add_argument("url", metavar="URL", help="of the server, as in http://localhost:4929/api/v1")
    command.add_argument("repository", nargs="?", default=EVERYTHING, help="default: all")
    command.add_argument("--once", action="store_true", help="exit after the first one")
    command.set_defaults(run=_watch)

    command = commands.add_parser("publish", help="publish the manifest of a repository to a server")
    command.add_argument("url", metavar="URL", help="of the server, as in http://localhost:4929/api/v1")
    command.add_argument("repository_url", metavar="REPOSITORY_URL", help="as in http://localhost/cvmfs/FQRN")
    command.add_argument("--key", metavar="FILE", help="sign with this gateway key: plain_text ID SECRET")
    command.set_defaults(run=_publish)

    arguments = parser.parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except (NotifyError, OSError) as error:
        print(f"cvmfs-notify: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, NotifyError) else 1
    except KeyboardInterrupt:
        return 130
    return code


# --- serve ------------------------------------------------------------------------------------------------------------


def _serve(arguments: argparse.Namespace) -> int:
    config = NotifyConfig.load(arguments.config)
    level = getattr(logging, config.log_level.upper(), logging.INFO)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=level, force=True)
    host, port = arguments.host or config.host, config.port if arguments.port is None else arguments.port
    if is_worker(os.environ):
        inherited = sockets.inherited(os.environ)
        asyncio.run(_run(arguments, config, inherited[_SOCKET], Parent(os.environ)))
        return 0
    passed = sockets.activated(os.environ, {_SOCKET: port})
    if not passed:
        passed = {_SOCKET: sockets.listen(host, port)}
    if arguments.in_process:
        asyncio.run(_run(arguments, config, passed[_SOCKET], None))
        return 0
    return Supervisor(this_program(), passed, os.environ).run()


async def _run(
    arguments: argparse.Namespace, config: NotifyConfig, listeners: list[socket.socket], parent: Parent | None
) -> None:
    limit = sockets.raise_file_limit() - _RESERVED_FILES
    source = RemoteAnchors(config.repositories)
    hub = NotificationHub(_open_store(arguments.state or config.state), source, max_subscribers=limit)
    server = Server(NotificationApp(hub, config.keys).asgi(), hub, config.log_level)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    sources = [*config.relay, *(RelaySource(url) for url in arguments.relay or [])]
    background = [asyncio.create_task(relay(hub, sources)), asyncio.create_task(run_all(hub, config.webhooks))]
    if parent is not None:
        loop.add_reader(parent.socket, stop)
        parent.ready()
    for listener in listeners:
        log.info("listening on %s port %d", *listener.getsockname()[:2])
    try:
        await server.serve(sockets=listeners)
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await hub.close()
        if parent is not None:
            loop.remove_reader(parent.socket)
            parent.close()


def _open_store(path: str | None) -> EventStore:
    try:
        folder = os.path.dirname(os.path.abspath(path or DEFAULT_STATE))
        os.makedirs(folder, exist_ok=True)
        return EventStore(path or DEFAULT_STATE)
    except OSError as error:
        if path is not None:
            raise NotifyConfigError(str(error)) from error
        log.warning("messages are not kept across restarts: %s", error)
        return EventStore(None)


# --- watch and publish ------------------------------------------------------------------------------------------------


def _watch(arguments: argparse.Namespace) -> int:
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    asyncio.run(_print_revisions(arguments.url, arguments.repository, arguments.once))
    return 0


async def _print_revisions(url: str, repository: str, once: bool) -> None:
    def say(state: str) -> None:
        print(state, file=sys.stderr, flush=True)

    async with aiohttp.ClientSession() as session:
        subscriber = client.Subscriber(session, api_url(url), repository, say)
        async for message in subscriber.messages():
            try:
                activity = Activity.parse(message)
                manifest = SignedManifest.parse(activity.manifest).manifest
            except (InvalidMessage, ManifestError) as error:
                say(f"not understood: {error}")
                continue
            published = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(manifest.published))
            print(f"{published} {activity.repository} {manifest.revision} {manifest.root_hash.bare}", flush=True)
            if once:
                return


def _publish(arguments: argparse.Namespace) -> int:
    asyncio.run(_publish_manifest(arguments.url, arguments.repository_url, arguments.key))
    return 0


async def _publish_manifest(url: str, repository_url: str, key_file: str | None) -> None:
    key = None if key_file is None else _read_key(key_file)
    async with aiohttp.ClientSession() as session:
        data = await client.fetch_manifest(session, repository_url)
        try:
            fqrn = SignedManifest.parse(data).manifest.fqrn
        except ManifestError as error:
            raise InvalidMessage(str(error)) from None
        await client.publish(session, api_url(url), Activity(fqrn, data, format_timestamp(datetime.now(UTC))), key)


def _read_key(path: str) -> tuple[str, bytes]:
    with open(path, encoding="utf-8", errors="replace") as file:
        words = file.readline().split()
    if len(words) != 3 or words[0] != "plain_text":
        raise NotifyConfigError(f"{path} is not a gateway key file")
    return words[1], words[2].encode()


def api_url(url: str) -> str:
    """*url* with the API's root path appended if it is missing."""
    url = url.rstrip("/")
    return url if url.endswith(API_ROOT) else url + API_ROOT


if __name__ == "__main__":
    sys.exit(main())
