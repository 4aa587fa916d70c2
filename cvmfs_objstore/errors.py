"""Errors of the object store and its formats.

::

    ObjectStoreError
    ├── InvalidHash            text or bytes that are no content hash
    ├── InvalidPath            a storage path that is absolute, contains "..", or is reserved
    ├── ObjectNotFound         a named object or file is not in the storage
    ├── ObjectCorrupt          an object's bytes do not have the hash of its name, or do not decompress
    ├── ObjectTooLarge         an object is larger than the caller allows
    ├── FormatError            malformed input
    │   ├── DatabaseError      not an SQLite database of a known schema
    │   ├── ManifestError
    │   ├── WhitelistError
    │   └── ObjectPackError
    ├── SignatureError         a letter whose hash or signature is wrong
    │   └── WhitelistExpired
    └── KeyFileError           a key or certificate file that is missing or unreadable
"""

from __future__ import annotations


class ObjectStoreError(Exception):
    """Base of everything that this package raises on purpose."""


class InvalidHash(ObjectStoreError, ValueError):
    """Text or bytes that are no content hash."""


class InvalidPath(ObjectStoreError, ValueError):
    """A storage path that is absolute, contains ``..``, or lies in the staging directory."""


class ObjectNotFound(ObjectStoreError, LookupError):
    """A named object or file is not in the storage."""

    def __init__(self, name: str) -> None:
        super().__init__(f"not in the storage: {name}")
        self.name = name


class ObjectCorrupt(ObjectStoreError):
    """An object's bytes do not have the hash of its name, or do not decompress."""


class ObjectTooLarge(ObjectStoreError):
    """An object is larger than the caller allows."""


class FormatError(ObjectStoreError, ValueError):
    """Malformed input: bytes that break the rules of their format."""


class DatabaseError(FormatError):
    """Not an SQLite database, or one of an unknown schema."""


class ManifestError(FormatError):
    """Not a manifest."""


class WhitelistError(FormatError):
    """Not a whitelist."""


class ObjectPackError(FormatError):
    """Not an object pack, or one that breaks its own header."""


class SignatureError(ObjectStoreError):
    """A letter whose hash or signature is wrong."""


class WhitelistExpired(SignatureError):
    """The whitelist has expired, so no certificate on it is trusted."""


class KeyFileError(ObjectStoreError):
    """A key or certificate file that is missing or unreadable."""
