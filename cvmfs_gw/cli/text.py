"""What several commands print: tags, entries and changes, as lines and as JSON."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from typing import Any

from cvmfs_gw.engine.changelist import PathChange
from cvmfs_gw.text import printable
from cvmfs_objstore.formats.entry import Entry, Kind
from cvmfs_objstore.formats.history import Branch, Tag


def moment(seconds: float) -> str:
    """A time in UTC; *seconds* since the epoch."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def tag_as_line(tag: Tag) -> str:
    branch = f" [{tag.branch}]" if tag.branch else ""
    line = f"{tag.revision:>8}  {moment(tag.timestamp)}  {tag.root_hash.bare}  {tag.name}{branch}  {tag.description}"
    return printable(line.rstrip())


def tag_as_json(tag: Tag) -> dict[str, Any]:
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


def branches_as_lines(branches: list[Branch]) -> Iterator[str]:
    """The default branch and below it those that come from it, and so on, with their first revisions."""
    yield "(default)  @0"

    def below(parent: str, depth: int) -> Iterator[str]:
        for branch in branches:
            if branch.parent == parent:
                yield f"{'  ' * depth}{printable(branch.name)}  @{branch.initial_revision}"
                yield from below(branch.name, depth + 1)

    yield from below("", 1)


def branch_as_json(branch: Branch) -> dict[str, Any]:
    return {
        "name": printable(branch.name),
        "parent": printable(branch.parent),
        "initial_revision": branch.initial_revision,
    }


def entry_as_line(path: str, entry: Entry) -> str:
    """As ``ls -l`` does it, with numbers for owner and group and the time in UTC."""
    target = f" -> {entry.symlink}" if entry.kind is Kind.SYMLINK else ""
    mode, when = stat.filemode(entry.mode), moment(entry.mtime)
    return printable(
        f"{mode} {entry.linkcount:>3} {entry.uid:>6} {entry.gid:>6} {entry.size:>12} {when} {path}{target}"
    )


def entry_as_json(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    found: dict[str, Any] = {"kind": entry.kind.value, "size": entry.size, "mode": entry.mode, "mtime": entry.mtime}
    found |= {"uid": entry.uid, "gid": entry.gid, "links": entry.linkcount}
    if entry.content_hash is not None:
        found["hash"] = str(entry.content_hash)
    if entry.symlink:
        found["target"] = printable(entry.symlink)
    return found


def change_as_json(change: PathChange) -> dict[str, Any]:
    return {
        "path": printable(change.path or "/"),
        "change": change.difference.value,
        "properties": list(change.properties),
        "old": entry_as_json(change.old),
        "new": entry_as_json(change.new),
    }
