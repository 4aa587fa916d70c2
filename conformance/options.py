"""The options that say which gateway is meant, and the target that they make."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from conformance.gateway import API_ROOT
from conformance.target import Target
from conformance.wire import Key, Url

_NEEDED = ("gateway", "stratum0", "repo", "key")


def add_target(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add = parser.add_argument
    add("--gateway", metavar="URL", help="the gateway: http://host:4929, with or without /api/v1")
    add("--stratum0", metavar="URL", help="the web server: http://host/cvmfs, with or without the repository's name")
    add("--repo", metavar="FQRN", help="a repository that may be filled with rubbish")
    add("--key", metavar="FILE", help="its gateway key: plain_text <id> <secret>")
    add("--name", default="", help="what the target is called in reports")
    add("--admin-key", metavar="FILE", help="the key of an administrator")
    add("--other-key", metavar="FILE", help="another key for the same repository")
    add("--restricted-key", metavar="FILE", help="a key for --restricted-path of the repository only")
    add("--restricted-path", metavar="PATH", default="", help="as in /a/b")
    add("--foreign-key", metavar="FILE", help="a key for another repository of the gateway")
    add("--notify", metavar="URL", default="", help="the notification server, if it is not the gateway")
    add("--websocket", metavar="URL", default="", help="a stand-alone notification server: http://host:4930")
    add("--public-key", metavar="FILE", help="the repository's public master key")
    add("--store", metavar="DIR", type=Path, help="the repository's storage on disk")
    add("--sessions", metavar="DIR", type=Path, help="recorded sessions, whose repositories are on the target")
    add("--restart-command", metavar="CMD", default="", help="kills the gateway and starts it again")
    add("--seed", type=int, default=1, help="of random histories (default: %(default)s)")
    add("--publishes", type=int, default=12, help="how many revisions a random history has (default: %(default)s)")
    add("--timeout", type=float, default=60.0, metavar="SECONDS", help="for one request (default: %(default)s)")


def target(arguments: argparse.Namespace) -> Target:
    """The target of the command line; raises ``ValueError`` and ``OSError``."""
    if missing := [f"--{name}" for name in _NEEDED if not getattr(arguments, name)]:
        raise ValueError(f"needs {', '.join(missing)}")
    for url in (arguments.gateway, arguments.stratum0):
        Url(url)

    def key(path: str | None) -> Key | None:
        return Key.read(path) if path else None

    return Target(
        gateway=arguments.gateway.rstrip("/").removesuffix(API_ROOT),
        stratum0=arguments.stratum0,
        fqrn=arguments.repo,
        key=Key.read(arguments.key),
        name=arguments.name,
        admin_key=key(arguments.admin_key),
        other_key=key(arguments.other_key),
        restricted_key=key(arguments.restricted_key),
        restricted_path=arguments.restricted_path,
        foreign_key=key(arguments.foreign_key),
        notify=arguments.notify,
        websocket=arguments.websocket,
        public_key=Path(arguments.public_key).read_bytes() if arguments.public_key else b"",
        store=arguments.store,
        sessions=arguments.sessions,
        restart_command=arguments.restart_command,
        timeout=arguments.timeout,
        seed=arguments.seed,
        publishes=arguments.publishes,
    )


def dump(found: Target) -> str:
    """A target as text, for the suite run in another namespace. Holds secrets."""
    content: dict[str, Any] = {}
    for name in Target.__dataclass_fields__:
        value = getattr(found, name)
        if isinstance(value, Key):
            value = {"id": value.id, "secret": value.secret.hex()}
        elif isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, Path):
            value = str(value)
        content[name] = value
    return json.dumps(content)


def load(text: str) -> Target:
    """Read it again."""
    content = json.loads(text)
    for name, value in content.items():
        if name.endswith("key") and isinstance(value, dict):
            content[name] = Key(value["id"], bytes.fromhex(value["secret"]))
        elif name in ("store", "sessions") and value is not None:
            content[name] = Path(value)
    content["public_key"] = content["public_key"].encode()
    return Target(**content)
