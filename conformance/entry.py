"""An entry of a catalog: one row of its table, with the chunks of a large file."""

from __future__ import annotations

import stat
from dataclasses import dataclass, replace
from typing import Final

DIRECTORY: Final = 1
MOUNTPOINT: Final = 2
FILE: Final = 4
LINK: Final = 8
SPECIAL: Final = 16
NESTED_ROOT: Final = 32
CHUNKED: Final = 64
HIDDEN: Final = 1 << 15

MOMENT: Final = 1_600_000_000
"""A time for entries that any time will do for."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a large file."""

    offset: int
    size: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, link, directory or special file. ``links`` is the link count; ``group`` that of hard links."""

    mode: int
    size: int = 0
    mtime: int = MOMENT
    mtimens: int | None = None
    uid: int = 0
    gid: int = 0
    symlink: str = ""
    hash: bytes | None = None
    links: int = 1
    group: int = 0
    xattr: bytes | None = None
    flags: int = 0
    chunks: tuple[Chunk, ...] = ()

    @property
    def is_directory(self) -> bool:
        return bool(self.flags & DIRECTORY)

    @property
    def is_mountpoint(self) -> bool:
        return bool(self.flags & MOUNTPOINT)

    @property
    def is_nested_root(self) -> bool:
        return bool(self.flags & NESTED_ROOT)

    def without_structure(self) -> Entry:
        """Only what a mounted client sees of it: not how catalogs are cut."""
        return replace(self, flags=self.flags & ~(MOUNTPOINT | NESTED_ROOT), group=0, size=_shown_size(self))


def _shown_size(entry: Entry) -> int:
    return 0 if entry.is_directory else entry.size


def directory(mode: int = 0o755) -> Entry:
    """A directory."""
    return Entry(stat.S_IFDIR | mode, 4096, links=2, flags=DIRECTORY)


def link(target: str) -> Entry:
    """A symbolic link."""
    return Entry(stat.S_IFLNK | 0o777, len(target.encode()), symlink=target, flags=FILE | LINK)


def special(kind: int, device: int = 0) -> Entry:
    """A device, a FIFO or a socket; *kind* is ``stat.S_IFIFO`` and the like."""
    return Entry(kind | 0o644, device, flags=FILE | SPECIAL)


def xattr_blob(attributes: dict[str, bytes]) -> bytes:
    """Extended attributes as a catalog holds them."""
    blob = bytes([1, len(attributes)])
    for name, value in sorted(attributes.items()):
        key = name.encode()
        blob += bytes([len(key), len(value)]) + key + value
    return blob


def xattrs(blob: bytes | None) -> dict[str, bytes]:
    """The other way round."""
    found: dict[str, bytes] = {}
    at = 2
    for _ in range(blob[1] if blob else 0):
        assert blob is not None
        key, value = blob[at], blob[at + 1]
        middle = at + 2 + key
        found[blob[at + 2 : middle].decode()] = blob[middle : middle + value]
        at = middle + value
    return found
