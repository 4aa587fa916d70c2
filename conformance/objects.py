"""Content-addressed objects: their names, where they lie, and how they are compressed.

::

    name = 40 hex digits [ "-rmd160" | "-shake128" ]       hash of the stored bytes
    path = "data/" name[0:2] "/" name[2:] [ suffix ]       suffix: C catalog, H tags, X certificate, M meta, P chunk
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import Final

from conformance.outcomes import Failed, NotApplicable

ALGORITHMS: Final = ("", "-rmd160", "-shake128")
NO_HASH: Final = "0" * 40


def hash_name(data: bytes, algorithm: str = "") -> str:
    """The name of an object of these bytes; raises :exc:`NotApplicable` if this machine cannot compute it."""
    if algorithm == "-shake128":
        return hashlib.shake_128(data).hexdigest(20) + algorithm
    if algorithm == "-rmd160":
        try:
            return hashlib.new("ripemd160", data).hexdigest() + algorithm
        except ValueError:
            raise NotApplicable("this machine's OpenSSL has no RIPEMD-160") from None
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def algorithm_of(name: str) -> str:
    """The part of a name that says how it was made."""
    _, dash, algorithm = name.partition("-")
    return dash + algorithm


def object_path(name: str, suffix: str = "") -> str:
    """Where an object lies in the repository."""
    return f"data/{name[:2]}/{name[2:]}{suffix}"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it is stored."""

    name: str
    suffix: str
    data: bytes

    @property
    def path(self) -> str:
        return object_path(self.name, self.suffix)


def stored(content: bytes, algorithm: str = "", suffix: str = "") -> StoredObject:
    """*content* compressed, as an object."""
    data = zlib.compress(content)
    return StoredObject(hash_name(data, algorithm), suffix, data)


def raw_object(data: bytes, algorithm: str = "", suffix: str = "") -> StoredObject:
    """*data* as it is, as an object."""
    return StoredObject(hash_name(data, algorithm), suffix, data)


def inflate(data: bytes, what: str) -> bytes:
    """Undo the compression; raises :exc:`Failed`."""
    try:
        return zlib.decompress(data)
    except zlib.error as error:
        raise Failed(f"{what} is not zlib-compressed: {error}") from None
