"""``cvmfs-gw tag list|show|branches|add|remove|move`` and ``rollback``: revisions by name.

A revision is said as a tag, as ``@NUMBER`` of a tagged one, or as the hash of its root catalog; nothing is the head.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import TYPE_CHECKING

from cvmfs_gw.cli.text import branch_as_json, branches_as_lines, moment, tag_as_json, tag_as_line
from cvmfs_gw.engine.errors import TagError
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.tags import add_tag, find_root, list_branches, list_tags, move_tag, remove_tags, rollback
from cvmfs_gw.paths import SystemPaths

if TYPE_CHECKING:
    from cvmfs_gw.cli.types import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Declare the commands."""
    actions = commands.add_parser("tag", help="list, add, remove and move tags", description=__doc__).add_subparsers(
        title="actions", metavar="ACTION", required=True
    )
    parser = actions.add_parser("list", help="all tags, newest revision first")
    parser.add_argument("fqrn")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=_list)
    parser = actions.add_parser("show", help="one tag, with all that it says")
    parser.add_argument("fqrn")
    parser.add_argument("name")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=_show)
    parser = actions.add_parser("branches", help="all branches, each below the one that it comes from")
    parser.add_argument("fqrn")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=_branches)
    for name, run, help_text in (("add", _add, "name a revision"), ("move", _move, "let a tag name another revision")):
        parser = actions.add_parser(name, help=help_text)
        parser.add_argument("fqrn")
        parser.add_argument("name")
        parser.add_argument("revision", nargs="?", default="", help="default: the head")
        parser.add_argument("-m", "--description", default="", metavar="TEXT")
        parser.set_defaults(run=run)
    parser = actions.add_parser("remove", help="remove tags, all or none")
    parser.add_argument("fqrn")
    parser.add_argument("names", nargs="+", metavar="name")
    parser.set_defaults(run=_remove)
    parser = commands.add_parser("rollback", help="go back to a tag, or undo the last publish", description=__doc__)
    parser.add_argument("fqrn")
    parser.add_argument("-t", "--tag", default="", metavar="NAME", help="default: undo the last publish")
    parser.add_argument("-f", "--force", action="store_true", help="accepted and ignored: there are no questions")
    parser.set_defaults(run=_rollback)


def _open(arguments: argparse.Namespace, paths: SystemPaths) -> Repository:
    return Repository(arguments.fqrn, paths, os.environ)


def _list(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    tags = list_tags(_open(arguments, paths))
    if arguments.json:
        print(json.dumps([tag_as_json(tag) for tag in tags], indent=2))
        return 0
    for tag in tags:
        print(tag_as_line(tag))
    return 0


def _show(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    tag = next((tag for tag in list_tags(_open(arguments, paths)) if tag.name == arguments.name), None)
    if tag is None:
        raise TagError(f"there is no tag {arguments.name!r}")
    shown = tag_as_json(tag)
    if arguments.json:
        print(json.dumps(shown, indent=2))
        return 0
    shown |= {"timestamp": f"{moment(tag.timestamp)} UTC", "size": f"{tag.size} bytes (root catalog)"}
    shown["branch"] = shown["branch"] or "(default)"
    for name, value in shown.items():
        print(f"{name:<12} {value}".rstrip())
    return 0


def _branches(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    branches = list_branches(_open(arguments, paths))
    if arguments.json:
        print(json.dumps([branch_as_json(branch) for branch in branches], indent=2))
        return 0
    for line in branches_as_lines(branches):
        print(line)
    return 0


def _add(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    repository = _open(arguments, paths)
    root = find_root(repository, arguments.revision)
    tag = add_tag(repository, arguments.name, arguments.description, time.time(), root)
    print(f"{tag.name} is revision {tag.revision}, {tag.root_hash}")
    return 0


def _move(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    repository = _open(arguments, paths)
    root = find_root(repository, arguments.revision)
    tag = move_tag(repository, arguments.name, time.time(), root, arguments.description)
    print(f"{tag.name} is revision {tag.revision} now, {tag.root_hash}")
    return 0


def _remove(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    for tag in remove_tags(_open(arguments, paths), arguments.names, time.time()):
        print(f"removed {tag.name} (revision {tag.revision}, {tag.root_hash})")
    return 0


def _rollback(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    done = rollback(_open(arguments, paths), arguments.tag, time.time())
    print(f"revision {done.head.revision} is what revision {done.target.revision} was ({done.target.name})")
    for tag in done.removed:
        print(f"removed {tag.name} (revision {tag.revision}, {tag.root_hash})")
    return 0
