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

import base64
import binascii
import functools
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cvmfs_gw.ingest.errors import BadArchive, SourceTooLarge
from cvmfs_gw.ingest.inputs import Input
from cvmfs_objstore.formats.database import to_bytes

BLOCK: Final = 512
MAX_EXTENSION: Final = 1 << 20
"""Most bytes of a long name or of extended attributes and other records of one member."""
MAX_SEGMENTS: Final = 1 << 20
"""Most segments of data in a sparse file."""

_HEADER: Final = struct.Struct("100s8s8s8s12s12s8sc100s8s64x8s8s155s12x")
_OLD_SPARSE: Final = struct.Struct("386x96s?12s17x")
_CHECKSUM: Final = slice(148, 156)
_ADLER: Final = 65521
_ESCAPED: Final = re.compile(rb"%([0-9A-Fa-f]{2})")

_TYPES: Final = {
    b"0": stat.S_IFREG, b"\0": stat.S_IFREG, b"7": stat.S_IFREG, b"S": stat.S_IFREG, b"1": stat.S_IFREG,
    b"2": stat.S_IFLNK, b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"5": stat.S_IFDIR, b"D": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}  # fmt: skip
_WITH_DATA: Final = (b"0", b"\0", b"7", b"S", b"D")

Segments = tuple[tuple[int, int], ...]
"""Where the data of a sparse file is, as offsets and lengths in bytes, in order."""


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
        length = _number(size)
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
                common.update(_records(content))
            else:
                extensions.records |= _records(content, extensions.sparse)
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
            _text(name),
            _TYPES[kind] | _number(mode) & 0o7777,
            _number(uid),
            _number(gid),
            _number(mtime) * 10**9,
            data if kind != b"D" else 0,
            data,
            _text(link.partition(b"\0")[0]) if kind in b"12" else "",
            kind == b"1",
            os.makedev(_number(major), _number(minor)) if kind in b"34" else 0,
        )
        if kind == b"S":
            member = _with_old_map(member, block, source)
        if extensions is not None or common:
            member = _extended(member, extensions or _Extensions(), common, source, has_data)
            extensions = None
        yield member
    if extensions is not None:
        raise BadArchive("the archive ends behind a header that belongs to another member")


def _is_right(block: bytes, field: bytes) -> bool:
    """Whether the checksum is that of the header, with the field itself taken for blanks."""
    try:
        expected = _number(field)
    except BadArchive:
        return False
    # A sum of bytes is what the lower half of Adler-32 is but for 1 and a modulus, and 20 times faster had from there.
    total = expected - 8 * 0x20 + sum(field)
    if zlib.adler32(block) & 0xFFFF == (1 + total) % _ADLER:
        return True
    # Old programs took bytes for signed numbers.
    return sum(byte - 256 if byte > 127 else byte for byte in block) == total


@functools.lru_cache(maxsize=4096)
def _number(field: bytes) -> int:
    """An octal number in text, or one in base 256."""
    if field[0] & 0x80:
        # the highest bit is the mark of this form, and the next one the sign
        value = int.from_bytes(field, "big", signed=True)
        return value if field[0] & 0x40 else value + (1 << 8 * len(field) - 1)
    text = field.partition(b"\0")[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise BadArchive(f"a header of the archive has {field[:16]!r} in place of a number") from None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


# -- pax


def _records(content: bytes, sparse: list[bytes] | None = None) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    at = 0
    while at < len(content) and content[at]:
        blank = content.find(b" ", at, at + 20)
        digits = content[at:blank]
        if blank < 0 or not digits.isdigit():
            raise BadArchive("a damaged pax header in the archive")
        end = at + int(digits)
        key, equals, value = content[blank + 1 : end - 1].partition(b"=")
        if not equals or end > len(content) or content[end - 1 : end] != b"\n":
            raise BadArchive("a damaged pax header in the archive")
        name = _text(key)
        if sparse is not None and name in ("GNU.sparse.offset", "GNU.sparse.numbytes"):
            sparse.append(value)
        found[name] = value
        at = end
    return found


def _extended(
    member: Member, extensions: _Extensions, common: Mapping[str, bytes], source: Input, has_data: bool
) -> Member:
    """*member* with what the headers before it say."""
    changes: dict[str, object] = {}
    if extensions.name is not None:
        changes["name"] = _text(extensions.name)
    if extensions.link is not None and member.link:
        changes["link"] = _text(extensions.link)
    # An empty value takes back a common one.
    records = {key: value for key, value in {**common, **extensions.records}.items() if value}
    if not records:
        return member._replace(**changes)  # type: ignore[arg-type]
    if (path := records.get("path")) is not None:
        changes["name"] = _text(path)
    if (link := records.get("linkpath")) is not None and member.link:
        changes["link"] = _text(link)
    for key in ("uid", "gid"):
        if (value := records.get(key)) is not None:
            changes[key] = _decimal(value)
    if (mtime := records.get("mtime")) is not None:
        changes["mtime"] = _time(mtime)
    if (size := records.get("size")) is not None and has_data:
        data = _decimal(size)
        changes["data"] = data
        if not stat.S_ISDIR(member.mode) and member.segments is None:
            changes["size"] = data
    xattrs = dict(_xattrs(records))
    if xattrs:
        changes["xattrs"] = xattrs
    member = member._replace(**changes)  # type: ignore[arg-type]
    if any(key.startswith("GNU.sparse.") for key in records):
        member = _with_new_map(member, records, extensions.sparse, source)
    return member


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 20:
        raise BadArchive(f"a pax header of the archive has {value[:32]!r} in place of a number")
    return int(value)


def _time(value: bytes) -> int:
    """Seconds with a fraction as nanoseconds; parts of a nanosecond are cut off towards the past."""
    whole, _, fraction = value.partition(b".")
    negative = whole.startswith(b"-")
    if fraction and not fraction.isdigit():
        raise BadArchive(f"a pax header of the archive has {value[:32]!r} in place of a time")
    seconds = _decimal(whole[1:] if negative else whole)
    if seconds >= 1 << 62:
        raise BadArchive("a time in the archive that no clock shows")
    nanoseconds = seconds * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return -nanoseconds if negative else nanoseconds


def _xattrs(records: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    for key, value in records.items():
        if key.startswith("LIBARCHIVE.xattr."):
            try:
                name = _text(_ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), to_bytes(key[17:])))
                yield name, base64.b64decode(value + b"=" * (-len(value) % 4))
            except binascii.Error as error:
                raise BadArchive(f"a damaged extended attribute in the archive: {error}") from error
    for key, value in records.items():
        if key.startswith("SCHILY.xattr."):
            yield key.removeprefix("SCHILY.xattr."), value


