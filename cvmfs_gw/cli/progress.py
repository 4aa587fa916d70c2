"""How far long work has come: one line on the terminal that is written over and over, or JSON lines for scripts."""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import asdict
from types import TracebackType
from typing import Any, Final

from cvmfs_gw.client.request import Progress
from cvmfs_gw.engine.statistics import PublishCounts
from cvmfs_gw.text import printable

_EVERY_S: Final = 0.1
_WIDTH: Final = 30
_MIB: Final = 1 << 20


class Line:
    """The line. Says nothing if *quiet*, or where there is no terminal. Thread-safe."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet or not sys.stderr.isatty()
        self._lock = threading.Lock()
        self._drawn = 0.0
        self._text = ""

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def show(self, text: str) -> None:
        """Draw *text*, unless something was drawn a moment ago."""
        self._text = text
        now = time.monotonic()
        if self._quiet or now - self._drawn < _EVERY_S:
            return
        with self._lock:
            self._drawn = now
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Let the last text stand, and begin a new line for what comes next."""
        if not self._quiet and self._text:
            print(f"\r\x1b[K{self._text}", file=sys.stderr, flush=True)
        self._text, self._drawn = "", 0.0


class Meter(Line):
    """Counts things and bytes as they come."""

    def __init__(self, what: str, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._what = what
        self._count = self._bytes = 0
        self._began = time.monotonic()

    def add(self, size: int) -> None:
        """One more thing of *size* bytes is done."""
        self._count += 1
        self._bytes += size
        rate = self._bytes / _MIB / max(time.monotonic() - self._began, 0.001)
        self.show(f"{self._count:,} {self._what}, {self._bytes / _MIB:,.1f} MiB, {rate:,.0f} MiB/s")


class PublishLine(Progress):
    """A publish on the terminal: what was read, what will change, how much has arrived."""

    def __init__(self) -> None:
        self._line = Line()
        self._files = self._read = self._to_send = self._arrived = 0
        self._lock = threading.Lock()

    def stored(self, path: str, size: int) -> None:
        self._files += 1
        self._read += size
        self._line.show(f"{self._files:,} files, {self._read / _MIB:,.1f} MiB read")

    def planned(self, revision: int, counts: PublishCounts) -> None:
        self._line.end()
        self._line.show(f"on revision {revision}: {summary(counts)}")
        self._line.end()

    def busy(self, detail: str) -> None:
        self._line.show(detail)

    def sending(self, objects: int, size: int) -> None:
        self._line.end()
        self._to_send = size

    def sent(self, objects: int, size: int) -> None:
        with self._lock:
            self._arrived += size
            done = min(self._arrived / max(self._to_send, 1), 1.0)
            bar = "#" * int(_WIDTH * done)
            self._line.show(f"[{bar:{_WIDTH}}] {100 * done:3.0f} % of {self._to_send / _MIB:,.1f} MiB sent")

    def end(self) -> None:
        self._line.end()


class PublishEvents(Progress):
    """A publish as JSON lines on standard output: ``planned``, ``busy``, ``sending``, ``sent``, and one at the end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def planned(self, revision: int, counts: PublishCounts) -> None:
        self.say("planned", revision=revision, **{name: value for name, value in asdict(counts).items() if value})

    def busy(self, detail: str) -> None:
        self.say("busy", detail=printable(detail))

    def sending(self, objects: int, size: int) -> None:
        self.say("sending", objects=objects, bytes=size)

    def sent(self, objects: int, size: int) -> None:
        self.say("sent", objects=objects, bytes=size)

    def say(self, event: str, **fields: Any) -> None:
        """One line."""
        with self._lock:
            print(json.dumps({"event": event, **fields}), flush=True)


def summary(counts: PublishCounts) -> str:
    """What a publish does, in words."""
    words = []
    for kind, one in (("files", "file"), ("directories", "directory"), ("symlinks", "symlink")):
        for what in ("added", "changed", "removed"):
            if number := getattr(counts, f"{kind}_{what}"):
                words.append(f"{number:,} {one if number == 1 else kind} {what}")
    return ", ".join(words) or "nothing but catalogs"
