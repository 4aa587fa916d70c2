"""``cvmfs-gw tag list|add|remove|move``, ``rollback`` and ``diff``: revisions by name.

A revision is said as a tag, as ``@NUMBER`` of a tagged one, or as the hash of its root catalog; nothing is the head.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cvmfs_gw.engine.changelist import PathChange, list_changes
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.tags import add_tag, find_root, list_tags, move_tag, remove_tags, rollback
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.text import printable
from cvmfs_objstore.formats.entry import Entry
from cvmfs_objstore.formats.history import TRUNK, TRUNK_PREVIOUS, Tag

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
    parser.add_argument("-f", "--force", action="store_true", help="taken and ignored: nothing is asked")
    parser.set_defaults(run=_rollback)
    parser = commands.add_parser("diff", help="what changed between two revisions", description=__doc__)
    parser.add_argument("fqrn")
    parser.add_argument("old", nargs="?", default=TRUNK_PREVIOUS, help="default: trunk-previous")
    parser.add_argument("new", nargs="?", default=TRUNK, help="default: trunk, the head")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=_diff)


def _open(arguments: argparse.Namespace, paths: SystemPaths) -> Repository:
    return Repository(arguments.fqrn, paths, os.environ)


def _list(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    tags = list_tags(_open(arguments, paths))
    if arguments.json:
        print(json.dumps([_tag_as_json(tag) for tag in tags], indent=2))
        return 0
    for tag in tags:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(tag.timestamp))
        branch = f" [{tag.branch}]" if tag.branch else ""
        print(
            printable(
                f"{tag.revision:>8}  {when}  {tag.root_hash.bare}  {tag.name}{branch}  {tag.description}".rstrip()
            )
        )
    return 0


def _tag_as_json(tag: Tag) -> dict[str, Any]:
    return {
        "name": printable(tag.name),
        "revision": tag.revision,
        "hash": tag.root_hash.bare,
        "timestamp": tag.timestamp,
        "size": tag.size,
        "channel": tag.channel,
        "branch": printable(tag.branch),
        "description": printable(tag.description),
    }


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


@dataclass(slots=True)
class _Sum:
    added: int = 0
    removed: int = 0
    modified: int = 0


def _diff(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    repository = _open(arguments, paths)
    old, new = find_root(repository, arguments.old), find_root(repository, arguments.new)
    total = _Sum()
    for change in list_changes(repository.catalogs, old, new):
        setattr(total, change.difference.value, getattr(total, change.difference.value) + 1)
        print(json.dumps(_change_as_json(change)) if arguments.json else printable(str(change)))
    if not arguments.json:
        print(f"{total.added} added, {total.removed} removed, {total.modified} modified")
    return 0


def _change_as_json(change: PathChange) -> dict[str, Any]:
    return {
        "path": printable(change.path or "/"),
        "change": change.difference.value,
        "properties": list(change.properties),
        "old": _entry_as_json(change.old),
        "new": _entry_as_json(change.new),
    }


def _entry_as_json(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    found: dict[str, Any] = {"kind": entry.kind.value, "size": entry.size, "mode": entry.mode, "mtime": entry.mtime}
    if entry.content_hash is not None:
        found["hash"] = str(entry.content_hash)
    if entry.symlink:
        found["target"] = printable(entry.symlink)
    return found
