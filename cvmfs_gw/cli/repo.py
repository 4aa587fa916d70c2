"""How commands that only read open a repository: which one, which revision, and whom they trust."""

from __future__ import annotations

import argparse
import os
import sys
import time

from cvmfs_gw.client.errors import ClientError, NotThere, UntrustedRepository
from cvmfs_gw.client.location import Location
from cvmfs_gw.client.reader import RepositoryReader
from cvmfs_gw.client.trust import fetch_public_key, find_public_keys, fingerprint, read_key, remember_key
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.when import parse_time

REPOSITORY_HELP = (
    "http://host/cvmfs/FQRN, or FQRN for the repository of this machine; with @TAG, @@NUMBER, @HASH or @TIME"
    " (a date, or '3 days ago') another revision than the newest"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which repository is read, and how."""
    parser.add_argument("repository", metavar="REPOSITORY[@REVISION]", help=REPOSITORY_HELP)
    add_trust(parser)


def add_external(parser: argparse.ArgumentParser) -> None:
    """Declare where contents are that are not in the repository's storage."""
    parser.add_argument(
        "--external-url",
        metavar="URL",
        default=os.environ.get("CVMFS_EXTERNAL_URL", ""),
        help="where external files are, several with ; between them (default: CVMFS_EXTERNAL_URL)",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Declare whose signatures count."""
    parser.add_argument(
        "--pub", metavar="FILE", help="public master key (default: FQRN.pub or DOMAIN/*.pub in the keys folder)"
    )
    parser.add_argument(
        "--accept-key", action="store_true", help="trust the key that the server shows now, and remember it"
    )


def open_reader(text: str, arguments: argparse.Namespace, paths: SystemPaths) -> RepositoryReader:
    """The revision of the repository that *text* says. Raises :exc:`ClientError` and :exc:`EngineError`."""
    location = Location.parse(text)
    keys = public_keys(location, arguments, paths)
    where = location.url or Repository(location.fqrn, paths, os.environ).storage
    external = [url for url in getattr(arguments, "external_url", "").split(";") if url]
    reader = RepositoryReader(location.fqrn, where, keys, external)
    try:
        if location.revision:
            _select(reader, location.revision)
    except BaseException:
        reader.__exit__(None, None, None)
        raise
    return reader


def public_keys(location: Location, arguments: argparse.Namespace, paths: SystemPaths) -> bytes:
    """The keys that vouch for the repository.

    A key that was accepted once is kept in ``~/.config/cvmfs-gw/keys``, and not asked for again: should the server show
    another one, that is not trusted.
    """
    if arguments.pub:
        try:
            return read_key(arguments.pub)
        except OSError as error:
            raise ClientError(f"cannot read the public key: {error}") from error
    own = os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "cvmfs-gw", "keys")
    found = find_public_keys(location.fqrn, (paths.keys, own))
    if found is not None:
        return found
    if not location.url or not arguments.accept_key:
        accept = ", or --accept-key to trust the key that the server shows" if location.url else ""
        raise UntrustedRepository(f"no public key of {location.fqrn} in {paths.keys} or {own}: give --pub FILE{accept}")
    key = fetch_public_key(location.url, location.fqrn)
    path = remember_key(own, location.fqrn, key)
    print(f"cvmfs-gw: trusting the key of {location.fqrn} from now on: SHA-256 {fingerprint(key)}, {path}",
          file=sys.stderr)  # fmt: skip
    return key


def _select(reader: RepositoryReader, what: str) -> None:
    try:
        reader.select(what)
    except NotThere:
        try:
            when = parse_time(what, time.time())
        except (ValueError, OverflowError):
            raise NotThere(f"{reader.fqrn}: no tag, revision, root catalog or time: {what[:80]}") from None
        reader.select(when)
