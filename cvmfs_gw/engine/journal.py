"""The journal of a publish: the objects that it stores, so that they can be removed after a crash.

A small file in the repository's spool folder, with one object name per line, written before the object is. A publish
that succeeds removes the file. After a crash, it lists unreferenced objects: catalogs and tag databases of a publish
that was cut off before its manifest. It need not be durable: after a power cut, some unreferenced objects may remain.
"""

from __future__ import annotations

import contextlib
import os

from cvmfs_objstore.errors import InvalidHash
from cvmfs_objstore.hashes import ContentHash


class Journal:
    """The journal of one repository; *path* is the file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def note(self, name: ContentHash) -> None:
        """Record that *name* is about to be stored."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, f"{name}\n".encode())
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Remove the journal: its objects are referenced, or have been removed."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def names(self) -> list[ContentHash]:
        """The recorded names, without a last line that was cut off."""
        try:
            with open(self._path, encoding="ascii", errors="replace") as file:
                lines = file.read().split("\n")[:-1]
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            with contextlib.suppress(InvalidHash):
                found.append(ContentHash.parse(line))
        return found
