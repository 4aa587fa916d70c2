"""How commands that only read open a repository: which one, and which revision."""

from __future__ import annotations

import argparse
import os
import time

from cvmfs_gw.cli.trust import add_trust, public_keys
from cvmfs_gw.client.errors import NotThere
from cvmfs_gw.client.location import Location
from cvmfs_gw.client.reader import RepositoryReader
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


def open_reader(text: str, arguments: argparse.Namespace, paths: SystemPaths) -> RepositoryReader:
    """The revision of the repository that *text* says. Raises :exc:`ClientError` and :exc:`EngineError`."""
    location = Location.parse(text)
    keys = public_keys(location.fqrn, location.url, arguments, paths)
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


def _select(reader: RepositoryReader, what: str) -> None:
    try:
        reader.select(what)
    except NotThere:
        try:
            when = parse_time(what, time.time())
        except (ValueError, OverflowError):
            raise NotThere(f"{reader.fqrn}: no tag, revision, root catalog or time: {what[:80]}") from None
        reader.select(when)
