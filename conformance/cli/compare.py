"""``compare``: reports side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from conformance.report import files


def add_parser(commands: Any) -> None:
    command = commands.add_parser("compare", help="put reports side by side")
    add = command.add_argument
    add("reports", nargs="+", type=Path, metavar="FILE", help="what --json has written")
    add("--html", metavar="FILE", type=Path, help="a page with every case")
    add("--junit", metavar="FILE", type=Path, help="for continuous integration")
    add("--markdown", metavar="FILE", type=Path, help="tables of totals and of what fails")
    command.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    if not (arguments.html or arguments.junit or arguments.markdown):
        raise ValueError("needs --html, --junit or --markdown")
    reports = [report for path in arguments.reports for report in files.read(path)]
    files.write(reports, html=arguments.html, junit=arguments.junit, markdown=arguments.markdown)
    return 0
