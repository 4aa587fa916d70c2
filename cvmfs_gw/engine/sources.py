"""A directory on disk as a list of changes.

The difference between the directory and what the repository has is made without reading what has not changed: a file
of the same size and modification time is taken for the same.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from cvmfs_gw.engine.changes import Change, Nest, Put, Remove, Unnest
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.formats.database import to_str
from cvmfs_objstore.formats.entry import (
    FLAG_CHUNKED,
    FLAG_DIRECTORY,
    FLAG_FILE,
    FLAG_HIDDEN,
    FLAG_LINK,
    FLAG_SPECIAL,
    Chunks,
    Entry,
    Kind,
    pack_xattrs,
)

CATALOG_MARKER: Final = ".cvmfscatalog"
"""A file of this name makes its directory a nested catalog."""
_XATTR_PREFIXES: Final = ("user.", "security.capability")


@dataclass(frozen=True, slots=True)
class StoredContent:
    """What became of a file's content: storage flags (algorithm, compression), and either a hash or chunks.

    *size* is what was read, in bytes: the file may have changed since it was looked at.
    """

    size: int
    flags: int
    hash: bytes | None
    chunks: Chunks


class ContentStore(Protocol):
    """Where a source puts the content of files."""

    def store(self, path: str, size: int) -> StoredContent:
        """Store the file at *path* of the local disk, which had *size* bytes when it was looked at."""


class DirectorySource:
    """The changes that make the subtree *target* of *tree* equal to the local *directory*. Use once."""

    def __init__(
        self,
        directory: str,
        target: str,
        tree: CatalogTree,
        content: ContentStore,
        progress: Callable[[str, int], None] = lambda path, size: None,
    ) -> None:
        self._directory, self._target, self._tree, self._content = directory, target, tree, content
        self._progress = progress
        self._removes: list[Remove] = []
        self._directories: list[Put] = []
        self._files: list[tuple[str, str, os.stat_result, Entry | None]] = []
        self._nested: set[str] = set()
        self._dissolved: set[str] = set()

    def changes(self) -> Iterator[Change]:
        """The changes; file contents are stored as the iterator gets to them. Raises ``OSError``."""
        self._scan(self._directory, self._target, os.lstat(self._directory))
        yield from self._removes
        yield from self._directories
        for path, local, status, old in self._files:
            yield from self._put_file(path, local, status, old)
        yield from map(Unnest, sorted(self._dissolved))
        yield from map(Nest, sorted(self._nested))

    def _scan(self, local: str, path: str, status: os.stat_result) -> None:
        old = self._tree.get(path)
        entry = _entry(path, local, status)
        if old is None or old._replace(hardlinks=0, flags=FLAG_DIRECTORY) != entry._replace(hardlinks=0):
            self._directories.append(Put(path, entry))
        # Hidden entries are made by the server and not seen in a mounted repository, so nobody means to remove them.
        there = self._tree.entries(path) if old and old.is_directory else []
        known = {child.name: child for child in there if not child.flags & FLAG_HIDDEN}
        marked = False
        with os.scandir(os.fsencode(local)) as listing:
            children = sorted(listing, key=lambda child: child.name)
        for child in children:
            name = to_str(child.name)
            marked = marked or (name == CATALOG_MARKER and path != "")
            below, below_local = f"{path}/{name}", os.fsdecode(child.path)
            child_status = child.stat(follow_symlinks=False)
            if stat.S_ISSOCK(child_status.st_mode):
                continue
            before = known.pop(name, None)
            if stat.S_ISDIR(child_status.st_mode):
                if before is not None and not before.is_directory:
                    self._removes.append(Remove(below))
                self._scan(below_local, below, child_status)
            else:
                self._files.append((below, below_local, child_status, before))
        for name in known:
            self._removes.append(Remove(f"{path}/{name}", recursive=True))
        if path and marked != self._tree.is_mountpoint(path):
            (self._nested if marked else self._dissolved).add(path)

    def _put_file(self, path: str, local: str, status: os.stat_result, old: Entry | None) -> Iterator[Put]:
        entry = _entry(path, local, status)
        if old is not None and old.kind is Kind.FILE is entry.kind and _same_file(old, entry):
            entry = entry._replace(hash=old.hash, flags=old.flags)
            if entry._replace(hardlinks=0) != old._replace(hardlinks=0):
                yield Put(path, entry, self._tree.chunks(path))
            return
        chunks: Chunks = ()
        if entry.kind is Kind.FILE:
            stored = self._content.store(local, entry.size)
            chunks = stored.chunks
            flags = entry.flags | stored.flags | (FLAG_CHUNKED if chunks else 0)
            entry = entry._replace(size=stored.size, hash=stored.hash, flags=flags)
            self._progress(path, entry.size)
        if old is None or old._replace(hardlinks=0) != entry._replace(hardlinks=0):
            yield Put(path, entry, chunks)


def _same_file(old: Entry, new: Entry) -> bool:
    return (old.size, old.mtime, old.mtimens) == (new.size, new.mtime, new.mtimens)


def _entry(path: str, local: str, status: os.stat_result) -> Entry:
    """The entry for a file of the local disk, without content."""
    mode = status.st_mode
    size, flags, symlink = 0, FLAG_FILE, ""
    if stat.S_ISDIR(mode):
        size, flags = 4096, FLAG_DIRECTORY
    elif stat.S_ISLNK(mode):
        symlink = to_str(os.readlink(os.fsencode(local)))
        size, flags = len(os.fsencode(symlink)), FLAG_FILE | FLAG_LINK
    elif stat.S_ISREG(mode):
        size = status.st_size
    else:
        flags = FLAG_FILE | FLAG_SPECIAL
        size = status.st_rdev
    return Entry(
        hardlinks=1,
        hash=None,
        size=size,
        mode=mode,
        mtime=int(status.st_mtime_ns // 10**9),
        mtimens=int(status.st_mtime_ns % 10**9),
        flags=flags,
        name=path.rpartition("/")[2],
        symlink=symlink,
        uid=status.st_uid,
        gid=status.st_gid,
        xattr=_xattrs(local),
    )


def _xattrs(local: str) -> bytes | None:
    try:
        names = os.listxattr(local, follow_symlinks=False)
    except OSError:
        return None
    wanted = {
        name: os.getxattr(local, name, follow_symlinks=False) for name in names if name.startswith(_XATTR_PREFIXES)
    }
    return pack_xattrs({name: value for name, value in wanted.items() if len(value) < 256})


def nearest_directory(tree: CatalogTree, path: str) -> str:
    """The longest part of *path* that is a directory of *tree*."""
    while path and not ((entry := tree.get(path)) and entry.is_directory):
        path = path.rpartition("/")[0]
    return path
