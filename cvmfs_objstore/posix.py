"""File system calls that Python lacks, or offers in a form that does not suit a threaded server.

Source: syncfs(2), umask(2), proc(5).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Final

DIR_MODE: Final = 0o755


def write_all(fd: int, view: memoryview) -> None:
    """Write all of *view*. One write(2) writes at most 2 GiB, and less when the disk is full."""
    view = view.cast("B")
    while view:
        view = view[os.write(fd, view) :]


def make_dir(path: str) -> None:
    """Make one folder that everybody can read, whatever the umask; no error if it exists."""
    try:
        os.mkdir(path, DIR_MODE)
    except FileExistsError:
        return
    os.chmod(path, DIR_MODE)


def sync_dir(path: str) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(fd: int) -> None:
    """Make everything on the file system of *fd* durable.

    On Linux 5.8 or later, also raises :exc:`OSError` for writes that have failed since *fd* was opened.
    """
    if _syncfs is None:
        os.sync()
    elif _syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def umask() -> int:
    """The process's umask. Unlike ``os.umask``, this does not change it for a moment, for every thread."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    return 0o777  # unknown: assume the strictest


def _load_syncfs() -> Callable[[int], int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int]
    function.restype = ctypes.c_int
    return lambda fd: int(function(fd))


_syncfs: Final = _load_syncfs()
