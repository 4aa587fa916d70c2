"""``list``: which cases there are."""

from __future__ import annotations

import argparse
from typing import Any

from conformance import registry


def add_parser(commands: Any) -> None:
    command = commands.add_parser("list", help="say which cases there are")
    command.add_argument("only", nargs="*", metavar="CASE", help="groups or cases (default: all)")
    command.set_defaults(run=_list)


def _list(arguments: argparse.Namespace) -> int:
    for case in registry.select(arguments.only):
        mark = " (destructive)" if case.destructive else ""
        print(f"{case.id}{mark}\n    {case.requirement}\n    {case.source}")
    return 0
