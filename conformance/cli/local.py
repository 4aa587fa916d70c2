"""``local``: try this product's gateway, started for the purpose, and the reference beside it."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from conformance import options
from conformance.cli.run import add_common, attempt, finish, prepare
from conformance.model import Report
from conformance.outcomes import Failed
from conformance.reference import missing, reference
from conformance.report import files
from conformance.servers import ALONE, may_be_alone, own
from conformance.session import SHIPPED
from conformance.target import Target


def add_parser(commands: Any) -> None:
    command = commands.add_parser("local", help="try a gateway that is started for it")
    add = command.add_argument
    add("--reference", action="store_true", help="also the reference, where it is installed (as root)")
    add("--only-reference", action="store_true", help="the reference and nothing else")
    add("--sessions", metavar="DIR", type=Path, default=SHIPPED, help="recorded sessions to replay, in place of ours")
    add("--inside", help=argparse.SUPPRESS)
    add("--alone", action="store_true", help=argparse.SUPPRESS)
    add_common(command)
    command.set_defaults(run=_local)


def _local(arguments: argparse.Namespace) -> int:
    prepare(arguments)
    if arguments.inside:
        target = options.load(Path(arguments.inside).read_text())
        return finish(arguments, [attempt(arguments, target, destructive=arguments.destructive)])
    if not arguments.alone and may_be_alone():
        # In a mount namespace of its own it may have small disks, to fill them.
        os.execvp(ALONE[0], [*ALONE, sys.executable, "-m", "conformance", *arguments.given, "--alone"])
    reports: list[Report] = []
    try:
        for report in _each(arguments):
            reports.append(report)
            if report.was_interrupted:
                break
    except (Failed, OSError, ValueError):
        # What was found out up to now took long.
        finish(arguments, reports)
        raise
    return finish(arguments, reports)


def _each(arguments: argparse.Namespace) -> Iterator[Report]:
    if not arguments.only_reference:
        with own(arguments.sessions, small=arguments.alone) as target:
            # Nothing kills a gateway that was started for this.
            yield attempt(arguments, target, destructive=True)
    if not arguments.reference and not arguments.only_reference:
        return
    if why := missing():
        print(f"the reference is not tried: {why}")
        return
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        report = Path(folder) / "report"
        given = ["local", "--known", "reference-2.12", "--json", str(report), *arguments.only]
        given += [flag for flag in ("--destructive", "--quiet") if getattr(arguments, flag.strip("-"))]
        with reference(arguments.sessions, small=arguments.alone) as (target, enter):
            code = inside(target, enter, given)
        if code == 2:
            raise Failed("the reference could not be tried")
        yield from files.read(report)


def inside(target: Target, enter: Sequence[str], given: Sequence[str]) -> int:
    """Run the suite in the namespaces of *target*, which it gets as a file; returns its exit code."""
    with _kept(target) as file:
        # Who enters a mount namespace leaves the working directory behind.
        python = ["env", f"PYTHONPATH={Path(__file__).parents[2]}", sys.executable, "-m", "conformance"]
        return subprocess.run([*enter, *python, *given, f"--inside={file}"], check=False).returncode


@contextmanager
def _kept(target: Target) -> Iterator[Path]:
    """A file that nobody else can read: there are secrets in it."""
    with ExitStack() as stack:
        file = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conformance-"))) / "target"
        file.touch(0o600)
        file.write_text(options.dump(target))
        yield file
