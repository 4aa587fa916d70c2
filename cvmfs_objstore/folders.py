"""Object folders that are garbage-collected while others put objects into them.

Whoever refreshes or replaces an object holds a shared lock on its folder; a collector holds an exclusive one. The locks
work between processes, too.

Source: flock(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator

from cvmfs_objstore.errors import InvalidPath


@contextlib.contextmanager
def locked(folder: str, kind: int) -> Iterator[int]:
    """Hold the lock of *kind* (``fcntl.LOCK_SH``, ``LOCK_EX``); yields the folder's descriptor. Raises ``OSError``."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, kind)
        yield descriptor
    finally:
        os.close(descriptor)


def check_name(name: str) -> str:
    """Return *name* if it is one in a folder; raises :exc:`InvalidPath`."""
    if "/" in name or "\0" in name:
        raise InvalidPath(f"not a name in a folder: {name[:200]!r}")
    return name


def remove(names: Iterable[str], folder: int) -> list[int | None]:
    """Remove files from the folder with descriptor *folder*; 0 for each that existed, None for the others."""
    done: list[int | None] = []
    unlink = os.unlink
    for name in names:
        check_name(name)
        try:
            unlink(name, dir_fd=folder)
            done.append(0)
        except (FileNotFoundError, IsADirectoryError):
            done.append(None)
    return done


def remove_if_older(name: str, before: float, folder: int, pretend: bool) -> int | None:
    """Remove a file last modified *before* that time; its size in bytes, or None if it stays or does not exist."""
    check_name(name)
    try:
        status = os.stat(name, dir_fd=folder)
        if status.st_mtime >= before or not stat.S_ISREG(status.st_mode):
            return None
        if not pretend:
            os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return None
    return status.st_size
