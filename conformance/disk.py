"""A disk that is full: the storage's own, filled with one file that goes away again.

Only a small one is filled, such as a file system made for the purpose: filling a large one takes long and may be in the
way of others.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from conformance.outcomes import NotApplicable

LARGEST: Final = 4 << 30
_NAME: Final = "conformance-ballast"
_PIECES: Final = (1 << 24, 1 << 20, 1 << 16, 1 << 12)


def size_of(folder: Path) -> int:
    """The size of the file system that a folder is on, in bytes."""
    found = os.statvfs(folder)
    return found.f_frsize * found.f_blocks


@contextlib.contextmanager
def full(store: Path, leave: int = 0) -> Iterator[None]:
    """The file system of *store* with *leave* bytes of room; raises :exc:`NotApplicable` if it is too large."""
    try:
        size = size_of(store)
    except OSError as error:
        raise NotApplicable(f"--store: {error}") from None
    if size > LARGEST:
        raise NotApplicable(f"fills a storage of at most {LARGEST >> 30} GiB; this one has {size / (1 << 30):.0f} GiB")
    path = store / _NAME
    try:
        with path.open("wb") as file:
            _fill(file.fileno())
            file.truncate(max(0, file.seek(0, os.SEEK_END) - leave))
        yield
    except PermissionError as error:
        raise NotApplicable(f"--store: {error}") from None
    finally:
        path.unlink(missing_ok=True)


def _fill(descriptor: int) -> None:
    """Write until nothing more fits."""
    at = 0
    for piece in _PIECES:
        while True:
            try:
                os.posix_fallocate(descriptor, at, piece)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                break
            at += piece
