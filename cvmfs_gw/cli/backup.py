"""``cvmfs-gw export FQRN TARGET`` and ``import FQRN --from STORAGE --keys DIR``: backup, and moving to another machine.

An export is whole; publishing and our collector go on meanwhile, gc and check of cvmfs_server are waited for. TARGET is
a folder, into which a second export brings what is new, or a file that ends in ``.tar``, or ``-`` for a tar archive on
the standard output. Secret keys are not part of it.

An import takes a storage as ``cvmfs_server`` keeps it, or as an export has it, and verifies signatures and all objects.
They are copied, or linked (one file system), or stay in place: then the storage is used where it lies. Of the former
server.conf it says what is taken and what has no meaning here; a repository that cvmfs_server has made on this machine
(in place) keeps its own. Nobody may publish to it meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Final, TextIO

from cvmfs_gw.care.adopt import Adoption, Way, adopt
from cvmfs_gw.care.check_objects import Progress
from cvmfs_gw.care.snapshot import CopyReport, export
from cvmfs_gw.care.targets import FolderTarget, TarTarget
from cvmfs_gw.cli.check import Bar
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.text import human_size, printable

if TYPE_CHECKING:
    from cvmfs_gw.cli.types import Subparsers

WAIT_S: Final = 3600.0
"""How long an export waits for ``cvmfs_server``, in seconds, where nothing is said."""


def add_parser(commands: Subparsers) -> None:
    """Declare the commands."""
    parser = commands.add_parser("export", help="copy a repository, for a backup or a move", description=__doc__)
    parser.add_argument("fqrn", metavar="FQRN")
    parser.add_argument("target", metavar="TARGET", help="a folder, a file that ends in .tar, or -")
    parser.add_argument(
        "--wait",
        type=float,
        default=WAIT_S,
        metavar="SECONDS",
        help="how long to wait for gc or check of cvmfs_server (default: %(default).0f)",
    )
    parser.add_argument("--json", action="store_true", help="report as JSON")
    parser.set_defaults(run=_export)
    parser = commands.add_parser("import", help="adopt a Stratum 0 that was made elsewhere", description=__doc__)
    parser.add_argument("fqrn", metavar="FQRN")
    parser.add_argument("--from", dest="storage", required=True, metavar="STORAGE", help="the folder with data/ in it")
    parser.add_argument("-k", "--keys", required=True, metavar="DIR", help="where FQRN.{pub,crt,key,...} are")
    parser.add_argument(
        "-w",
        "--stratum0",
        default="",
        metavar="URL",
        help="where it will be (default: as its server.conf says, or http://localhost:8080/cvmfs/FQRN)",
    )
    parser.add_argument(
        "--settings", default="", metavar="FILE", help="its former server.conf (default: that of an export)"
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--link", action="store_true", help="hard links in place of copies")
    way.add_argument("--in-place", action="store_true", help="use the storage where it lies")
    way.add_argument("--s3", default="", metavar="FILE", help="copy it into the bucket of this s3.conf")
    parser.add_argument(
        "--trust-objects", action="store_true", help="look for objects that are not copied, but do not read them"
    )
    parser.add_argument(
        "-r", "--resign", action="store_true", help="sign the whitelist again, which may have run out (master key)"
    )
    parser.add_argument("--json", action="store_true", help="report as JSON")
    parser.set_defaults(run=_import)


def _export(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    repository = Repository(arguments.fqrn, paths, os.environ)
    with ExitStack() as stack:
        target: TarTarget | FolderTarget
        if arguments.target == "-":
            target = TarTarget(sys.stdout.buffer, time.time())
        elif arguments.target.endswith(".tar"):
            # a name that says "whole" only when it is
            partial = f"{arguments.target}.part"
            target = TarTarget(stack.enter_context(open(partial, "wb")), time.time())
        else:
            target = FolderTarget(arguments.target)
        stack.enter_context(closing(target))
        report = export(repository, target, _progress(), patience=arguments.wait, waiting=_say_waiting)
    if arguments.target.endswith(".tar"):
        os.replace(partial, arguments.target)
    _print(report, arguments, sys.stderr if arguments.target == "-" else sys.stdout)
    return 1 if report.missing else 0


def _import(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    way = Way.LINK if arguments.link else Way.IN_PLACE if arguments.in_place else Way.COPY
    source = Adoption(
        arguments.storage,
        arguments.keys,
        arguments.stratum0,
        arguments.settings,
        way,
        arguments.trust_objects,
        arguments.resign,
        arguments.s3,
    )
    adopted = adopt(arguments.fqrn, paths, os.environ, source, time.time(), _progress())
    if arguments.json:
        print(json.dumps({**asdict(adopted.copy), "settings": [asdict(setting) for setting in adopted.settings]}))
        return 0
    for setting in adopted.settings:
        print(printable(str(setting)))
    report = adopted.copy
    done = {
        Way.COPY: f"{report.copied} of {report.objects} objects copied, {human_size(report.size)}",
        Way.LINK: f"{report.copied} of {report.objects} objects linked, {human_size(report.size)}",
        Way.IN_PLACE: f"{report.objects} objects in place, {human_size(report.size)} read",
    }
    print(f"{report.fqrn} revision {report.revision}: {done[way]}")
    return 0


def _say_waiting(what: str) -> None:
    print(f"{what}: waiting", file=sys.stderr, flush=True)


def _progress() -> Progress:
    return Bar() if sys.stderr.isatty() else Progress()


def _print(report: CopyReport, arguments: argparse.Namespace, file: TextIO) -> None:
    if arguments.json:
        print(json.dumps(asdict(report), indent=2), file=file)
        return
    for line in report.missing:
        print(f"missing: {line}", file=sys.stderr)
    done = f"{report.copied} of {report.objects} objects copied, {human_size(report.size)}"
    print(f"{report.fqrn} revision {report.revision}: {done}", file=file)
