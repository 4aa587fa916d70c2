"""How far long work has come: one line on the terminal that is written over and over."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Final

_EVERY_S: Final = 0.1


class Meter:
    """Counts bytes. Says nothing where there is no terminal. Thread-safe."""

    def __init__(self, what: str, *, quiet: bool = False) -> None:
        self._what, self._quiet = what, quiet or not sys.stderr.isatty()
        self._lock = threading.Lock()
        self._bytes = self._items = 0
        self._began = self._drawn = time.monotonic()

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._quiet and self._items:
            self._draw(time.monotonic())
            print(file=sys.stderr)

    def add(self, size: int) -> None:
        """One more thing of *size* bytes is done."""
        with self._lock:
            self._bytes += size
            self._items += 1
            now = time.monotonic()
            if not self._quiet and now - self._drawn >= _EVERY_S:
                self._draw(now)

    def _draw(self, now: float) -> None:
        self._drawn = now
        rate = self._bytes / 2**20 / max(now - self._began, 0.001)
        line = f"{self._items:,} objects, {self._bytes / 2**20:,.1f} MiB {self._what}, {rate:,.0f} MiB/s"
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
