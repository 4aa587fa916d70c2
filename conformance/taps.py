"""What subscribers ask for and are told, read from the bytes that pass."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from conformance.stream import Chunks
from conformance.websocket import BINARY, TEXT, take_frame


@dataclass
class Listener:
    """A subscriber: the first members of its :class:`~conformance.session.Stream`, and what it was told."""

    asked: tuple[str, str, Mapping[str, str], str, int]
    messages: list[Mapping[str, Any]] = field(default_factory=list)


Hear = Callable[[Listener, bytes], None]
"""Told of each message."""


class Events:
    """An event stream."""

    def __init__(self, listener: Listener, hear: Hear) -> None:
        self._listener, self._hear = listener, hear
        self._reply = Chunks()

    @property
    def is_complete(self) -> bool:
        """Whether the stream ended cleanly."""
        return self._reply.is_complete

    def seen(self, data: bytes, *, from_server: bool) -> None:
        """Bytes have passed."""
        if not from_server:
            return
        self._reply.feed(data)
        while (chunk := self._reply.take()) is not None:
            for line in chunk.splitlines():
                if line.startswith(b"data: "):
                    self._hear(self._listener, line[6:])


class Frames:
    """A WebSocket. Each subscription in it is a stream of its own; *listen* is told what is asked for."""

    is_complete = True

    def __init__(self, listen: Callable[[str], Listener], hear: Hear) -> None:
        self._listen, self._hear = listen, hear
        self._asked: dict[str, Listener] = {}
        self._data = {True: b"", False: b""}
        self._is_open = False

    def seen(self, data: bytes, *, from_server: bool) -> None:
        """Bytes have passed."""
        self._data[from_server] += data
        if from_server and not self._is_open:
            _, mark, rest = self._data[True].partition(b"\r\n\r\n")
            if not mark:
                return
            self._is_open, self._data[True] = True, rest
        while (frame := take_frame(self._data[from_server])) is not None:
            kind, content, self._data[from_server] = frame
            if kind in (TEXT, BINARY):
                (self._told if from_server else self._asks)(content)

    def _asks(self, content: bytes) -> None:
        listener = self._listen(content.decode("utf-8", "replace"))
        with contextlib.suppress(ValueError, AttributeError):
            self._asked[str(json.loads(content).get("repository"))] = listener

    def _told(self, content: bytes) -> None:
        with contextlib.suppress(ValueError, AttributeError):
            name = str(json.loads(content).get("repository"))
            listener = self._asked.get(name) or next(reversed(self._asked.values()), None)
            if listener is not None:
                self._hear(listener, content)
