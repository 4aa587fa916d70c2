"""Sources read into plain dictionaries."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import NamedTuple

from cvmfs_gw.ingest.contents import ContentOptions, Contents
from cvmfs_gw.ingest.gather import Gathered, GatherOptions, gather
from cvmfs_gw.ingest.items import Content, Item, LocalFile, Source, Whiteout
from cvmfs_gw.ingest.nodes import Node
from cvmfs_objstore.chunksizes import ChunkSizes
from cvmfs_objstore.compression import Compression
from cvmfs_objstore.formats.entry import unpack_xattrs
from cvmfs_objstore.hashes import ContentHash, Suffix
from cvmfs_objstore.memory import MemoryStorage

SIZES = ChunkSizes(500, 800, 1000)
OPTIONS = ContentOptions(compression=Compression.NONE, chunks=SIZES)


class Seen(NamedTuple):
    """What is at a path: for files the content, for symbolic links the target."""

    mode: int
    owner: tuple[int, int] = (0, 0)
    mtime: int = 0
    content: bytes | str | int | None = None
    xattrs: tuple[tuple[str, bytes], ...] = ()


def read_content(content: Content, size: int) -> bytes:
    """All of a file's content."""
    if isinstance(content, bytes):
        return content
    if isinstance(content, LocalFile):
        return Path(content.path).read_bytes()
    data = b""
    while piece := content.read(size):
        data += piece
    return data


def read_source(source: Source) -> list[Item | Whiteout]:
    """Everything in a source, contents as bytes."""
    return [
        item._replace(content=read_content(item.content, item.size))
        if isinstance(item, Item) and item.content is not None
        else item
        for item in source.items()
    ]


def gathered(source: Source, options: GatherOptions | None = None) -> tuple[Gathered, MemoryStorage]:
    """The source, gathered, and the storage that its contents are in."""
    storage = MemoryStorage()
    with Contents(storage, OPTIONS, threads=1) as contents:
        return gather(source, contents, options), storage


def tree_of(source: Source, options: GatherOptions | None = None) -> dict[str, Seen | None]:
    """Every path of the gathered source; None for directories that nothing is said of, and for what is to go."""
    result, storage = gathered(source, options)
    return dict(_seen("", result.root, storage))


def _seen(path: str, node: Node, storage: MemoryStorage) -> list[tuple[str, Seen | None]]:
    found: list[tuple[str, Seen | None]] = [(path, None)]
    item = node.item
    if item is not None:
        content: bytes | str | int | None = None
        if stat.S_ISREG(item.mode):
            content = stored_bytes(node, storage)
        elif stat.S_ISLNK(item.mode):
            content = item.symlink
        elif not stat.S_ISDIR(item.mode):
            content = item.rdev
        xattrs = tuple(sorted(unpack_xattrs(item.xattrs).items()))
        found = [(path, Seen(item.mode, (item.uid, item.gid), item.mtime, content, xattrs))]
    for name, child in (node.children or {}).items():
        found += _seen(f"{path}/{name}", child, storage)
    return found


def stored_bytes(node: Node, storage: MemoryStorage) -> bytes:
    """The content of a file's objects, which are not compressed."""
    stored = node.stored
    assert stored is not None
    if stored.hash is not None:
        data = storage.read(ContentHash(stored.hash).path)
    else:
        names = [ContentHash(chunk.hash, suffix=Suffix.CHUNK) for chunk in stored.chunks]
        data = b"".join(storage.read(name.path) for name in names)
    assert len(data) == stored.size
    return data
