"""Work under way that needs objects which nobody names yet, for collectors of other processes to know of.

::

    <spool>/work/<name>    since when, in seconds since the epoch; locked by who works

Uploads have no lease, so nothing but their own process knows of them. A mark whose owner has died is no more: the
kernel unlocks it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from typing import Final

from cvmfs_gw.engine.errors import StorageError
from cvmfs_gw.engine.locking import lock_now
from cvmfs_gw.paths import SystemPaths

_HALF_MADE: Final = "."
_LENGTH: Final = 20
"""A time takes as many bytes as any other, so that it is replaced by one write."""


class WorkMark:
    """Since when this process is at work on a repository. To be used from one thread at a time."""

    def __init__(self, paths: SystemPaths, fqrn: str) -> None:
        self._folder, self._name = _folder(paths, fqrn), f"{os.getpid()}-{secrets.token_hex(4)}"
        self._path = os.path.join(self._folder, self._name)
        self._file: int | None = None

    def set(self, began: float | None) -> None:
        """It began then, in seconds since the epoch, or there is none. Raises ``OSError``."""
        if began is None:
            self._clear()
            return
        text = f"{began:{_LENGTH}.3f}".encode()
        if self._file is not None:
            os.pwrite(self._file, text, 0)
            return
        os.makedirs(self._folder, exist_ok=True)
        half_made = os.path.join(self._folder, _HALF_MADE + self._name)
        file = os.open(half_made, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.pwrite(file, text, 0)
            os.rename(half_made, self._path)
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def _clear(self) -> None:
        if self._file is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            os.close(self._file)
            self._file = None


def oldest_work(paths: SystemPaths, fqrn: str) -> float | None:
    """When the oldest work of any process began, in seconds since the epoch; None: there is none.

    Raises :exc:`StorageError` if that cannot be known.
    """
    folder = _folder(paths, fqrn)
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(_HALF_MADE)]
        found = [_held(os.path.join(folder, name)) for name in names]
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StorageError(f"{fqrn}: cannot read what is under way, in {folder}: {error}") from error
    return min((began for began in found if began is not None), default=None)


def _held(path: str) -> float | None:
    """What a mark says; None if nobody holds it."""
    try:
        file = open(path, encoding="ascii")  # noqa: SIM115 (closed below)
    except FileNotFoundError:
        return None  # its work ended just now
    with file:
        if lock_now(file.fileno()):
            with suppress(OSError):
                os.unlink(path)  # its owner was killed
            return None
        return float(file.read())


def _folder(paths: SystemPaths, fqrn: str) -> str:
    return os.path.join(paths.repository_spool(fqrn), "work")
