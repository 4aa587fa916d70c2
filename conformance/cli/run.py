"""``run``: try a gateway that is there. It is the command that is meant where none is named."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from conformance import known, options, registry
from conformance.model import Report
from conformance.preflight import look
from conformance.report import files
from conformance.report.terminal import Terminal
from conformance.runner import run
from conformance.target import Target


def add_parser(commands: Any) -> None:
    command = commands.add_parser("run", help="try a gateway (the default)")
    options.add_target(command)
    options.add_more(command)
    add_common(command)
    command.add_argument("--force", action="store_true", help="whatever the repository holds already")
    command.set_defaults(run=_run)


def add_common(command: argparse.ArgumentParser) -> None:
    """What ``local`` has, too."""
    command.add_argument("only", nargs="*", metavar="CASE", help="groups or cases, as list shows them (default: all)")
    group = command.add_argument_group("which cases, and what counts")
    add = group.add_argument
    add("--destructive", action="store_true", help="also cases that can kill or wedge a faulty gateway")
    add("--known", choices=sorted(known.PROFILES), default="none", help="failures known of this target do not count")
    group = command.add_argument_group("reports")
    add = group.add_argument
    add("--html", metavar="FILE", type=Path, help="a page with every case and its evidence")
    add("--json", metavar="FILE", type=Path, help="the same to keep, for compare")
    add("--junit", metavar="FILE", type=Path, help="the same for continuous integration")
    add("-q", "--quiet", action="store_true", help="show only what does not pass")


def attempt(arguments: argparse.Namespace, target: Target, *, destructive: bool) -> Report:
    """The cases that were asked for, shown as they go."""
    cases = registry.select(arguments.only)
    terminal = Terminal(quiet=arguments.quiet)
    report = run(
        target,
        cases,
        destructive=destructive,
        known=known.explain(cases, known.PROFILES[arguments.known]),
        progress=terminal.progress,
    )
    terminal.summary(report)
    return report


def prepare(arguments: argparse.Namespace) -> None:
    """Find out before a long run what makes no sense; raises ``ValueError`` and ``OSError``."""
    registry.select(arguments.only)
    files.prepare(arguments.json, arguments.junit, arguments.html)


def finish(arguments: argparse.Namespace, reports: list[Report]) -> int:
    """Write what was asked for; returns the exit code."""
    files.write(reports, json=arguments.json, junit=arguments.junit, html=arguments.html)
    if any(report.was_interrupted for report in reports):
        return 130
    return 1 if any(report.unexpected or report.cut for report in reports) else 0


def _run(arguments: argparse.Namespace) -> int:
    target = options.target(arguments)
    prepare(arguments)
    look(target, force=arguments.force)
    return finish(arguments, [attempt(arguments, target, destructive=arguments.destructive)])
