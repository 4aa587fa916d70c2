"""``record``, ``replay`` and ``unpack``: what publishers and subscribers say."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from conformance.gateway import Gateway
from conformance.recorder import record
from conformance.replay import Player
from conformance.repository import Repository
from conformance.session import SHIPPED, Session, install
from conformance.wire import Key


def add_parser(commands: Any) -> None:
    command = commands.add_parser("record", help="record publishers and subscribers, as a proxy in front")
    add = command.add_argument
    add("--listen", type=int, required=True, metavar="PORT", help="0: any that is free")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (default: %(default)s)")
    add("--upstream", required=True, metavar="URL", help="the gateway, or notification server")
    add("--key", required=True, metavar="FILE", help="to find out what is signed; it is not recorded")
    add("--about", default="", metavar="TEXT", help="what the session is")
    add("-o", "--output", required=True, type=Path, metavar="FILE", help="a zip archive, written at the end")
    command.set_defaults(run=_record)

    command = commands.add_parser("replay", help="replay a recorded session")
    add = command.add_argument
    add("session", type=Path, metavar="FILE", help="what record has written")
    add("--gateway", required=True, metavar="URL", help="where to: http://host:4929")
    add("--key", metavar="FILE", help="of its repository; needed unless the session has one")
    add("--stratum0", metavar="URL", help="to name present heads in place of recorded ones")
    add("--notify", metavar="URL", default="", help="where subscribers go, if not to the gateway")
    add("--websocket", metavar="URL", default="", help="where those go that speak WebSocket")
    add("--ahead", type=int, default=0, metavar="N", help="how many revisions the repository is ahead")
    command.set_defaults(run=_replay)

    command = commands.add_parser("unpack", help="put the repositories of recorded sessions onto a server")
    add = command.add_argument
    add(
        "folder",
        nargs="?",
        type=Path,
        default=SHIPPED,
        metavar="DIR",
        help="the sessions (default: the suite's)",
    )
    add("--root", type=Path, default=Path("/"), metavar="DIR", help="of the server's files (default: %(default)s)")
    command.set_defaults(run=_unpack)


def _record(arguments: argparse.Namespace) -> int:
    key = Key.read(arguments.key)
    return record(arguments.host, arguments.listen, arguments.upstream, key, arguments.output, arguments.about)


def _replay(arguments: argparse.Namespace) -> int:
    session = Session.load(arguments.session)
    key = Key.read(arguments.key) if arguments.key else session.key
    if key is None:
        raise ValueError("the session has no key: --key")
    repository = Repository(arguments.stratum0, session.fqrn) if arguments.stratum0 else None
    gateway = Gateway(arguments.gateway, key)
    player = Player(gateway, session, key, repository, notify=arguments.notify, websocket=arguments.websocket)
    player.play(arguments.ahead)
    told = f", {len(session.streams)} subscribers told as recorded" if session.streams else ""
    print(f"{len(session.exchanges)} requests answered as recorded{told}")
    return 0


def _unpack(arguments: argparse.Namespace) -> int:
    names = install(arguments.folder, arguments.root.resolve())
    if not names:
        raise ValueError(f"no session in {arguments.folder} has a repository")
    print(f"{len(names)} repositories are below {arguments.root}, as they were before their sessions. Have the web")
    print("server serve them, add these names to the gateway's repo.json, restart it, and run with")
    print(f"--sessions {arguments.folder}:")
    print(", ".join(f'"{name}"' for name in names))
    return 0
