"""``cvmfs-gw gc FQRN`` or ``--all``: remove what no kept revision refers to, while gateway and publishers go on.

The head, all tagged revisions, what an undo goes back to, and everything that an open lease may need stay; of the
other revisions those of the last three days, if nothing else is said.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from glob import glob
from typing import TYPE_CHECKING, TextIO

from cvmfs_gw.care.gc import GcReport, Policy, collect
from cvmfs_gw.engine.errors import EngineError, StorageError
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.gateway.config import Config
from cvmfs_gw.gateway.leaseage import oldest_lease_in
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.serverconf import ServerConf, ServerConfError
from cvmfs_gw.when import parse_time
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.hashes import ContentHash

if TYPE_CHECKING:
    from cvmfs_gw.cli.types import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser("gc", help="collect garbage", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("fqrn", nargs="?", default="", help="the repository")
    which.add_argument(
        "-a", "--all", action="store_true", help="every repository of this machine that may be collected, in turn"
    )
    keep = parser.add_mutually_exclusive_group()
    keep.add_argument("-r", "--revisions", type=int, metavar="N", help="keep the last N revisions before the head")
    keep.add_argument(
        "-t", "--since", type=time_argument, metavar="TIME", help='keep revisions since, as in "3 days ago"'
    )
    parser.add_argument("-d", "--dry-run", action="store_true", help="remove nothing")
    parser.add_argument("-l", "--list", action="store_true", help="print what is removed")
    parser.add_argument(
        "-L", "--log", metavar="FILE", help="append what is removed to this file (also: CVMFS_GC_DELETION_LOG)"
    )
    parser.add_argument("-f", "--force", action="store_true", help="accepted and ignored: there are no questions")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    """Collect and say what came of it."""
    if not arguments.all:
        _collect(arguments.fqrn, arguments, paths)
        return 0
    code = 0
    for fqrn in _collectable(paths):
        try:
            _collect(fqrn, arguments, paths)
        except (EngineError, ObjectStoreError, OSError) as error:  # the others have garbage, too
            print(f"cvmfs-gw: {fqrn}: {error}", file=sys.stderr)
            code = 1
    return code


def _collectable(paths: SystemPaths) -> Iterator[str]:
    """The repositories whose storage is this machine's to write, and that may be collected."""
    for path in sorted(glob(paths.server_conf("*"))):
        fqrn = os.path.basename(os.path.dirname(path))
        try:
            configuration = ServerConf.load(path, fqrn)
            ours = not configuration.upstream(os.environ).is_gateway
        except ServerConfError as error:
            print(f"cvmfs-gw: {fqrn} is left out: {error}", file=sys.stderr)
            continue
        if ours and configuration.garbage_collection and configuration.get("CVMFS_REPOSITORY_TYPE") != "stratum1":
            yield fqrn


def _collect(fqrn: str, arguments: argparse.Namespace, paths: SystemPaths) -> None:
    repository = Repository(fqrn, paths, os.environ)
    policy = Policy(arguments.revisions, arguments.since)
    if policy == Policy():
        policy = Policy.default(time.time())
    log = arguments.log or repository.configuration().get("CVMFS_GC_DELETION_LOG")
    with _deletion_log(log) as file:

        def on_delete(name: ContentHash) -> None:
            if arguments.list:
                print(name, file=sys.stderr if arguments.json else sys.stdout)
            if file is not None:
                file.write(f"{name}\n")

        report = collect(
            repository,
            policy,
            oldest_lease=oldest_lease(paths, fqrn),
            dry_run=arguments.dry_run,
            on_delete=on_delete if arguments.list or file is not None else None,
        )
    _print(report, as_json=arguments.json)


def time_argument(text: str) -> float:
    """A time on the command line, in seconds since the epoch."""
    try:
        return parse_time(text, time.time())
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def oldest_lease(paths: SystemPaths, fqrn: str) -> float | None:
    """When the oldest open lease of this machine's gateway was granted, in seconds since the epoch.

    Raises :exc:`StorageError` if there is a lease database that cannot be read: then nobody knows what is needed.
    """
    config = Config.load(paths)
    if not os.path.exists(config.lease_database):
        return None
    try:
        return oldest_lease_in(config.lease_database, fqrn, config.max_lease_ms, int(time.time() * 1000))
    except sqlite3.Error as error:
        raise StorageError(f"cannot read the leases in {config.lease_database}: {error}") from error


@contextmanager
def _deletion_log(path: str) -> Iterator[TextIO | None]:
    """Source: what ``cvmfs_server gc -L`` writes before and behind the names."""
    if not path:
        yield None
        return
    with open(path, "a", encoding="ascii") as file:
        file.write(f"# Garbage Collection started at {_now()}\n")
        yield file
        file.write(f"# Garbage Collection finished at {_now()}\n\n")


def _now() -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())


def _print(report: GcReport, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(report), indent=2))
    else:
        print(report.describe(), end="")
