"""What a case has asked and been told, as evidence for its failure. Tokens are cut off."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from conformance.outcomes import Failed
from conformance.wire import Reply, Url, request

_KEPT: Final = 10
_SHOWN: Final = 160
_TOKEN: Final = re.compile(r'((?:/leases/|/payloads/|"session_token":\s*")[^"\s/]{4})[^"\s]*')


class Trace:
    """The last requests, a line each. May be used by several threads."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT)

    def note(self, method: str, target: str, body: object, answer: Reply | Exception) -> None:
        """A request, and the reply or what came in its place. Of a body in pieces nothing is shown."""
        asked = f"{method} {target}"
        if body and isinstance(body, bytes):
            asked += f" {_text(body)}"
        told = f"HTTP {answer.status} {_text(answer.body)}" if isinstance(answer, Reply) else repr(answer)
        self._lines.append(_TOKEN.sub(r"\1...", f"{asked}\n  {told}"))

    def __str__(self) -> str:
        return "\n".join(self._lines)


def traced(
    trace: Trace | None,
    url: Url,
    method: str,
    target: str,
    body: bytes | Iterable[bytes] = b"",
    headers: Mapping[str, str] | None = None,
    *,
    length: int | None = None,
    timeout: float = 60.0,
) -> Reply:
    """:func:`conformance.wire.request`, of which *trace* is told."""
    try:
        reply = request(url, method, target, body, headers, length=length, timeout=timeout)
    except (OSError, Failed) as error:
        if trace is not None:
            trace.note(method, target, body, error)
        raise
    if trace is not None:
        trace.note(method, target, body, reply)
    return reply


def _text(body: bytes) -> str:
    """The beginning of a body, if it is text."""
    start = body[:_SHOWN].decode("ascii", "replace").rstrip("\n")
    if not start.isprintable() or "\ufffd" in start:
        return f"({len(body):,} bytes)"
    return start + ("..." if len(body) > _SHOWN else "")