# -- sparse files


def _with_old_map(member: Member, block: bytes, source: Input) -> Member:
    """The map of a sparse file in GNU's own format: four segments in the header, 21 in each block that follows."""
    raw, is_extended, real_size = _OLD_SPARSE.unpack(block)
    numbers = [raw]
    while is_extended:
        block = source.exactly(BLOCK)
        numbers.append(block[:504])
        is_extended = bool(block[504])
        if len(numbers) * 21 > MAX_SEGMENTS:
            raise SourceTooLarge("a sparse file of too many parts in the archive")
    fields = b"".join(numbers)
    values = [_number(fields[at : at + 12]) for at in range(0, len(fields), 12) if fields[at]]
    return _sparse(member, values, _number(real_size), member.data)


def _with_new_map(member: Member, records: Mapping[str, bytes], pairs: list[bytes], source: Input) -> Member:
    """The map of a sparse file in pax records (0.0, 0.1) or before its data (1.0)."""
    if (name := records.get("GNU.sparse.name")) is not None:
        member = member._replace(name=_text(name))
    real_size = records.get("GNU.sparse.realsize", records.get("GNU.sparse.size"))
    if real_size is None:
        raise BadArchive(f"{member.name}: a sparse file of no size")
    data = member.data
    if records.get("GNU.sparse.major") == b"1":
        values, taken = _map_before_data(source, data)
        data -= taken
    elif (text := records.get("GNU.sparse.map")) is not None:
        values = [_decimal(value) for value in text.split(b",")] if text else []
    else:
        values = [_decimal(value) for value in pairs]
    return _sparse(member, values, _decimal(real_size), data)


def _map_before_data(source: Input, data: int) -> tuple[list[int], int]:
    """Numbers in lines, the first of which says how many pairs follow, filled up to whole blocks."""
    values: list[int] = []
    expected, rest, taken = 1, b"", 0
    while len(values) < expected:
        if taken + BLOCK > data + -data % BLOCK:
            raise BadArchive("a sparse file whose map does not end")
        *lines, rest = (rest + source.exactly(BLOCK)).split(b"\n")
        taken += BLOCK
        for line in lines:
            if len(values) == expected:
                break
            values.append(_decimal(line))
            if values[0] > MAX_SEGMENTS:
                raise SourceTooLarge("a sparse file of too many parts in the archive")
            expected = 1 + 2 * values[0]
    return values[1:], taken


def _sparse(member: Member, values: list[int], size: int, data: int) -> Member:
    if len(values) % 2 or len(values) > 2 * MAX_SEGMENTS:
        raise BadArchive(f"{member.name}: a sparse file whose map makes no sense")
    segments = tuple(zip(values[::2], values[1::2], strict=True))
    end = 0
    for offset, length in segments:
        if offset < end or length < 0:
            raise BadArchive(f"{member.name}: a sparse file whose map makes no sense")
        end = offset + length
    if end > size or sum(length for _, length in segments) != data:
        raise BadArchive(f"{member.name}: a sparse file whose map does not fit its data")
    return member._replace(size=size, data=data, segments=segments)
