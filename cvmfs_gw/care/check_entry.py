"""Checks one entry by itself: flags against mode, links, sizes, hashes, extended attributes.

Source: what ``cvmfs_swissknife check`` demands of each entry. Divergence: the size of symlinks and the format of
extended attributes are checked, too.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Final

from cvmfs_gw.care.faults import FaultKind
from cvmfs_objstore.compression import Compression
from cvmfs_objstore.errors import FormatError
from cvmfs_objstore.formats.entry import (
    FLAG_BIND_MOUNTPOINT,
    FLAG_CHUNKED,
    FLAG_DIRECT_IO,
    FLAG_DIRECTORY,
    FLAG_EXTERNAL,
    FLAG_FILE,
    FLAG_LINK,
    FLAG_MOUNTPOINT,
    FLAG_NESTED_ROOT,
    FLAG_SPECIAL,
    Entry,
    Kind,
    unpack_xattrs,
)

_KIND_FLAGS: Final = {
    Kind.DIRECTORY: FLAG_DIRECTORY,
    Kind.FILE: FLAG_FILE,
    Kind.SYMLINK: FLAG_FILE | FLAG_LINK,
    Kind.SPECIAL: FLAG_FILE | FLAG_SPECIAL,
}
_ALL_KINDS: Final = FLAG_DIRECTORY | FLAG_FILE | FLAG_LINK | FLAG_SPECIAL
_SPECIAL_MODES: Final = (stat.S_ISCHR, stat.S_ISBLK, stat.S_ISFIFO, stat.S_ISSOCK)
_COMPRESSIONS: Final = frozenset(Compression)

Found = Iterator[tuple[FaultKind, str]]
"""Kinds of faults with the details."""


def is_name(name: str) -> bool:
    """Whether *name* is a valid name of an entry in a directory."""
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def entry_faults(entry: Entry) -> Found:
    """The faults of an entry, regardless of what else is in its catalog."""
    yield from _kind(entry)
    try:
        entry.algorithm  # noqa: B018 (asked for what it raises)
        if entry.compression not in _COMPRESSIONS:
            raise FormatError(f"unknown compression algorithm {entry.compression}")
    except FormatError as error:
        yield FaultKind.ENTRY_ALGORITHM, str(error)
    if entry.linkcount == 0:
        yield FaultKind.LINK_COUNT_ZERO, ""
    if entry.size < 0:
        yield FaultKind.SIZE_NEGATIVE, str(entry.size)
    if entry.xattr:
        try:
            unpack_xattrs(entry.xattr)
        except FormatError as error:
            yield FaultKind.XATTR_INVALID, str(error)
    if entry.flags & FLAG_DIRECTORY:
        yield from _directory(entry)
    else:
        yield from _file(entry)


def _kind(entry: Entry) -> Found:
    flags, mode, kind = entry.flags, entry.mode, entry.kind
    said = stat.S_ISDIR(mode), stat.S_ISLNK(mode), any(test(mode) for test in _SPECIAL_MODES), stat.S_ISREG(mode)
    wanted = kind is Kind.DIRECTORY, kind is Kind.SYMLINK, kind is Kind.SPECIAL, kind is Kind.FILE
    if flags & _ALL_KINDS != _KIND_FLAGS[kind] or said != wanted:
        yield FaultKind.ENTRY_KIND, f"flags {flags:#x}, mode {mode:#o}"
    if kind is not Kind.FILE and flags & (FLAG_EXTERNAL | FLAG_DIRECT_IO | FLAG_CHUNKED):
        yield FaultKind.ENTRY_FLAGS, f"flags {flags:#x}"
    if kind is not Kind.DIRECTORY and flags & (FLAG_MOUNTPOINT | FLAG_NESTED_ROOT | FLAG_BIND_MOUNTPOINT):
        yield FaultKind.ENTRY_FLAGS, f"flags {flags:#x}"


def _directory(entry: Entry) -> Found:
    if entry.hardlink_group:
        yield FaultKind.HARDLINK_DIRECTORY, f"group {entry.hardlink_group}"
    if entry.flags & FLAG_MOUNTPOINT and entry.flags & FLAG_BIND_MOUNTPOINT:
        yield FaultKind.NESTED_AND_BIND, ""


def _file(entry: Entry) -> Found:
    kind = entry.kind
    if not entry.hardlink_group and entry.linkcount > 1:
        yield FaultKind.HARDLINK_NO_GROUP, f"{entry.linkcount} links"
    if kind is Kind.FILE:
        if not entry.is_chunked and not entry.hash:
            yield FaultKind.FILE_NO_HASH, ""
        return
    if entry.hash:
        yield FaultKind.UNEXPECTED_HASH, ""
    if kind is Kind.SYMLINK:
        length = len(entry.symlink.encode("utf-8", "surrogateescape"))
        if entry.size != length:
            yield FaultKind.SYMLINK_SIZE, f"{entry.size}, not {length}"
    elif entry.symlink:
        yield FaultKind.UNEXPECTED_HASH, "a special file with a target"
