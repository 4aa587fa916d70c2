"""``bench``: measure one gateway, or two in turns."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conformance import options
from conformance.bench.jobs import JOBS
from conformance.bench.measure import Job, Row, measure, render
from conformance.cli.local import inside
from conformance.model import Report
from conformance.preflight import look
from conformance.probe import Probe
from conformance.reference import missing, reference
from conformance.report import files
from conformance.servers import own
from conformance.target import Target


def add_parser(commands: Any) -> None:
    command = commands.add_parser("bench", help="measure one gateway, or two in turns")
    options.add_target(command)
    command.add_argument("jobs", nargs="*", metavar="WORD", help="measure only what has one of these in its name")
    add = command.add_argument_group("what is measured").add_argument
    add("--against", metavar="FILE", help="a second target: a file with its options, one on each line")
    add("--local", action="store_true", help="in place of --gateway: this product's, started for it")
    add("--reference", action="store_true", help="this product's and the reference, where it is installed (as root)")
    add("--rounds", type=int, default=5, metavar="N", help="in how many turns (default: %(default)s)")
    add("--force", action="store_true", help="whatever the repository holds already")
    add("--inside", help=argparse.SUPPRESS)
    add = command.add_argument_group("reports").add_argument
    add("--html", metavar="FILE", type=Path, help="a page with a chart")
    add("--json", metavar="FILE", type=Path, help="the same to keep, for compare")
    command.set_defaults(run=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    jobs = _chosen(arguments.jobs)
    if arguments.rounds < 1:
        raise ValueError("--rounds: at least one")
    files.prepare(arguments.json, arguments.html)
    if arguments.reference and not (why := missing()):
        given = ["bench", "--local", f"--rounds={arguments.rounds}", *arguments.jobs]
        given += [f"--{name}={path.resolve()}" for name in ("json", "html") if (path := getattr(arguments, name))]
        with reference() as (target, enter):
            return inside(target, enter, given)
    if arguments.reference:
        print(f"the reference is not measured: {why}")
        arguments.local = True
    with ExitStack() as stack:
        targets = [*_targets(arguments, stack)]
        started, moment = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
        rows: list[Row] = []
        for job in jobs:
            rows.append(measure(job, [next(Probe.sequence(target)) for target in targets], arguments.rounds))
            print(render(rows[-1:]), flush=True)
    print("\n" + render(rows))
    about = {target.title: target.gateway for target in targets}
    seconds = time.monotonic() - started
    report = Report(" and ".join(about), about, moment, seconds, (), tuple(row.to_json() for row in rows))
    files.write([report], json=arguments.json, html=arguments.html)
    return 0


def _chosen(words: Sequence[str]) -> list[Job]:
    for word in words:
        if not any(word in job.what for job in JOBS):
            there = "".join(f"\n  {job.what}" for job in JOBS)
            raise ValueError(f"nothing that is measured has {word!r} in its name; there are{there}")
    return [job for job in JOBS if not words or any(word in job.what for word in words)]


def _targets(arguments: argparse.Namespace, stack: ExitStack) -> Iterator[Target]:
    """One or two; raises ``ValueError`` and ``OSError``."""
    if arguments.local:
        yield stack.enter_context(own())
    else:
        target = options.target(arguments)
        look(target, force=arguments.force)
        yield target
    if arguments.against:
        parser = argparse.ArgumentParser(prog=arguments.against)
        options.add_target(parser)
        given = shlex.split(Path(arguments.against).read_text(), comments=True)
        target = options.target(parser.parse_args(given))
        look(target, force=arguments.force)
        yield target
    if arguments.inside:
        yield options.load(Path(arguments.inside).read_text())
