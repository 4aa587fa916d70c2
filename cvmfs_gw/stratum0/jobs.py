"""The jobs of the upload API: each plans a list of changes to the present tree.

A job is planned against the present tree at the time of its commit, including the changes of earlier jobs in the same
commit. Planning only reads: a job that is refused has changed nothing.

An existing file with the same content is no conflict: an upload whose reply was lost can be repeated and gets the same
answer. The later expiry of the two applies.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from cvmfs_gw.engine.changes import Change, Put, Remove
from cvmfs_gw.engine.rules import Rules
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.ingest.contents import StoredContent
from cvmfs_gw.stratum0.conditions import ALWAYS, Condition, tag_of
from cvmfs_gw.stratum0.errors import Exists, NotThere, PathConflict
from cvmfs_gw.stratum0.expiry import ExpiryIndex, expires, later, with_expiry
from cvmfs_objstore.formats.entry import (
    FLAG_BIND_MOUNTPOINT,
    FLAG_CHUNKED,
    FLAG_DIRECTORY,
    FLAG_FILE,
    Chunks,
    Entry,
    Kind,
    name_of,
    parent_path,
)

DIRECTORY_MODE: Final = stat.S_IFDIR | 0o755
_DIRECTORY_SIZE: Final = 4096
MAX_EXPIRED: Final = 20_000
"""The maximum number of expired entries that one commit removes; others follow in the next."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a job: its changes; and for the reply, whether something new was created, and its expiry."""

    changes: Collection[Change]
    created: bool = False
    expires: int | None = None
    entries: int = 0
    """The number of entries that are put or removed."""
    tag: str = ""
    """The entity tag of the resulting file; see :mod:`cvmfs_gw.stratum0.conditions`."""


class Job(Protocol):
    """A requested change of a repository. It may change only what is at or below *path*."""

    @property
    def path(self) -> str: ...

    def plan(self, tree: CatalogTree, rules: Rules) -> Plan:
        """The necessary changes; raises :exc:`UploadError` and :exc:`EngineError`."""


