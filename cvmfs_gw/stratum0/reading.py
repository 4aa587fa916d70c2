"""Reading a repository through the upload API: listing entries, and the content of files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.stratum0.conditions import tag_of
from cvmfs_gw.stratum0.errors import PathConflict
from cvmfs_gw.stratum0.expiry import expires
from cvmfs_gw.stratum0.jobs import find
from cvmfs_objstore.compression import PIECE, Compression
from cvmfs_objstore.errors import FormatError, ObjectCorrupt
from cvmfs_objstore.formats.entry import FLAG_BIND_MOUNTPOINT, Entry, Kind
from cvmfs_objstore.hashes import ContentHash
from cvmfs_objstore.objects import ObjectStore, plain_pieces

MAX_LISTED: Final = 10_000
"""The maximum number of entries in one reply."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The entry at a path and, if it is a directory, part of its content: path and entry of each, in order."""

    revision: int
    entry: Entry
    children: tuple[tuple[str, Entry], ...] = ()
    more: bool = False
    """Whether there are more entries after the last one."""


def look(
    repository: Repository, path: str, *, recursive: bool = False, after: str = "", limit: int = MAX_LISTED
) -> Listing:
    """The entry at *path* in the head, and up to *limit* entries in it that follow the path *after*.

    Raises :exc:`NotThere` and :exc:`EngineError`.
    """
    head = repository.head()
    with closing(CatalogTree(repository.catalogs, head.root_hash)) as tree:
        entry = find(tree, path)
        if not entry.is_directory:
            return Listing(head.revision, entry)
        found: list[tuple[str, Entry]] = []
        for item in _walk(tree, path, tuple(after.split("/")[1:]), recursive):
            if len(found) == limit:
                return Listing(head.revision, entry, tuple(found), more=True)
            found.append(item)
    return Listing(head.revision, entry, tuple(found))


def _walk(tree: CatalogTree, top: str, after: tuple[str, ...], recursive: bool) -> Iterator[tuple[str, Entry]]:
    """Everything in *top* after the path *after*, in the order of names, directories before their content."""

    def inside(directory: str) -> Iterator[tuple[str, Entry]]:
        found = sorted(tree.entries(directory), key=lambda entry: entry.name)
        return iter([(f"{directory}/{entry.name}", entry) for entry in found])

    pending = [inside(top)]
    while pending:
        item = next(pending[-1], None)
        if item is None:
            pending.pop()
            continue
        path, entry = item
        names = tuple(path.split("/")[1:])
        if names > after:
            yield item
        elif after[: len(names)] != names:
            continue  # all of it comes before
        if recursive and entry.is_directory and not entry.flags & FLAG_BIND_MOUNTPOINT:
            pending.append(inside(path))


@dataclass(frozen=True, slots=True)
class File:
    """A file in the head: its size in bytes, and its expiry in seconds since the epoch."""

    revision: int
    entry: Entry
    expires: int | None
    objects: ObjectStore
    parts: tuple[tuple[int, int, ContentHash], ...]
    """Offset and length of each part of the content, and the object that holds it."""
    tag: str
    """See :mod:`cvmfs_gw.stratum0.conditions`."""

    @property
    def size(self) -> int:
        return self.entry.size

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from *start* up to *end*, in pieces; raises :exc:`ObjectStoreError`.

        A part that does not match its hash is detected only at its end, when its bytes have already been passed on.
        """
        compression = Compression(self.entry.compression)
        for offset, length, name in self.parts:
            if offset + length <= start or offset >= end:
                continue
            first, last = max(start - offset, 0), min(end - offset, length)
            whole = first == 0 and last == length
            if compression is Compression.NONE and not whole:
                yield from self._slice(name, first, last)
            else:
                yield from _cut(self._content(name, compression, length), first, last)

    def _slice(self, name: ContentHash, first: int, last: int) -> Iterator[bytes]:
        with self.objects.open(name) as file:
            file.seek(first)
            while first < last:
                piece = file.read(min(PIECE, last - first))
                if not piece:
                    raise ObjectCorrupt(f"{name} ends early")
                first += len(piece)
                yield piece

    def _content(self, name: ContentHash, compression: Compression, length: int) -> Iterator[bytes]:
        with self.objects.open(name) as file:
            yield from plain_pieces(name, file, max_size=length, compression=compression)


def open_file(repository: Repository, path: str) -> File:
    """The file at *path* of the head; raises :exc:`NotThere`, :exc:`PathConflict` and :exc:`EngineError`."""
    head = repository.head()
    with closing(CatalogTree(repository.catalogs, head.root_hash)) as tree:
        entry = find(tree, path)
        if entry.is_directory:
            raise PathConflict(f"{path or '/'} is a directory; its content is listed at /entries, not at /files")
        if entry.kind is not Kind.FILE or entry.is_external:
            raise PathConflict(f"{path} is not a regular file, or its content is external")
        chunks = tree.chunks(path) if entry.is_chunked else ()
        parts = tuple((chunk.offset, chunk.size, entry.chunk_hash(chunk)) for chunk in chunks)
    if not parts and entry.size:
        if (name := entry.content_hash) is None:
            raise FormatError(f"{path} has no content")
        parts = ((0, entry.size, name),)
    return File(head.revision, entry, expires(entry), repository.objects, parts, tag_of(entry.hash, chunks))


def _cut(pieces: Iterator[bytes], first: int, last: int) -> Iterator[bytes]:
    """The bytes from *first* up to *last* of the concatenated pieces."""
    at = 0
    for piece in pieces:
        begin, end = max(first - at, 0), min(last - at, len(piece))
        at += len(piece)
        if begin < end:
            yield piece if end - begin == len(piece) else piece[begin:end]
        if at > last:
            return
