"""The phases of a commit, and the time that each takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal, TypeVar

Phase = Literal["read", "diff", "apply", "store", "publish", "record"]
"""In this order:

* ``read``: head, tags, keys and reflog, and the catalogs of publisher and repository;
* ``diff``: finding and validating the publisher's changes;
* ``apply``: applying them to the present catalogs, including automatic nested catalogs;
* ``store``: the catalogs that changed;
* ``publish``: tag database, certificate, reflog and manifest, all made durable;
* ``record``: statistics.
"""
PHASES: Final[tuple[Phase, ...]] = ("read", "diff", "apply", "store", "publish", "record")

_Item = TypeVar("_Item")


class Stopwatch:
    """A stopwatch for one commit. It runs from its creation, in ``read``, until :meth:`stop`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._phase: Phase = "read"
        self._since = clock()
        self._seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)

    def enter(self, phase: Phase) -> None:
        """Switch to *phase*. A phase may be entered more than once."""
        now = self._clock()
        self._seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now

    def each(self, items: Iterable[_Item], made: Phase, used: Phase) -> Iterator[_Item]:
        """Yield *items*, attributing their production to one phase and their consumption to another."""
        self.enter(made)
        for item in items:
            self.enter(used)
            yield item
            self.enter(made)

    def stop(self) -> dict[str, float]:
        """Seconds by phase."""
        self.enter(self._phase)
        return {phase: self._seconds[phase] for phase in PHASES}


def describe(phases: dict[str, float]) -> str:
    """Milliseconds by phase, for a log."""
    return ", ".join(f"{phase} {seconds * 1000:.1f}" for phase, seconds in phases.items())
