"""The repository lock: at most one thread or process of this machine changes a repository, and waiters take turns.

A gateway commits, an operator tags, a collector sweeps: each holds the lock while it reads the head, derives a new one
and replaces it. The lock is made of flocks on two folders that always exist, so there are no lock files that could be
left behind, and the kernel releases them when a process dies::

    turn    the repository's configuration folder   held while waiting for the other one
    change  its spool folder                        held while changing

Whoever releases *change* and wants it again at once (a collector between two batches) must get the *turn* first, which
the next waiter already has: so nobody starves.

``cvmfs_server`` does not know these locks. Its own lock files in the spool folder are respected by :func:`busy_with`,
and :func:`collecting` and :func:`copying` share the one that keeps away its collector and its check.

Source: flock(2); ``in_transaction.lock``, a flag, and ``is_publishing.lock`` and ``is_collecting.lock``, which their
owners hold locked and then remove.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from cvmfs_gw.paths import SystemPaths

_TRANSACTION: Final = "in_transaction.lock"
_PUBLISHING: Final = "is_publishing.lock"
_COLLECTING: Final = "is_collecting.lock"
_PAUSE_S: Final = 0.2
"""The interval, in seconds, at which to check whether ``cvmfs_server`` has finished."""


@contextmanager
def exclusive(paths: SystemPaths, fqrn: str) -> Iterator[int]:
    """Hold the lock of the repository *fqrn*, waiting for it if necessary. Not reentrant. Raises ``OSError``.

    Yields the lock's descriptor: a process that inherits a copy of it holds the lock, too.
    """
    spool = paths.repository_spool(fqrn)
    os.makedirs(spool, exist_ok=True)
    turn = _open(os.path.dirname(paths.server_conf(fqrn)))
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        change = _open(spool)
        try:
            fcntl.flock(change, fcntl.LOCK_EX)
            fcntl.flock(turn, fcntl.LOCK_UN)
            yield change
        finally:
            os.close(change)
    finally:
        os.close(turn)


@contextmanager
def editing(path: str) -> Iterator[None]:
    """Be the only one of us who reads the settings file at *path* and writes it anew. Raises ``OSError``."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    descriptor = _open(folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def collecting(paths: SystemPaths, fqrn: str) -> Iterator[bool]:
    """Hold the lock of the repository's garbage collector; yields False, without the lock, if another one runs."""
    folder = pins_folder(paths, fqrn)
    os.makedirs(folder, exist_ok=True)
    with _kept_away(paths, fqrn) as alone:
        descriptor = _open(folder)
        try:
            yield alone and lock_now(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def copying(
    paths: SystemPaths, fqrn: str, patience: float = 0.0, waiting: Callable[[], None] = lambda: None
) -> Iterator[bool]:
    """Keep away the collector and check of ``cvmfs_server`` during a copy; our collector and other copies may run.

    If one of them is running, waits for it up to *patience* seconds, calling *waiting* once; then yields False.
    """
    deadline, told = time.monotonic() + patience, False
    while True:
        with _kept_away(paths, fqrn) as alone:
            if alone or time.monotonic() >= deadline:
                yield alone
                return
        if not told:
            waiting()
            told = True
        time.sleep(_PAUSE_S)


def pins_folder(paths: SystemPaths, fqrn: str) -> str:
    """The file in which copies record what they need; our collector holds it locked."""
    return os.path.join(paths.repository_spool(fqrn), "pins")


@contextmanager
def _kept_away(paths: SystemPaths, fqrn: str) -> Iterator[bool]:
    """Share the lock that collector and check of ``cvmfs_server`` need exclusively; yields False if one is running."""
    path = os.path.join(paths.repository_spool(fqrn), _COLLECTING)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            got = lock_now(descriptor, fcntl.LOCK_SH)
            if got and not _is_file(descriptor, path):
                continue  # whoever held it has removed it: it keeps nobody away any more
            try:
                yield got
            finally:
                # the last to leave removes it
                if got and lock_now(descriptor) and _is_file(descriptor, path):
                    with suppress(OSError):
                        os.unlink(path)
            return
        finally:
            os.close(descriptor)


def _is_file(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def busy_with(paths: SystemPaths, fqrn: str) -> str:
    """A description of what ``cvmfs_server`` is about to publish on this machine; ``""`` for nothing."""
    return busy_in(paths.repository_spool(fqrn))


def busy_in(spool: str) -> str:
    """As :func:`busy_with`, given the repository's spool folder."""
    if os.path.exists(os.path.join(spool, _TRANSACTION)):
        return "a transaction of cvmfs_server is open"
    try:
        descriptor = os.open(os.path.join(spool, _PUBLISHING), os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    try:
        return "" if lock_now(descriptor) else "cvmfs_server is publishing"
    finally:
        os.close(descriptor)


def lock_now(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Try to lock an open file, without waiting; returns whether it worked."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(folder: str) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
