"""Server-sent events: framing, the two dialects, and a parser for standard clients.

::

    strict     data: {...}LF LF                  one event in one HTTP chunk, and nothing else, ever
    standard   data: {...}LF id: E-NLF LF        and ": ping" from time to time

A deployed CernVM-FS client does not really parse event streams. It looks at what one callback of its HTTP library
delivers, which is one chunk or a part of it, and expects the event in the first line: a comment, blank line or another
field there ends its subscription. Two chunks that it reads at once corrupt each other, so there is a gap between them.
All other clients get what the standard provides: ids for resuming, and pings.

Source: the HTML standard, section 9.2 (server-sent events); ``cvmfs_swissknife notify -s`` and mounted clients of 2.12.
Divergence: the reference has only one dialect, without ids and pings, and so cannot tell which clients are still there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from cvmfs_notify.broker import Event

PING: Final = b": ping\n\n"
RETRY_MS: Final = 1000
"""How long standard clients wait before they reconnect, in milliseconds."""
GREETING: Final = b"retry: %d\n\n" % RETRY_MS
"""Sent to standard clients at once, so that they see that the stream is open."""
MAX_LINE: Final = 128 << 10
"""The longest line that :class:`Reader` accepts, in bytes."""

_ID: Final = re.compile(r"([0-9a-f]{0,32})-([0-9]{1,18})", re.ASCII)
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class Dialect(Enum):
    """What kind of stream a subscriber understands."""

    STRICT = "strict"
    STANDARD = "standard"

    @classmethod
    def of(cls, user_agent: str | None) -> Dialect:
        """The dialect for clients with this ``User-Agent``."""
        return cls.STRICT if (user_agent or "").startswith("cvmfs/") else cls.STANDARD


def frame(event: Event, dialect: Dialect, epoch: str) -> bytes:
    """The event in *dialect*."""
    if dialect is Dialect.STRICT:
        return b"data: %b\n\n" % event.publication.message
    return b"data: %b\nid: %b\n\n" % (event.publication.message, event_id(epoch, event.number).encode("ascii"))


def chunk(data: bytes) -> bytes:
    """*data* as one chunk of HTTP's chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event_id(epoch: str, number: int) -> str:
    return f"{epoch}-{number}"


def parse_event_id(text: str | None, epoch: str) -> int | None:
    """The number in a ``Last-Event-ID``; None if there is none, or one of another epoch."""
    match = _ID.fullmatch(text or "")
    return int(match[2]) if match is not None and match[1] == epoch else None


@dataclass(frozen=True, slots=True)
class Received:
    """An event as a client sees it. ``id`` is the last id in the stream so far."""

    data: bytes
    id: str = ""


class Reader:
    """An incremental parser of event streams, by the standard. ``last_id`` is the id to resume from.

    ``sends_pings`` is true once the server has sent a comment or ``retry``, as a server does that sends pings.
    """

    def __init__(self) -> None:
        self.last_id = ""
        self.sends_pings = False
        self._rest = b""
        self._data: list[bytes] = []
        self._id = ""

    def feed(self, data: bytes) -> Iterator[Received]:
        """The events that *data* completes; raises :exc:`ValueError` for a line without an end."""
        self._rest += data
        start = 0
        for match in _LINE_END.finditer(self._rest):
            if match.end() == len(self._rest) and match[0] == b"\r":
                break  # LF may follow
            line, start = self._rest[start : match.start()], match.end()
            event = self._line(line)
            if event is not None:
                yield event
        self._rest = self._rest[start:]
        if len(self._rest) > MAX_LINE:
            raise ValueError(f"a line of over {MAX_LINE} bytes")

    def _line(self, line: bytes) -> Received | None:
        if not line:
            self.last_id = self._id
            data, self._data = self._data, []
            return Received(b"\n".join(data), self.last_id) if data else None
        field, _, value = line.partition(b":")
        if field in (b"", b"retry"):
            self.sends_pings = True
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        return None
