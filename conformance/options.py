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
    """Declare those that every target needs, and what is of use to all commands."""
    add = parser.add_argument_group("the target (the first four are needed)").add_argument
    add("--gateway", metavar="URL", help="the gateway: http://host:4929, with or without /api/v1")
    add("--stratum0", metavar="URL", help="the web server: http://host/cvmfs, with or without the repository's name")
    add("--repo", metavar="FQRN", help="a repository that may be filled with rubbish")
    add("--key", metavar="FILE", help="its gateway key: plain_text <id> <secret>")
    add("--name", metavar="NAME", default="", help="what the target is called in reports")
    add("--notify", metavar="URL", default="", help="the notification server, if it is not the gateway")
    add("--timeout", type=float, default=60.0, metavar="SECONDS", help="for one request (default: %(default)s)")


def add_more(parser: argparse.ArgumentParser) -> None:
    """Declare those that make more cases applicable."""
    add = parser.add_argument_group("more of the target, for more cases").add_argument
    add("--admin-key", metavar="FILE", help="the key of an administrator: disabling, cancelling, collecting")
    add("--other-key", metavar="FILE", help="another key for the same repository: whose lease is it?")
    add("--restricted-key", metavar="FILE", help="a key for --restricted-path of the repository only")
    add("--restricted-path", metavar="PATH", default="", help="as in /a/b")
    add("--foreign-key", metavar="FILE", help="a key for another repository of the gateway")
    add("--websocket", metavar="URL", default="", help="a stand-alone notification server: http://host:4930")
    add("--public-key", metavar="FILE", help="the repository's public master key: signatures, mounted clients")
    add("--store", metavar="DIR", type=Path, help="the repository's storage on disk: what lies there, full disks")
    add("--restart-command", metavar="CMD", default="", help="kills the gateway, starts it, and waits for it")
    add("--sessions", metavar="DIR", type=Path, help="recorded sessions, whose repositories are on the target")
    add("--seed", type=int, default=1, metavar="N", help="of random histories (default: %(default)s)")
    add("--publishes", type=int, default=12, metavar="N", help="how long random histories are (default: %(default)s)")


def target(arguments: argparse.Namespace) -> Target:
    """The target of the command line; raises ``ValueError`` and ``OSError``."""
    given = vars(arguments)
    if missing := [f"--{name}" for name in _NEEDED if not given[name]]:
        raise ValueError(f"needs {', '.join(missing)}; see --help")
    for url in (arguments.gateway, arguments.stratum0):
        Url(url)
    keys = ("admin_key", "other_key", "restricted_key", "foreign_key")
    more: dict[str, Any] = {name: Key.read(given[name]) for name in keys if given.get(name)}
    public_key = given.get("public_key")
    same = ("name", "notify", "timeout", "restricted_path", "websocket", "store", "sessions", "restart_command")
    more |= {name: given[name] for name in (*same, "seed", "publishes") if name in given}
    return Target(
        gateway=arguments.gateway.rstrip("/").removesuffix(API_ROOT),
        stratum0=arguments.stratum0,
        fqrn=arguments.repo,
        key=Key.read(arguments.key),
        public_key=Path(public_key).read_bytes() if public_key else b"",
        **more,
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
