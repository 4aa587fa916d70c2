"""File system calls that Python does not have, or has in a form that does not fit a server with threads.

Source: syncfs(2), umask(2), proc(5).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Final

DIR_MODE: Final = 0o755


def write_all(fd: int, view: memoryview) -> None:
    """Write all of *view*. One write(2) takes 2 GiB at most, and less when the disk is full."""
    view = view.cast("B")
    while view:
        view = view[os.write(fd, view) :]


def make_dir(path: str) -> None:
    """Make one folder that everybody can read, whatever the umask; no error if it is there."""
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
    """Make all of the file system of *fd* durable.

    Raises :exc:`OSError` also for writes that failed since *fd* was opened, if the kernel is of 5.8 or later.
    """
    if _syncfs is None:
        os.sync()
    elif _syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def umask() -> int:
    """The process's umask, without the moment of another umask that os.umask costs every thread."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    return 0o777  # unknown: it may take any bit


def _load_syncfs() -> Callable[[int], int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int]
    function.restype = ctypes.c_int
    return lambda fd: int(function(fd))


_syncfs: Final = _load_syncfs()
