"""``cvmfs-gw leases|cancel|repos|enable|disable|status``: a running gateway, for people.

What changes something is signed with an administrator's key: that of a ``.gw`` file with one line ``plain_text <id>
<secret>``, or, on the gateway's own machine, the first that has ``"admin": true`` in its ``repo.json``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import urllib.parse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import urllib3

from cvmfs_gw.client.errors import ClientError, GatewayRefused, GatewayUnreachable
from cvmfs_gw.client.keys import read_key_file
from cvmfs_gw.gateway.access import AccessConfig
from cvmfs_gw.gateway.authorization import Key, sign
from cvmfs_gw.gateway.config import Config
from cvmfs_gw.gateway.errors import ConfigError
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.text import human_size

if TYPE_CHECKING:
    from cvmfs_gw.cli.types import Subparsers

_TIMEOUT: Final = urllib3.Timeout(connect=10, read=600)
_KEY_VARIABLE: Final = "CVMFS_GW_ADMIN_KEY"
_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def add_parser(commands: Subparsers) -> None:
    """Declare the commands."""
    for name, run, help_text in (
        ("leases", _leases, "list open leases: who holds which path"),
        ("repos", _repos, "list the gateway's repositories"),
        ("status", _status, "show what the gateway is doing"),
    ):
        parser = commands.add_parser(name, help=help_text, description=help_text)
        parser.add_argument("--json", action="store_true", help="as the gateway tells it")
        _add_url(parser)
        parser.set_defaults(run=run)
    parser = commands.add_parser("cancel", help="cancel the leases at and below a path", description=__doc__)
    parser.add_argument("path", metavar="FQRN/[PATH]", help="as cvmfs-gw leases shows it")
    _add_url(parser)
    _add_key(parser)
    parser.set_defaults(run=_cancel)
    for name, help_text in (
        ("enable", "grant leases on a repository again"),
        ("disable", "grant no more leases on a repository"),
    ):
        parser = commands.add_parser(name, help=help_text, description=help_text)
        parser.add_argument("fqrn", metavar="FQRN")
        if name == "disable":
            parser.add_argument("--wait", action="store_true", help="until a running commit has ended")
        _add_url(parser)
        _add_key(parser)
        parser.set_defaults(run=_enable, enable=name == "enable", **({} if name == "disable" else {"wait": False}))


def _add_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gateway", default="http://localhost:4929/api/v1", metavar="URL", help="default: %(default)s")


def _add_key(parser: argparse.ArgumentParser) -> None:
    text = f"an administrator's key (default: ${_KEY_VARIABLE}, or the first in repo.json)"
    parser.add_argument("--key", metavar="FILE", default=os.environ.get(_KEY_VARIABLE), help=text)


def _administrator(arguments: argparse.Namespace, paths: SystemPaths) -> Key:
    """The key to sign with; raises :exc:`ClientError`."""
    if arguments.key is not None:
        return read_key_file(arguments.key)
    try:
        file = Config.load(paths).access_config_file
        keys = AccessConfig.load(file, paths).keys.values()
    except ConfigError as error:
        raise ClientError(f"which administrator's key? Say --key FILE ({error})") from error
    for key in keys:
        if key.admin:
            return key
    raise ClientError(f'which administrator\'s key? Say --key FILE, or give a key "admin": true in {file}')


# --- the commands -------------------------------------------------------------------------------------------------


def _leases(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    data = _ask(arguments, "GET", "/leases")
    if arguments.json:
        return _print_json(data)
    heads = ("PATH", "KEY", "HOST", "AGE", "EXPIRES IN", "OBJECTS", "BYTES", "STATE")
    fields = ("path", "key_id", "hostname", "age", "expires_in", "objects", "bytes", "state")
    rows = [[_cell(field, lease.get(field)) for field in fields] for lease in data.get("data", {}).values()]
    return _print_table(heads, rows, "nobody holds a lease")


def _repos(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    data = _ask(arguments, "GET", "/repos")
    if arguments.json:
        return _print_json(data)
    rows = [
        [name, "enabled" if repo.get("enabled") else "disabled", " ".join(f"{k}:{p}" for k, p in repo["keys"].items())]
        for name, repo in sorted(data.get("data", {}).items())
    ]
    return _print_table(("REPOSITORY", "STATE", "KEYS"), rows, "no repositories")


def _status(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    data = _ask(arguments, "GET", "/status")
    if arguments.json:
        return _print_json(data)
    print(f"version {data.get('version')}, up {_age(data.get('uptime', 0))}")
    for name in ("waiting", "payloads_running", "commits_running", "subscribers"):
        print(f"{name.replace('_', ' ')}: {data.get(name)}")
    print(f"leases: {len(data.get('leases', []))}, received: {human_size(data.get('received', 0))}")
    fields = ("name", "revision", "age", "free")
    rows = [
        [*(_cell(field, repo.get(field)) for field in fields), "enabled" if repo.get("enabled") else "disabled"]
        for repo in data.get("repositories", [])
    ]
    return _print_table(("REPOSITORY", "REVISION", "AGE", "FREE", "STATE"), rows, "no repositories")


def _cancel(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    fqrn, _, path = arguments.path.partition("/")
    quoted = urllib.parse.quote(os.fsencode(f"{fqrn}/{path.strip('/')}"))
    _ask(arguments, "DELETE", f"/leases-by-path/{quoted}", key=_administrator(arguments, paths))
    print(f"cancelled the leases at and below {fqrn}/{path.strip('/')}")
    return 0


def _enable(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    body = json.dumps({"enable": arguments.enable, "wait": arguments.wait}).encode()
    _ask(arguments, "POST", f"/repos/{urllib.parse.quote(arguments.fqrn)}", body, key=_administrator(arguments, paths))
    print(f"{arguments.fqrn} is {'enabled' if arguments.enable else 'disabled'}")
    return 0


# --- asking and telling -------------------------------------------------------------------------------------------


def _ask(
    arguments: argparse.Namespace, method: str, route: str, body: bytes | None = None, key: Key | None = None
) -> dict[str, Any]:
    url = arguments.gateway.rstrip("/") + route
    headers = {}
    if key is not None:
        # without a body, the URL's path is what is signed
        signed = body or urllib.parse.unquote_to_bytes(urllib.parse.urlsplit(url).path)
        headers["Authorization"] = sign(key, signed)
    try:
        reply = urllib3.request(method, url, body=body, headers=headers, timeout=_TIMEOUT, retries=False)
        answer = json.loads(reply.data)
    except (urllib3.exceptions.HTTPError, ValueError, OSError) as error:
        raise GatewayUnreachable(f"no answer from {arguments.gateway}: {type(error).__name__}") from error
    if not isinstance(answer, dict):
        raise ClientError(f"{arguments.gateway} did not answer as a gateway does")
    if answer.get("status") != "ok":
        raise GatewayRefused(f"{method} {route}", str(answer.get("reason") or answer.get("status")))
    return answer


def _print_json(data: dict[str, Any]) -> int:
    print(json.dumps(data, indent=2))
    return 0


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], none: str) -> int:
    if not rows:
        print(none)
        return 0
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    encoding = sys.stdout.encoding or "ascii"
    for row in (heads, *rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        print(line.encode(encoding, "replace").decode(encoding))
    return 0


def _cell(field: str, value: object) -> str:
    if value is None:
        return "-"
    if field in ("age", "expires_in") and isinstance(value, int):
        return _age(value)
    if field in ("bytes", "free") and isinstance(value, int):
        return human_size(value)
    return str(value)


def _age(seconds: int) -> str:
    """The two largest units: ``1 h 59 min``."""
    for (unit, size), (lower, lower_size) in itertools.pairwise(_UNITS):
        if seconds >= size:
            rest = seconds % size // lower_size
            return f"{seconds // size} {unit}" + (f" {rest} {lower}" if rest else "")
    return f"{seconds} s"
