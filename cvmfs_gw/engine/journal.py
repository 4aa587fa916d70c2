"""What a publish is about to store, so that a start after a crash can remove it again.

A small file in the repository's spool folder: one object name a line, written before the object is. A publish that
ends well removes the file. After a crash it says which objects nobody refers to: catalogs and tag databases of a
publish that never came to its manifest. It need not be durable: after a power cut some useless objects may stay.
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
        """Say that *name* is about to be stored."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, f"{name}\n".encode())
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Say that all is well."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def names(self) -> list[ContentHash]:
        """What was noted and not cleared. A last line that was cut off is left out."""
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