@dataclass(frozen=True, slots=True)
class PutFile:
    """Put a file whose content is stored. *now* is its ``mtime``, *end* its expiry, both in seconds since the epoch."""

    path: str
    content: StoredContent
    now: int
    end: int | None = None
    mode: int = 0o644
    overwrite: bool = False
    condition: Condition = ALWAYS

    def plan(self, tree: CatalogTree, rules: Rules) -> Plan:
        changes: list[Change] = [*missing_directories(tree, parent_path(self.path), self.now, self.end)]
        old = None if changes else tree.get(self.path)
        content, end = self.content, self.end
        tag = tag_of(content.hash, content.chunks)
        if old is not None and old.is_directory:
            raise PathConflict(f"{self.path} is a directory")
        self.condition.check(_tag(tree, self.path, old))
        if old is not None and not self.overwrite and self.condition.match is None:
            if not same_file(tree, self.path, old, content):
                raise Exists(f"{self.path} exists with other content (overwrite=true replaces it)")
            end = later(expires(old), end)
            if end == expires(old):
                return Plan([], expires=end, tag=tag)
            put = Put(self.path, with_expiry(old, end), tree.chunks(self.path))
            return Plan([put], expires=end, entries=1, tag=tag)
        owner = owner_of(tree)
        entry = Entry(
            hardlinks=1,
            hash=content.hash,
            size=content.size,
            mode=stat.S_IFREG | self.mode,
            mtime=self.now,
            mtimens=None,
            flags=FLAG_FILE | content.flags | (FLAG_CHUNKED if content.chunks else 0),
            name=name_of(self.path),
            symlink="",
            uid=owner[0],
            gid=owner[1],
            xattr=None,
        )
        rules.check_entry(self.path, entry, content.chunks)
        changes.append(Put(self.path, with_expiry(entry, end), content.chunks))
        return Plan(changes, created=old is None, expires=end, entries=len(changes), tag=tag)


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove what is at *path*; a directory that is not empty only if *recursive*."""

    path: str
    recursive: bool = False
    condition: Condition = ALWAYS

    def plan(self, tree: CatalogTree, rules: Rules) -> Plan:
        entry = find(tree, self.path)
        self.condition.check(_tag(tree, self.path, entry))
        if not self.path or entry.flags & FLAG_BIND_MOUNTPOINT:
            raise PathConflict(f"{self.path or '/'} cannot be removed")
        if entry.is_directory and not self.recursive and tree.has_children(self.path):
            raise PathConflict(f"{self.path} is a directory that is not empty (recursive=true removes it)")
        return Plan([Remove(self.path, recursive=self.recursive)], entries=1)


@dataclass(frozen=True, slots=True)
class SetExpiry:
    """Set the expiry of what is at *path*, or none; with *recursive*, also of everything below it."""

    path: str
    end: int | None
    recursive: bool = False

    def plan(self, tree: CatalogTree, rules: Rules) -> Plan:
        top = find(tree, self.path)
        if not self.path:
            if not self.recursive:
                raise PathConflict("/ cannot expire (recursive=true sets the expiry of everything in it)")
            found = list(below(tree, ""))
        else:
            found = [(self.path, top), *(below(tree, self.path) if self.recursive and top.is_directory else ())]
        changes: list[Change] = [
            Put(path, with_expiry(entry, self.end), () if entry.is_directory else tree.chunks(path))
            for path, entry in found
            if expires(entry) != self.end and not entry.flags & FLAG_BIND_MOUNTPOINT
        ]
        return Plan(changes, expires=self.end, entries=len(changes))


@dataclass(frozen=True, slots=True)
class Expire:
    """Remove all expired entries. *spared* tells which paths must not be changed now, as they are leased."""

    index: ExpiryIndex
    now: float
    spared: Callable[[str], bool] = lambda path: False
    path: str = ""
    overflow: list[int] = field(default_factory=list)
    """Receives the number of expired entries that are left for the next commit."""

    def plan(self, tree: CatalogTree, rules: Rules) -> Plan:
        root = tree.root.ref  # the head's, whatever jobs before this one have changed
        assert root is not None
        due = [path for path, _ in self.index.due(root.hash, self.now) if not self.spared(path)]
        # what is in a directory before the directory, over the bounds of catalogs, too
        due.sort(key=lambda path: path.count("/"), reverse=True)
        self.overflow.append(max(0, len(due) - MAX_EXPIRED))
        doomed: set[str] = set()
        changes: list[Change] = []
        for path in due[:MAX_EXPIRED]:
            entry = tree.get(path)  # a job before this one may have changed it
            end = None if entry is None else expires(entry)
            if entry is None or end is None or end > self.now:
                continue
            if entry.is_directory and any(f"{path}/{child.name}" not in doomed for child in tree.entries(path)):
                continue
            doomed.add(path)
            changes.append(Remove(path))
        return Plan(changes, entries=len(changes))


# --- what jobs ask of a tree ------------------------------------------------------------------------------------


def find(tree: CatalogTree, path: str) -> Entry:
    """The entry at *path*; raises :exc:`NotThere`."""
    entry = tree.get(path)
    if entry is None:
        raise NotThere(path or "/")
    return entry


def missing_directories(tree: CatalogTree, path: str, now: int, end: int | None) -> Iterator[Put]:
    """The missing parent directories of *path*; raises :exc:`PathConflict`."""
    uid, gid = owner_of(tree)
    directory, missing = "", False
    for name in path.split("/")[1:]:
        directory = f"{directory}/{name}"
        entry = None if missing else tree.get(directory)
        if entry is None:
            missing = True
            links, flags = 2, FLAG_DIRECTORY
            made = Entry(links, None, _DIRECTORY_SIZE, DIRECTORY_MODE, now, None, flags, name, "", uid, gid, None)
            yield Put(directory, with_expiry(made, end))
        elif not entry.is_directory:
            raise PathConflict(f"{directory} is not a directory")
        elif entry.flags & FLAG_BIND_MOUNTPOINT:
            raise PathConflict(f"{directory} is a bind mountpoint")


def owner_of(tree: CatalogTree) -> tuple[int, int]:
    """The owner of uploaded entries: that of the repository's root directory."""
    root = tree.get("")
    return (root.uid, root.gid) if root is not None else (0, 0)


def same_file(tree: CatalogTree, path: str, old: Entry, content: StoredContent) -> bool:
    """Whether the file at *path* has this content already."""
    chunks: Chunks = tree.chunks(path) if old.is_chunked else ()
    mask = ~(FLAG_FILE | FLAG_CHUNKED)
    return (
        old.kind is Kind.FILE
        and (old.size, old.hash, chunks) == (content.size, content.hash, content.chunks)
        and old.flags & mask == content.flags & mask
    )


def _tag(tree: CatalogTree, path: str, entry: Entry | None) -> str | None:
    """The entity tag of *entry* at *path*; None if it is not a file."""
    if entry is None or entry.kind is not Kind.FILE:
        return None
    return tag_of(entry.hash, tree.chunks(path) if entry.is_chunked else ())


def below(tree: CatalogTree, top: str) -> Iterable[tuple[str, Entry]]:
    """Path and entry of everything below the directory *top*, nested catalogs included."""
    waiting = [top]
    while waiting:
        directory = waiting.pop()
        for entry in tree.entries(directory):
            path = f"{directory}/{entry.name}"
            yield path, entry
            if entry.is_directory and not entry.flags & FLAG_BIND_MOUNTPOINT:
                waiting.append(path)
