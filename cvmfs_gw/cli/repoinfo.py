"""``cvmfs-gw repoinfo FQRN``: show the repository's meta info (who, where, which replicas), or replace it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING

from cvmfs_gw.care.metainfo import MAX_SIZE, read_meta_info, replace_meta_info
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.paths import SystemPaths

if TYPE_CHECKING:
    from cvmfs_gw.cli.types import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser("repoinfo", help="show or replace the meta info", description=__doc__)
    parser.add_argument("fqrn", help="the repository")
    parser.add_argument("-f", "--file", default="", metavar="FILE", help="a new one, a JSON object; -: standard input")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    """Show or replace."""
    repository = Repository(arguments.fqrn, paths, os.environ)
    if not arguments.file:
        print(json.dumps(read_meta_info(repository), indent=2))
        return 0
    if arguments.file == "-":
        data = sys.stdin.buffer.read(MAX_SIZE + 1)
    else:
        with open(arguments.file, "rb") as file:
            data = file.read(MAX_SIZE + 1)
    head = replace_meta_info(repository, data, time.time())
    print(f"{arguments.fqrn}: meta info {head.meta_info}")
    return 0
