"""Content hashes: the names of everything that CernVM-FS stores.

A content hash is the digest of an object's bytes *as stored* (that is, compressed), 20 bytes for every
algorithm. Its text form is ``<40 hex>[-rmd160|-shake128][suffix]``; the suffix letter says what the object
is and is not part of the digest. SHA-1 has no algorithm tag.

Source: object names below ``data/`` of a repository, manifest lines, object pack headers.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, Protocol

from cvmfs_objstore.errors import InvalidHash

DIGEST_SIZE: Final = 20
"""Length of every content hash, in bytes."""


class Hasher(Protocol):
    """What :meth:`Algorithm.new` returns: feed bytes, then take the 20 bytes of the digest."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


class _Shake128:
    """SHAKE-128 cut to 160 bits, behind the interface of the fixed-length hashes."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = hashlib.shake_128()

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self._state.update(data)

    def digest(self) -> bytes:
        return self._state.digest(DIGEST_SIZE)


class Algorithm(IntEnum):
    """Hash algorithms, by the number that catalogs store (minus one) in three bits of an entry's flags."""

    SHA1 = 1
    RMD160 = 2
    SHAKE128 = 3

    @property
    def tag(self) -> str:
        """What follows the hex digits: empty for SHA-1."""
        return _TAGS[self]

    @property
    def config_name(self) -> str:
        """The name in ``CVMFS_HASH_ALGORITHM``."""
        return _CONFIG_NAMES[self]

    @classmethod
    def from_config(cls, name: str) -> Algorithm:
        """The algorithm that ``CVMFS_HASH_ALGORITHM=name`` asks for; raises :exc:`InvalidHash`."""
        for algorithm, config_name in _CONFIG_NAMES.items():
            if config_name == name:
                return algorithm
        raise InvalidHash(f"unknown hash algorithm {name!r}")

    def new(self) -> Hasher:
        """A fresh hasher. Its ``update`` releases the interpreter lock for data over 2 KiB."""
        if self is Algorithm.SHA1:
            return hashlib.sha1(usedforsecurity=False)
        if self is Algorithm.RMD160:
            return hashlib.new("ripemd160", usedforsecurity=False)
        return _Shake128()


_TAGS: Final = {Algorithm.SHA1: "", Algorithm.RMD160: "-rmd160", Algorithm.SHAKE128: "-shake128"}
_TAG_BY_NUMBER: Final = ("", *(_TAGS[algorithm] for algorithm in Algorithm))
_BY_TAG: Final = {tag: algorithm for algorithm, tag in _TAGS.items()}
_CONFIG_NAMES: Final = {Algorithm.SHA1: "sha1", Algorithm.RMD160: "rmd160", Algorithm.SHAKE128: "shake128"}


class Suffix(StrEnum):
    """What an object is, as the last letter of its name. A file has none."""

    NONE = ""
    CATALOG = "C"
    HISTORY = "H"
    CERTIFICATE = "X"
    METAINFO = "M"
    CHUNK = "P"
    MICRO_CATALOG = "L"


_BY_LETTER: Final = {suffix.value: suffix for suffix in Suffix}

# hash = 40HEXDIG ["-" algorithm] [suffix]; an algorithm tag is lower case, a suffix one capital letter
_TEXT: Final = re.compile(r"([0-9a-f]{40})(-rmd160|-shake128|)([A-Z]?)")


def object_path(digest: bytes, tag: str, suffix: str = "") -> str:
    """Where the object of that digest, algorithm tag and suffix lies in a repository's storage."""
    name = digest.hex()
    return f"data/{name[:2]}/{name[2:]}{tag}{suffix}"


@dataclass(frozen=True, slots=True, order=True)
class ContentHash:
    """One content hash with its algorithm and suffix. Hashable, ordered, and never bare hex."""

    digest: bytes
    algorithm: Algorithm = Algorithm.SHA1
    suffix: Suffix = Suffix.NONE

    def __str__(self) -> str:
        """Hex digits, algorithm tag and suffix, as in object names and object packs."""
        return f"{self.digest.hex()}{_TAGS[self.algorithm]}{self.suffix.value}"

    @property
    def bare(self) -> str:
        """Hex digits and algorithm tag without the suffix, as in manifests, reflogs and ``nested_catalogs``."""
        return f"{self.digest.hex()}{_TAGS[self.algorithm]}"

    @property
    def path(self) -> str:
        """Where the object lies in a repository's storage: ``data/ab/cdef...``."""
        # called for every object of a payload: plain tuple indexing, as enum properties are slow
        return object_path(self.digest, _TAG_BY_NUMBER[self.algorithm], self.suffix)

    @property
    def is_null(self) -> bool:
        """True for the forty zeros that stand for "no hash"."""
        return not any(self.digest)

    def with_suffix(self, suffix: Suffix) -> ContentHash:
        """The same digest, naming an object of another kind."""
        return ContentHash(self.digest, self.algorithm, suffix)

    @classmethod
    def parse(cls, text: str, suffix: Suffix | None = None) -> ContentHash:
        """Read the text form; raises :exc:`InvalidHash`.

        If *suffix* is given, the text must have that suffix or none; the result has it either way.
        """
        match = _TEXT.fullmatch(text)
        if match is None or match[3] not in _BY_LETTER:
            raise InvalidHash(f"not a content hash: {text[:80]!r}")
        found = _BY_LETTER[match[3]]
        if suffix is not None and found not in (Suffix.NONE, suffix):
            raise InvalidHash(f"not a hash of kind {suffix.value or 'file'}: {text[:80]!r}")
        return cls(bytes.fromhex(match[1]), _BY_TAG[match[2]], found if suffix is None else suffix)

    @classmethod
    def of(cls, data: bytes, algorithm: Algorithm = Algorithm.SHA1, suffix: Suffix = Suffix.NONE) -> ContentHash:
        """The content hash of *data*."""
        hasher = algorithm.new()
        hasher.update(data)
        return cls(hasher.digest(), algorithm, suffix)

    @classmethod
    def null(cls, algorithm: Algorithm = Algorithm.SHA1, suffix: Suffix = Suffix.NONE) -> ContentHash:
        """The forty zeros that stand for "no hash"."""
        return cls(bytes(DIGEST_SIZE), algorithm, suffix)
