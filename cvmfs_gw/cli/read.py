"""``cvmfs-gw ls|cat|get|history``: look into a repository that is not mounted.

Works as any user, over HTTP or on this machine's storage. Every signature and every hash on the way is verified.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cvmfs_gw.cli.progress import Meter
from cvmfs_gw.cli.repo import add_arguments, add_external, open_reader
from cvmfs_gw.cli.text import entry_as_json, entry_as_line, tag_as_json, tag_as_line
from cvmfs_gw.client.download import Download
from cvmfs_gw.client.location import Location, repository_path
from cvmfs_gw.client.reader import RepositoryReader
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.text import printable
from cvmfs_objstore.formats.entry import Entry
from cvmfs_objstore.formats.history import UNDO_TAGS

if TYPE_CHECKING:
    from cvmfs_gw.cli.types import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Declare the commands."""
    parser = commands.add_parser("ls", help="list a directory of a repository", description=__doc__)
    add_arguments(parser)
    parser.add_argument("path", nargs="?", default="/")
    parser.add_argument("-l", "--long", action="store_true", help="mode, owner, size, time")
    parser.add_argument("-R", "--recursive", action="store_true", help="with everything below")
    parser.add_argument("-d", "--directory", action="store_true", help="a directory itself, not its content")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=_ls)

    parser = commands.add_parser("cat", help="write a file's content to standard output", description=__doc__)
    add_arguments(parser)
    add_external(parser)
    parser.add_argument("path")
    parser.set_defaults(run=_cat)

    parser = commands.add_parser("get", help="copy a file or a directory", description=__doc__)
    add_arguments(parser)
    add_external(parser)
    parser.add_argument("path")
    parser.add_argument("target", nargs="?", help="what becomes the copy (default: its name, in the current directory)")
    parser.add_argument(
        "--owners", action="store_true", help="keep owners, set-user-id bits and devices, too (as root)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress on the terminal")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    parser.set_defaults(run=_get)

    parser = commands.add_parser("history", help="list the tagged revisions, or those that changed a path")
    add_arguments(parser)
    parser.add_argument("path", nargs="?", help="only revisions in which this path is not what it was before")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=_history)


def _ls(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    path = repository_path(arguments.path)
    with open_reader(arguments.repository, arguments, paths) as reader:
        for name, at, entry in _listed(reader, path, arguments):
            if arguments.json:
                print(json.dumps({"path": printable(at or "/"), **(entry_as_json(entry) or {})}))
            else:
                print(entry_as_line(name, entry) if arguments.long else printable(name))
    return 0


def _listed(reader: RepositoryReader, path: str, arguments: argparse.Namespace) -> Iterator[tuple[str, str, Entry]]:
    """What to call it, where it is, what it is."""
    top = reader.entry(path)
    if not top.is_directory or arguments.directory:
        yield path or "/", path, top
    elif arguments.recursive:
        for at, entry in reader.walk(path):
            yield at[len(path) + 1 :], at, entry
    else:
        for entry in reader.entries(path):
            yield entry.name, f"{path}/{entry.name}", entry


def _cat(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    with open_reader(arguments.repository, arguments, paths) as reader:
        reader.copy(repository_path(arguments.path), sys.stdout.buffer)
        sys.stdout.buffer.flush()
    return 0


def _get(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    path = repository_path(arguments.path)
    name = path.rpartition("/")[2] or Location.parse(arguments.repository).fqrn
    target = arguments.target or name
    with open_reader(arguments.repository, arguments, paths) as reader:
        if os.path.isdir(target) and not reader.entry(path).is_directory:
            target = os.path.join(target, name)
        meter = Meter("objects fetched", quiet=arguments.quiet or arguments.json)
        with meter:
            report = Download(reader, owners=arguments.owners, progress=meter.add).run(path, target)
    if arguments.json:
        fields = {"files": report.files, "bytes": report.size, "kept": report.kept}
        skipped = [{"path": printable(at), "why": printable(why)} for at, why in report.skipped]
        print(json.dumps({**fields, "skipped": skipped}))
    else:
        for at, why in report.skipped:
            print(f"cvmfs-gw: not copied: {printable(at)}: {printable(why)}", file=sys.stderr)
        print(f"{printable(target)}: {report.files} files, {report.size:,} bytes; {report.kept} were there")
    return 1 if report.skipped else 0


def _history(arguments: argparse.Namespace, paths: SystemPaths) -> int:
    with open_reader(arguments.repository, arguments, paths) as reader:
        tags = reader.tags()
        named = {tag.root_hash for tag in tags if tag.name not in UNDO_TAGS}
        # the undo tags say nothing new of a revision that has a name
        tags = [tag for tag in tags if tag.name not in UNDO_TAGS or tag.root_hash not in named]
        shown_tags = tags if arguments.path is None else reader.changes_of(repository_path(arguments.path), tags)
        for tag in shown_tags:
            print(json.dumps(tag_as_json(tag)) if arguments.json else tag_as_line(tag))
    return 0
