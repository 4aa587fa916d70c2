"""``cvmfs-gw check FQRN``: look for everything that can be wrong with a repository, and mend what can be mended.

Exit code 0 if there are no errors (warnings may be), 1 if there are, or if something could not be mended.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from cvmfs_gw.api.checks import report_as_json
from cvmfs_gw.care.check import CheckOptions, CheckReport, check_repository
from cvmfs_gw.care.check_objects import Progress
from cvmfs_gw.care.faults import Repair
from cvmfs_gw.care.repair import repair
from cvmfs_gw.client.location import repository_path
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.text import printable
from cvmfs_objstore.hashes import ContentHash

if TYPE_CHECKING:
    from cvmfs_gw.cli.types import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser("check", help="check a repository, and repair it", description=__doc__)
    parser.add_argument("fqrn", help="the repository")
    parser.add_argument("-i", "--integrity", action="store_true", help="read, hash and inflate every object, too")
    parser.add_argument("--repair", action="store_true", help="repair counters, link counts, reflog, tags, folders")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    parser.add_argument("-t", "--tag", default="", metavar="NAME", help="look at the tree of a tag, not at the head's")
    parser.add_argument("-a", "--all-tags", action="store_true", help="look at the trees of all tags, too")
    parser.add_argument("-s", "--subtree", default="", metavar="PATH", help="at and below this nested catalog only")
    parser.add_argument("--no-objects", action="store_true", help="do not look whether the objects exist")
    parser.add_argument("-v", "--verbose", action="store_true", help="say which catalog is looked at")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    """Check, repair if asked to, and say what was found."""
    options = CheckOptions(
        tag=arguments.tag,
        every_tag=arguments.all_tags,
        objects=not arguments.no_objects or arguments.integrity,
        integrity=arguments.integrity,
        subtree=repository_path(arguments.subtree),
    )
    repository = Repository(arguments.fqrn, paths, os.environ)

    def on_catalog(path: str, ref: ContentHash) -> None:
        if arguments.verbose:
            print(f"catalog {ref} {path}", file=sys.stderr)

    def check() -> CheckReport:
        progress = Bar() if sys.stderr.isatty() and not arguments.json else Progress()
        return check_repository(repository, options, time.time(), progress, on_catalog)

    report = check()
    done: list[str] = []
    if arguments.repair and any(kind.repair is not Repair.NONE for kind in report.faults.kinds()):
        done = repair(repository, report.faults, time.time())
        report = check()
    if arguments.json:
        print(json.dumps({**report_as_json(report), "repaired": done}, indent=2))
    else:
        _print(report, done)
    return 0 if report.ok else 1


def _print(report: CheckReport, done: list[str]) -> None:
    for line in done:
        print(f"repaired: {line}")
    remedies: dict[str, str] = {}
    for fault in report.faults:
        print(printable(str(fault)))
        remedies[fault.kind.code] = fault.kind.remedy
    for code, remedy in remedies.items():
        print(f"remedy for {code}: {remedy}")
    read = f", {report.bytes_read:,} bytes read" if report.bytes_read else ""
    print(
        f"{report.fqrn} revision {report.revision}: {report.catalogs} catalogs, {report.entries} entries,"
        f" {report.objects} objects{read}; {report.faults.errors} errors, {report.faults.warnings} warnings"
    )
    print("no problems found" if report.ok else "PROBLEMS FOUND")


class Bar(Progress):
    """A progress bar on the terminal, one line that is written over and over."""

    WIDTH = 40

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = self._done = self._objects = self._bytes = 0

    def begin(self, total: int) -> None:
        self._total = total

    def folder_done(self, objects: int, size: int) -> None:
        with self._lock:
            self._done += 1
            self._objects += objects
            self._bytes += size
            filled = "#" * (self.WIDTH * self._done // self._total)
            read = f", {self._bytes / 2**20:,.0f} MiB read" if self._bytes else ""
            line = f"[{filled:{self.WIDTH}}] {100 * self._done // self._total:3d} % {self._objects:,} objects{read}"
            print(f"\r{line}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        print(file=sys.stderr)
