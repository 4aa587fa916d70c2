"""``cvmfs-gw diff REPOSITORY [OLD [NEW]]``: what changed between two revisions, of one repository or of two.

A revision is said as a tag, as ``@NUMBER`` of a tagged one, as the hash of its root catalog, or as a time; nothing is
the head. ``diff A@OLD B@NEW`` compares any two.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import TYPE_CHECKING

from cvmfs_gw.cli.repo import REPOSITORY_HELP, open_reader
from cvmfs_gw.cli.text import change_as_json
from cvmfs_gw.cli.trust import add_trust
from cvmfs_gw.client.location import Location, repository_path
from cvmfs_gw.engine.changelist import Difference, compare_trees
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.text import printable
from cvmfs_objstore.formats.history import TRUNK_PREVIOUS

if TYPE_CHECKING:
    from cvmfs_gw.cli.types import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser("diff", help="show what changed between two revisions", description=__doc__)
    parser.add_argument("repository", metavar="REPOSITORY[@OLD]", help=REPOSITORY_HELP)
    parser.add_argument("old", nargs="?", default="", help=f"default: {TRUNK_PREVIOUS}; or another REPOSITORY[@NEW]")
    parser.add_argument("new", nargs="?", default="", help="default: the head")
    parser.add_argument("--path", default="/", help="at and below this path only")
    parser.add_argument("--exit-code", action="store_true", help="exit with 1 if there are differences")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    add_trust(parser)
    parser.set_defaults(run=_diff)


def _diff(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    old, new = _both(arguments)
    total: Counter[Difference] = Counter()
    with open_reader(old, arguments, paths) as before, open_reader(new, arguments, paths) as after:
        for change in compare_trees(before.tree, after.tree, repository_path(arguments.path)):
            total[change.difference] += 1
            print(json.dumps(change_as_json(change)) if arguments.json else printable(str(change)))
    if not arguments.json:
        print(", ".join(f"{total[difference]} {difference.value}" for difference in Difference))
    return 1 if arguments.exit_code and total else 0


def _both(arguments: argparse.Namespace) -> tuple[str, str]:
    """The two revisions, each as ``REPOSITORY@REVISION``."""
    first: str = arguments.repository
    said = Location.parse(first)
    base = said.url or said.fqrn
    if "://" in arguments.old or arguments.old.partition("@")[0] == said.fqrn:
        return first, arguments.old
    if said.revision:
        return first, f"{base}@{arguments.old}" if arguments.old else base
    return f"{base}@{arguments.old or TRUNK_PREVIOUS}", f"{base}@{arguments.new}" if arguments.new else base
