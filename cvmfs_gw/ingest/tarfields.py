"""The fields of tar headers: numbers, texts, times, and the records of pax headers.

Source: POSIX.1-2017 (pax, ustar interchange format); "Basic Tar Format" in the manual of GNU tar; tar(5) of libarchive.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Final

from cvmfs_gw.ingest.errors import BadArchive
from cvmfs_objstore.formats.database import to_bytes

BLOCK: Final = 512
"""Bytes that everything in an archive comes in multiples of."""

_ESCAPED: Final = re.compile(rb"%([0-9A-Fa-f]{2})")


@functools.lru_cache(maxsize=4096)
def number(field: bytes) -> int:
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


def text_of(raw: bytes) -> str:
    """A name; bytes that are not UTF-8 become surrogates."""
    return raw.decode("utf-8", "surrogateescape")


def records_of(content: bytes, sparse: list[bytes] | None = None) -> dict[str, bytes]:
    """The records of a pax header. Those that tell the parts of a sparse file repeat: all values go to *sparse*."""
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
        name = text_of(key)
        if sparse is not None and name in ("GNU.sparse.offset", "GNU.sparse.numbytes"):
            sparse.append(value)
        found[name] = value
        at = end
    return found


def decimal(value: bytes) -> int:
    """A number in a pax header."""
    if not value.isdigit() or len(value) > 20:
        raise BadArchive(f"a pax header of the archive has {value[:32]!r} in place of a number")
    return int(value)


def time_of(value: bytes) -> int:
    """Seconds with a fraction as nanoseconds; parts of a nanosecond are cut off towards the past."""
    whole, _, fraction = value.partition(b".")
    negative = whole.startswith(b"-")
    if fraction and not fraction.isdigit():
        raise BadArchive(f"a pax header of the archive has {value[:32]!r} in place of a time")
    seconds = decimal(whole[1:] if negative else whole)
    if seconds >= 1 << 62:
        raise BadArchive("a time in the archive that no clock shows")
    nanoseconds = seconds * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return -nanoseconds if negative else nanoseconds


def xattrs_of(records: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Extended attributes, as bsdtar and, which count more, as GNU tar and star write them."""
    for key, value in records.items():
        if key.startswith("LIBARCHIVE.xattr."):
            try:
                name = text_of(_ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), to_bytes(key[17:])))
                yield name, base64.b64decode(value + b"=" * (-len(value) % 4))
            except binascii.Error as error:
                raise BadArchive(f"a damaged extended attribute in the archive: {error}") from error
    for key, value in records.items():
        if key.startswith("SCHILY.xattr."):
            yield key.removeprefix("SCHILY.xattr."), value
