"""``cvmfs-gw inspect tree|du|largest|catalogs|object|duplicates FQRN``: look inside a revision without mounting it.

A revision is said as for ``tag``: a tag, ``@NUMBER`` of a tagged one, or the hash of a root catalog; nothing is the
head. Sizes are those of the files, before compression.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cvmfs_gw.care.census import Census
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.tags import find_root
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.text import human_size, printable
from cvmfs_objstore.formats.entry import Entry, Kind
from cvmfs_objstore.hashes import ContentHash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cvmfs_gw.cli.types import Subparsers

_LETTERS = {Kind.DIRECTORY: "d", Kind.SYMLINK: "l", Kind.SPECIAL: "s", Kind.FILE: "-"}

Question = Callable[[Census, argparse.Namespace], int]


def add_parser(commands: Subparsers) -> None:
    """Declare the commands."""
    actions = commands.add_parser(
        "inspect", help="explore what a repository holds", description=__doc__
    ).add_subparsers(title="actions", metavar="ACTION", required=True)

    def action(name: str, run: Question, help_text: str, *, path: bool = False) -> argparse.ArgumentParser:
        parser = actions.add_parser(name, help=help_text, description=help_text)
        parser.add_argument("fqrn")
        if path:
            parser.add_argument("path", nargs="?", default="/", help="default: the whole repository")
        parser.add_argument("-t", "--revision", default="", metavar="REVISION", help="default: the head")
        parser.add_argument("--json", action="store_true", help="one JSON object a line")
        parser.set_defaults(run=_ask, question=run)
        return parser

    parser = action("tree", _tree, "everything at and below a path", path=True)
    parser.add_argument("-d", "--depth", type=int, metavar="N", help="levels to descend")
    parser = action("du", _du, "directories by size, with all that is in them", path=True)
    parser.add_argument("-d", "--depth", type=int, default=1, metavar="N", help="levels to descend (default: 1)")
    parser = action("largest", _largest, "the largest files", path=True)
    parser.add_argument("-n", "--number", type=int, default=20, metavar="N", help="how many (default: 20)")
    parser = action("catalogs", _catalogs, "catalogs by entries, and where a large one might be split")
    parser.add_argument("-n", "--number", type=int, metavar="N", help="the largest N")
    parser = action("object", _object, "what an object belongs to")
    parser.add_argument("hash", type=_hash, help="as in data/ab/cdef..., with or without its suffix")
    action("duplicates", _duplicates, "how much is saved by storing each content once")


def _hash(text: str) -> ContentHash:
    try:
        return ContentHash.parse(text.removeprefix("data/").replace("/", ""))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _ask(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    repository = Repository(arguments.fqrn, paths, os.environ)
    root = find_root(repository, arguments.revision)
    question: Question = arguments.question
    if arguments.question is _tree or not sys.stderr.isatty():
        return question(Census(repository, root), arguments)
    with _counting(Census(repository, root).catalogs_total()) as on_catalog:
        return question(Census(repository, root, on_catalog), arguments)


@contextmanager
def _counting(total: int) -> Iterator[Callable[[str], None]]:
    """A line on the terminal that says how many catalogs were looked at, and that vanishes in the end."""
    done, shown = 0, 0.0

    def on_catalog(mountpoint: str) -> None:
        nonlocal done, shown
        done += 1
        if time.monotonic() - shown > 0.1:
            shown = time.monotonic()
            print(f"\r{done:,} of {total:,} catalogs", end="", file=sys.stderr, flush=True)

    try:
        yield on_catalog
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def _say(arguments: argparse.Namespace, values: dict[str, Any], line: str) -> None:
    print(json.dumps(values) if arguments.json else printable(line))


def _top(arguments: argparse.Namespace) -> str:
    path: str = arguments.path.strip("/")
    return f"/{path}" if path else ""


def _tree(census: Census, arguments: argparse.Namespace) -> int:
    for path, entry in census.tree(_top(arguments), arguments.depth):
        _say(arguments, _entry_as_json(path, entry), _entry_as_text(path, entry))
    return 0


def _entry_as_json(path: str, entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = {
        "path": printable(path or "/"), "kind": entry.kind.value, "mode": entry.mode, "size": entry.size,
        "mtime": entry.mtime, "uid": entry.uid, "gid": entry.gid,
    }  # fmt: skip
    if entry.content_hash is not None:
        found["hash"] = str(entry.content_hash)
    if entry.symlink:
        found["target"] = printable(entry.symlink)
    return found


def _entry_as_text(path: str, entry: Entry) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.mtime))
    target = f" -> {entry.symlink}" if entry.symlink else ""
    mode = f"{_LETTERS[entry.kind]}{entry.mode & 0o7777:04o}"
    return f"{mode} {entry.uid:>5} {entry.gid:>5} {entry.size:>12} {when} {path or '/'}{target}"


def _du(census: Census, arguments: argparse.Namespace) -> int:
    for found in census.sizes(_top(arguments), arguments.depth):
        values = {**asdict(found), "path": printable(found.path or "/")}
        _say(arguments, values, f"{human_size(found.size):>10} {found.entries:>10} entries  {found.path or '/'}")
    return 0


def _largest(census: Census, arguments: argparse.Namespace) -> int:
    for path, size in census.largest(_top(arguments), arguments.number):
        _say(arguments, {"path": printable(path), "size": size}, f"{human_size(size):>10}  {path}")
    return 0


def _catalogs(census: Census, arguments: argparse.Namespace) -> int:
    shapes = sorted(census.catalogs(), key=lambda each: (-each.entries, each.mountpoint))
    for shape in shapes[: arguments.number]:
        place = shape.mountpoint or "/"
        values = {
            "path": printable(place), "hash": str(shape.ref), "depth": shape.depth, "entries": shape.entries,
            "subtree": shape.subtree, "size": shape.size,
            "split": [{"path": printable(path), "entries": count} for path, count in shape.split],
        }  # fmt: skip
        _say(arguments, values, f"{shape.entries:>10} entries {human_size(shape.size):>10}  {shape.ref}  {place}")
        if shape.split and not arguments.json:
            hint = ", ".join(f"{path} ({count} entries)" for path, count in shape.split)
            print(printable(f"{'':>10} a .cvmfscatalog file would split it well at {hint}"))
    return 0


def _object(census: Census, arguments: argparse.Namespace) -> int:
    found = False
    for place in census.owners(arguments.hash):
        found = True
        _say(arguments, {"hash": str(arguments.hash), "belongs_to": printable(place)}, place)
    if not found:
        print(f"{arguments.hash}: nothing in this revision refers to it", file=sys.stderr)
    return 0 if found else 1


def _duplicates(census: Census, arguments: argparse.Namespace) -> int:
    found = census.duplicates()
    line = (
        f"{found.references} references of {human_size(found.size)} to {found.objects} objects of"
        f" {human_size(found.unique)}: {found.ratio:.2f} times"
    )
    _say(arguments, {**asdict(found), "ratio": round(found.ratio, 4)}, line)
    return 0
