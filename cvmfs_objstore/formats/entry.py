"""A directory entry of a catalog: kinds, flags, path keys, xattr blobs and counters.

Flag bits of the ``flags`` column::

    bit       0  directory
              1  nested catalog mountpoint (the directory's row in the parent catalog)
              2  file                       (set for every entry that is no directory)
              3  symbolic link              (with bit 2)
              4  special file               (with bit 2)
              5  root of a nested catalog   (the directory's row in the nested catalog)
              6  chunked file               (with bit 2)
              7  external file: its content lies outside the repository's storage
          8..10  hash algorithm - 1
         11..13  compression algorithm
             14  bind mountpoint
             15  hidden
             16  direct I/O

``hardlinks`` holds the hard link group in its upper 32 bits (0: none) and the link count in its lower 32;
groups are numbered per catalog and never leave a directory.

Source: schema 2.5 of deployed catalogs.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Final, NamedTuple

from cvmfs_objstore.errors import FormatError
from cvmfs_objstore.formats.database import to_bytes
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix

FLAG_DIRECTORY: Final = 1 << 0
FLAG_MOUNTPOINT: Final = 1 << 1
FLAG_FILE: Final = 1 << 2
FLAG_LINK: Final = 1 << 3
FLAG_SPECIAL: Final = 1 << 4
FLAG_NESTED_ROOT: Final = 1 << 5
FLAG_CHUNKED: Final = 1 << 6
FLAG_EXTERNAL: Final = 1 << 7
FLAG_BIND_MOUNTPOINT: Final = 1 << 14
FLAG_HIDDEN: Final = 1 << 15
FLAG_DIRECT_IO: Final = 1 << 16
NESTING_FLAGS: Final = FLAG_MOUNTPOINT | FLAG_NESTED_ROOT
"""Flags in which the two rows of a nested catalog's directory differ; not properties of the directory itself."""

_HASH_SHIFT: Final = 8
_COMPRESSION_SHIFT: Final = 11
_THREE_BITS: Final = 0b111
STORAGE_FLAGS: Final = _THREE_BITS << _HASH_SHIFT | _THREE_BITS << _COMPRESSION_SHIFT
"""The flags that describe the content: how its objects are hashed and compressed."""
_GROUP_SHIFT: Final = 32
_COUNT_MASK: Final = 0xFFFFFFFF

PathKey = tuple[int, int]
"""A path's MD5 as two little-endian signed 64-bit numbers: columns ``md5path_1`` and ``md5path_2``."""

_ALGORITHMS: Final = {int(algorithm): algorithm for algorithm in Algorithm}
_KEY: Final = struct.Struct("<qq")
NO_PARENT: Final[PathKey] = (0, 0)
"""Parent key of the repository's root directory."""


def path_key(path: str) -> PathKey:
    """The key of *path*: ``""`` is the repository's root, all others are ``/a/b``."""
    key: PathKey = _KEY.unpack(hashlib.md5(to_bytes(path), usedforsecurity=False).digest())
    return key


def parent_path(path: str) -> str:
    """The path of the directory that holds *path*; the root's is the root."""
    return path.rpartition("/")[0]


def name_of(path: str) -> str:
    """The last component of *path*; the root's is empty."""
    return path.rpartition("/")[2]


def is_below(path: str, top: str) -> bool:
    """Whether *path* is *top* or lies below it, component by component."""
    return path == top or not top or path.startswith(top + "/")


class Kind(Enum):
    """What an entry is."""

    DIRECTORY = "directory"
    FILE = "file"
    SYMLINK = "symlink"
    SPECIAL = "special"


class Entry(NamedTuple):
    """One row of a catalog without its keys, in column order (a tuple, as commits handle them by the 100,000).

    ``size`` is in bytes; for a symlink it is the length of the target, for a special file the device number. ``mtime``
    is in seconds since the epoch, ``mtimens`` the additional nanoseconds, or None if unknown. ``hash`` is 20 raw bytes,
    or None for anything but files and for chunked files without a whole-file (bulk) hash.
    """

    hardlinks: int
    hash: bytes | None
    size: int
    mode: int
    mtime: int
    mtimens: int | None
    flags: int
    name: str
    symlink: str
    uid: int
    gid: int
    xattr: bytes | None

    @property
    def kind(self) -> Kind:
        """What the entry is."""
        flags = self.flags
        if flags & FLAG_DIRECTORY:
            return Kind.DIRECTORY
        if flags & FLAG_LINK:
            return Kind.SYMLINK
        if flags & FLAG_SPECIAL:
            return Kind.SPECIAL
        return Kind.FILE

    @property
    def is_directory(self) -> bool:
        return bool(self.flags & FLAG_DIRECTORY)

    @property
    def is_chunked(self) -> bool:
        return bool(self.flags & FLAG_CHUNKED)

    @property
    def is_external(self) -> bool:
        return bool(self.flags & FLAG_EXTERNAL)

    @property
    def linkcount(self) -> int:
        """Number of names (a directory: 2 plus its sub-directories)."""
        return self.hardlinks & _COUNT_MASK

    @property
    def hardlink_group(self) -> int:
        """Number of the hard link group in this catalog; 0 for none."""
        return self.hardlinks >> _GROUP_SHIFT

    @property
    def algorithm(self) -> Algorithm:
        """Hash algorithm of the entry's objects; raises :exc:`FormatError` for an unknown one."""
        return storage_algorithm(self.flags)

    @property
    def compression(self) -> int:
        """Number of the compression algorithm of the entry's objects."""
        return self.flags >> _COMPRESSION_SHIFT & _THREE_BITS

    @property
    def content_hash(self) -> ContentHash | None:
        """Name of the object that holds the whole content, if there is one."""
        return None if self.hash is None else ContentHash(self.hash, self.algorithm)

    def chunk_hash(self, chunk: Chunk) -> ContentHash:
        """Name of the object that holds *chunk* of this entry."""
        return ContentHash(chunk.hash, self.algorithm, Suffix.CHUNK)

    def with_links(self, count: int, group: int = 0) -> Entry:
        """The same entry with another hard link group and link count."""
        return self._replace(hardlinks=group << _GROUP_SHIFT | count)


