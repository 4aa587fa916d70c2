"""The headers of tar archives, as members with everything that says something about them.

Python's ``tarfile`` takes 38 microseconds for each member, which is as much as all the rest of storing a small file;
this takes some six. It reads what GNU tar, bsdtar, Python and Go write::

    ustar, old tar   512 bytes: name, mode, owner, size, time, type, link, device, prefix of the name
    GNU              L and K: long names as members of their own; numbers in base 256; S: sparse files
    POSIX (pax)      x and g: records "<length> <key>=<value>\\n", also for attributes and sparse files (0.0, 0.1, 1.0)

Source: POSIX.1-2017 (pax, ustar interchange format); "Basic Tar Format" and "Storing Sparse Files" in the manual of GNU
tar; tar(5) of libarchive.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cvmfs_gw.ingest.errors import BadArchive, SourceTooLarge
from cvmfs_gw.ingest.inputs import Input
from cvmfs_gw.ingest.tarfields import BLOCK, decimal, number, records_of, text_of, time_of, xattrs_of
from cvmfs_gw.ingest.tarsparse import Segments, new_map, old_map

MAX_EXTENSION: Final = 1 << 20
"""Most bytes of a long name or of extended attributes and other records of one member."""

_HEADER: Final = struct.Struct("100s8s8s8s12s12s8sc100s8s64x8s8s155s12x")
_CHECKSUM: Final = slice(148, 156)
_ADLER: Final = 65521

_TYPES: Final = {
    b"0": stat.S_IFREG, b"\0": stat.S_IFREG, b"7": stat.S_IFREG, b"S": stat.S_IFREG, b"1": stat.S_IFREG,
    b"2": stat.S_IFLNK, b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"5": stat.S_IFDIR, b"D": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}  # fmt: skip
_WITH_DATA: Final = (b"0", b"\0", b"7", b"S", b"D")


class Member(NamedTuple):
    """One member. *mode* includes the type; *link* is the target of a symbolic or (*is_link*) hard link.

    *data* is the number of bytes that follow in the archive, *size* that of the file; they differ where *segments* says
    which parts of the file the data is. *xattrs* are extended attributes by name.
    """

    name: str
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    data: int
    link: str = ""
    is_link: bool = False
    rdev: int = 0
    segments: Segments | None = None
    xattrs: Mapping[str, bytes] | None = None


@dataclass(slots=True)
class _Extensions:
    """What members of their own say about the next one."""

    name: bytes | None = None
    link: bytes | None = None
    records: dict[str, bytes] = field(default_factory=dict)
    sparse: list[bytes] = field(default_factory=list)
    """Offsets and lengths of sparse format 0.0, whose records repeat."""


def members(source: Input, *, is_verified: bool = False) -> Iterator[Member]:
    """The members of the archive *source*, whose data the caller reads or skips, padding included, before the next.

    An archive ends with an empty block; without one it may have been cut off, and is refused unless *is_verified*: some
    programs leave it out. Raises :exc:`BadArchive` and :exc:`SourceTooLarge`.
    """
    common: dict[str, bytes] = {}
    extensions: _Extensions | None = None
    first = True
    while True:
        if is_verified and source.at_end():
            break
        block = source.exactly(BLOCK)
        (name, mode, uid, gid, size, mtime, checksum, kind, link, magic, major, minor, prefix) = _HEADER.unpack(block)
        if not name[0] and not any(block):
            break
        if not _is_right(block, checksum):
            raise BadArchive("not a tar archive" if first else "a damaged header in the archive")
        first = False
        length = number(size)
        if length < 0:
            raise BadArchive("a member of negative size in the archive")
        if kind in b"LKxgX":
            if length > MAX_EXTENSION:
                raise SourceTooLarge(f"a header of {length} bytes in the archive")
            content = source.exactly(length)
            source.skip(-length % BLOCK)
            extensions = extensions or _Extensions()
            if kind == b"L":
                extensions.name = content.partition(b"\0")[0]
            elif kind == b"K":
                extensions.link = content.partition(b"\0")[0]
            elif kind == b"g":
                common.update(records_of(content))
                _check_total(common)
            else:
                extensions.records |= records_of(content, extensions.sparse)
                _check_total(extensions.records)
            continue
        if kind == b"V":
            source.skip(length + -length % BLOCK)
            continue
        if kind not in _TYPES:
            raise BadArchive(f"a member of an unknown type {kind!r}")
        if prefix[0] and magic == b"ustar\x0000":
            name = prefix.partition(b"\0")[0] + b"/" + name.partition(b"\0")[0]
        else:
            name = name.partition(b"\0")[0]
        if kind == b"\0" and name.endswith(b"/"):
            kind = b"5"
        has_data = kind in _WITH_DATA
        data = length if has_data else 0
        member = Member(
            text_of(name),
            _TYPES[kind] | number(mode) & 0o7777,
            number(uid),
            number(gid),
            number(mtime) * 10**9,
            data if kind != b"D" else 0,
            data,
            text_of(link.partition(b"\0")[0]) if kind in b"12" else "",
            kind == b"1",
            os.makedev(number(major), number(minor)) if kind in b"34" else 0,
        )
        if kind == b"S":
            member = member._replace(**old_map(block, data, source)._asdict())
        if extensions is not None or common:
            member = _extended(member, extensions or _Extensions(), common, source, has_data)
            extensions = None
        yield member
    if extensions is not None:
        raise BadArchive("the archive ends behind a header that belongs to another member")


def _check_total(records: Mapping[str, bytes]) -> None:
    if sum(map(len, records)) + sum(map(len, records.values())) > MAX_EXTENSION:
        raise SourceTooLarge("too many records in the headers of the archive")


def _is_right(block: bytes, field: bytes) -> bool:
    """Whether the checksum is that of the header, with the field itself taken for blanks."""
    try:
        expected = number(field)
    except BadArchive:
        return False
    # A sum of bytes is what the lower half of Adler-32 is but for 1 and a modulus, and 20 times faster had from there.
    total = expected - 8 * 0x20 + sum(field)
    if zlib.adler32(block) & 0xFFFF == (1 + total) % _ADLER:
        return True
    # Old programs took bytes for signed numbers.
    return sum(byte - 256 if byte > 127 else byte for byte in block) == total


def _extended(
    member: Member, extensions: _Extensions, common: Mapping[str, bytes], source: Input, has_data: bool
) -> Member:
    """*member* with what the headers before it say."""
    changes: dict[str, object] = {}
    if extensions.name is not None:
        changes["name"] = text_of(extensions.name)
    if extensions.link is not None and member.link:
        changes["link"] = text_of(extensions.link)
    # An empty value takes back a common one.
    records = {key: value for key, value in {**common, **extensions.records}.items() if value}
    if not records:
        return member._replace(**changes)  # type: ignore[arg-type]
    if (path := records.get("path")) is not None:
        changes["name"] = text_of(path)
    if (link := records.get("linkpath")) is not None and member.link:
        changes["link"] = text_of(link)
    for key in ("uid", "gid"):
        if (value := records.get(key)) is not None:
            changes[key] = decimal(value)
    if (mtime := records.get("mtime")) is not None:
        changes["mtime"] = time_of(mtime)
    if (size := records.get("size")) is not None and has_data:
        data = decimal(size)
        changes["data"] = data
        if not stat.S_ISDIR(member.mode) and member.segments is None:
            changes["size"] = data
    xattrs = dict(xattrs_of(records))
    if xattrs:
        changes["xattrs"] = xattrs
    member = member._replace(**changes)  # type: ignore[arg-type]
    if any(key.startswith("GNU.sparse.") for key in records):
        if (name := records.get("GNU.sparse.name")) is not None:
            member = member._replace(name=text_of(name))
        member = member._replace(**new_map(records, extensions.sparse, member.data, source)._asdict())
    return member
