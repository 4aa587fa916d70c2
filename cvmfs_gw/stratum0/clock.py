"""A monotonic clock for times to live, which survives restarts.

It starts from the system's clock and then follows the time since boot, which only goes forwards, at a constant rate::

    now = shift + time since boot

So nothing expires early or lives forever when the system's clock is set, back or forward. The shift is kept in a small
file, so that a restart of the process has no effect either. After a reboot the clock starts from the system's clock
again, but never goes back behind the last time it showed.

If the system's clock was wrong and times to live are to follow the corrected one at once, remove the file and restart
the server; until then, :attr:`SteadyClock.step` is the difference between the two.
"""

from __future__ import annotations

import errno
import json
import logging
import time
from collections.abc import Callable
from typing import Final

from cvmfs_gw.engine.repository import replace_file

_log = logging.getLogger(__name__)
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


def running() -> float:
    """Seconds since boot, including time suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def boot_id() -> str:
    """An identifier that changes with each boot; ``""`` if there is none."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


class SteadyClock:
    """Seconds since the epoch, monotonic. *path* holds its state; the other arguments are for tests. Thread-safe."""

    def __init__(
        self,
        path: str,
        *,
        wall: Callable[[], float] = time.time,
        running: Callable[[], float] = running,
        boot: str | None = None,
    ) -> None:
        """Raises ``OSError`` if the file cannot be written, unless the disk is full."""
        self._path, self._wall, self._running = path, wall, running
        self._boot = boot_id() if boot is None else boot
        self._shift = self._begin()
        try:
            self.save()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            _log.error("%s: %s", path, error.strerror)

    def __call__(self) -> float:
        return self._shift + self._running()

    @property
    def step(self) -> float:
        """By how many seconds the system's clock is ahead of this one."""
        return self._wall() - self()

    def save(self) -> None:
        """Save the present time for the next start. Raises ``OSError``."""
        state = {"boot": self._boot, "shift": self._shift, "seen": self()}
        replace_file(self._path, json.dumps(state).encode() + b"\n")

    def _begin(self) -> float:
        wall, since_boot = self._wall(), self._running()
        try:
            with open(self._path, "rb") as file:
                state = json.load(file)
            known, shift, seen = str(state["boot"]), float(state["shift"]), float(state["seen"])
        except FileNotFoundError:
            return wall - since_boot
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s cannot be read, the system's clock is used: %s", self._path, error)
            return wall - since_boot
        if known and known == self._boot:
            return shift
        return max(wall, seen) - since_boot
