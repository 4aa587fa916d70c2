"""A clock that nobody can set: what times to live are measured with.

It starts from the system's clock and then goes with the time that the machine has been running, which only ever goes
forwards and at its own pace::

    now = shift + time since boot

So if the system's clock is put back, nothing dies early and nothing lives forever; if it is put forward, nothing dies
early. The shift is kept in a small file, so that a restart of the process changes nothing either. After a reboot the
system's clock counts again, but never goes back behind what was seen last.

Whoever has put a wrong clock right, and wants times to live to follow it at once, removes the file and restarts the
server; until then :attr:`SteadyClock.step` says by how much the two differ.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Final

from cvmfs_gw.engine.repository import replace_file

_log = logging.getLogger(__name__)
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


def running() -> float:
    """Seconds since boot, time asleep included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def boot_id() -> str:
    """What is another one after each boot; ``""`` where nobody knows."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


class SteadyClock:
    """Seconds since the epoch, steadily. *path* is where it is kept; the other arguments are for tests. Thread-safe."""

    def __init__(
        self,
        path: str,
        *,
        wall: Callable[[], float] = time.time,
        running: Callable[[], float] = running,
        boot: str | None = None,
    ) -> None:
        """Raises ``OSError`` if the file cannot be written."""
        self._path, self._wall, self._running = path, wall, running
        self._boot = boot_id() if boot is None else boot
        self._shift = self._begin()
        self.save()

    def __call__(self) -> float:
        return self._shift + self._running()

    @property
    def step(self) -> float:
        """How much the system's clock is ahead of this one, in seconds."""
        return self._wall() - self()

    def save(self) -> None:
        """Remember for the next start how late it is. Raises ``OSError``."""
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
            _log.warning("%s: cannot be read, so the system's clock counts: %s", self._path, error)
            return wall - since_boot
        if known and known == self._boot:
            return shift
        return max(wall, seen) - since_boot
