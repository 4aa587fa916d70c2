"""What the time of a commit is spent on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal, TypeVar

Phase = Literal["read", "diff", "apply", "store", "publish", "record"]
"""In this order:

* ``read``: head, tags, keys and reflog, and the catalogs of publisher and repository;
* ``diff``: what the publisher changed, and whether it may be;
* ``apply``: the changes, in the present catalogs; automatic nested catalogs included;
* ``store``: the catalogs that changed;
* ``publish``: tag database, certificate, reflog and manifest, all made durable;
* ``record``: statistics.
"""
PHASES: Final[tuple[Phase, ...]] = ("read", "diff", "apply", "store", "publish", "record")

_Item = TypeVar("_Item")


class Stopwatch:
    """The phases of one commit. It runs from when it is made until :meth:`stop`, beginning with ``read``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._phase: Phase = "read"
        self._since = clock()
        self._seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)

    def enter(self, phase: Phase) -> None:
        """Say that from now on it is *phase* that takes the time. One may be entered again."""
        now = self._clock()
        self._seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now

    def each(self, items: Iterable[_Item], made: Phase, used: Phase) -> Iterator[_Item]:
        """The same items, of which the making is one phase and the use another."""
        self.enter(made)
        for item in items:
            self.enter(used)
            yield item
            self.enter(made)

    def stop(self) -> dict[str, float]:
        """The seconds that each phase took."""
        self.enter(self._phase)
        return {phase: self._seconds[phase] for phase in PHASES}


def describe(phases: dict[str, float]) -> str:
    """Milliseconds of each phase, for a log."""
    return ", ".join(f"{phase} {seconds * 1000:.1f}" for phase, seconds in phases.items())