class Chunk(NamedTuple):
    """One chunk of a chunked file: where it begins, its length before compression (both in bytes), its hash."""

    offset: int
    size: int
    hash: bytes


Chunks = tuple[Chunk, ...]


def storage_algorithm(flags: int) -> Algorithm:
    """Hash algorithm of the objects of an entry with these flags; raises :exc:`FormatError` for an unknown one."""
    number = (flags >> _HASH_SHIFT & _THREE_BITS) + 1
    algorithm = _ALGORITHMS.get(number)
    if algorithm is None:
        raise FormatError(f"unknown hash algorithm {number}")
    return algorithm


def storage_flags(algorithm: Algorithm, compression: int) -> int:
    """Flag bits that say how an entry's objects are hashed and compressed."""
    return (algorithm - 1) << _HASH_SHIFT | compression << _COMPRESSION_SHIFT


_XATTR_VERSION: Final = 1


def pack_xattrs(xattrs: Mapping[str, bytes]) -> bytes | None:
    """The blob of the ``xattr`` column; None for no attributes. Raises :exc:`FormatError` beyond the byte limits.

    Layout: version byte 1, number of attributes, then for each: length of the key and length of the value (a byte
    each), key, value.
    """
    if not xattrs:
        return None
    if len(xattrs) > 255:
        raise FormatError("more than 255 extended attributes")
    blob = bytearray((_XATTR_VERSION, len(xattrs)))
    for key, value in sorted(xattrs.items()):
        raw = to_bytes(key)
        if not 0 < len(raw) < 256 or len(value) > 255:
            raise FormatError(f"extended attribute {key[:40]!r} is longer than 255 bytes")
        blob += bytes((len(raw), len(value))) + raw + value
    return bytes(blob)


def unpack_xattrs(blob: bytes | None) -> dict[str, bytes]:
    """The attributes of an ``xattr`` column; raises :exc:`FormatError`."""
    if not blob:
        return {}
    if len(blob) < 2 or blob[0] != _XATTR_VERSION:
        raise FormatError("extended attributes of an unknown version")
    result: dict[str, bytes] = {}
    at = 2
    for _ in range(blob[1]):
        if at + 2 > len(blob):
            raise FormatError("extended attributes end early")
        key_end = at + 2 + blob[at]
        value_end = key_end + blob[at + 1]
        if value_end > len(blob):
            raise FormatError("extended attributes end early")
        result[blob[at + 2 : key_end].decode("utf-8", "surrogateescape")] = blob[key_end:value_end]
        at = value_end
    if at != len(blob):
        raise FormatError("bytes after the last extended attribute")
    return result


@dataclass(slots=True)
class Counters:
    """The counters of a set of entries, in entries and bytes; of a difference, so that values may be negative, too.

    Field names are the counter names of the ``statistics`` table after ``self_`` or ``subtree_``. A chunked file also
    counts as regular; a nested catalog's directory counts in both catalogs; ``nested`` counts mountpoints.
    """

    regular: int = 0
    symlink: int = 0
    special: int = 0
    dir: int = 0
    nested: int = 0
    chunked: int = 0
    chunks: int = 0
    file_size: int = 0
    chunked_size: int = 0
    xattr: int = 0
    external: int = 0
    external_file_size: int = 0

    def count(self, entry: Entry, chunks: int, sign: int = 1) -> None:
        """Add an entry that has *chunks* chunks or, with *sign* -1, subtract it."""
        flags = entry.flags
        if flags & FLAG_DIRECTORY:
            self.dir += sign
        elif flags & FLAG_LINK:
            self.symlink += sign
        elif flags & FLAG_SPECIAL:
            self.special += sign
        else:
            size = sign * entry.size
            self.regular += sign
            self.file_size += size
            if flags & FLAG_CHUNKED:
                self.chunked += sign
                self.chunked_size += size
                self.chunks += sign * chunks
            if flags & FLAG_EXTERNAL:
                self.external += sign
                self.external_file_size += size
        if entry.xattr:
            self.xattr += sign

    def count_files(self, flags: int, number: int, size: int, xattrs: int) -> None:
        """Add *number* entries with the same *flags*, neither directories nor chunked, *size* bytes in all.

        *xattrs* of them have extended attributes.
        """
        if flags & FLAG_LINK:
            self.symlink += number
        elif flags & FLAG_SPECIAL:
            self.special += number
        else:
            self.regular += number
            self.file_size += size
            if flags & FLAG_EXTERNAL:
                self.external += number
                self.external_file_size += size
        self.xattr += xattrs

    def add(self, other: Counters, sign: int = 1) -> None:
        """Add *other* or, with *sign* -1, subtract it."""
        for name in COUNTER_NAMES:
            setattr(self, name, getattr(self, name) + sign * getattr(other, name))

    @property
    def entries(self) -> int:
        """Number of entries, directories included: what catalog limits count."""
        return self.regular + self.symlink + self.special + self.dir

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in COUNTER_NAMES)


COUNTER_NAMES: Final = tuple(field.name for field in fields(Counters))
