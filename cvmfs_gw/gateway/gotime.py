"""Durations and times in the form that Go prints, as used in replies.

::

    9m59.997348644s   1h0m0s   1.5s   250ms   0s            a duration
    2026-11-20 08:41:48.712 +0000 UTC                       a time

Source: replies captured from the reference; the printed form of Go's ``time.Duration`` and ``time.Time``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

NANOSECONDS_PER_MS: Final = 1_000_000
_US: Final = 1_000
_MS: Final = 1_000_000
_S: Final = 1_000_000_000

_UNITS: Final = {
    "ns": 1,
    "us": _US,
    "µs": _US,  # micro sign
    "μs": _US,  # Greek letter mu
    "ms": _MS,
    "s": _S,
    "m": 60 * _S,
    "h": 3600 * _S,
}
# duration = [sign] 1*(decimal unit)
_PART: Final = re.compile(r"(\d+)(?:\.(\d*))?(ns|us|µs|μs|ms|s|m|h)")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(\.\d{1,9})? ([+-])(\d\d)(\d\d) \S+")


def format_duration(nanoseconds: int) -> str:
    """A duration in its shortest form: units below a second are chosen to have a digit before the point."""
    if nanoseconds == 0:
        return "0s"
    sign = "-" if nanoseconds < 0 else ""
    rest = abs(nanoseconds)
    if rest < _US:
        return f"{sign}{rest}ns"
    if rest < _MS:
        return f"{sign}{_decimal(rest, _US)}µs"
    if rest < _S:
        return f"{sign}{_decimal(rest, _MS)}ms"
    minutes, rest = divmod(rest, 60 * _S)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, _S)}s"
    if hours:
        text = f"{hours}h{minutes}m{text}"
    elif minutes:
        text = f"{minutes}m{text}"
    return sign + text


def parse_duration(text: str) -> int:
    """The duration in *text*, in nanoseconds; raises :exc:`ValueError`."""
    sign, body = (-1, text[1:]) if text[:1] == "-" else (1, text[text[:1] == "+" :])
    if body == "0":
        return 0
    total, position = 0, 0
    while position < len(body):
        match = _PART.match(body, position)
        if match is None:
            break
        unit = _UNITS[match[3]]
        fraction = match[2] or ""
        total += int(match[1]) * unit
        if fraction:
            total += int(fraction) * unit // 10 ** len(fraction)
        position = match.end()
    if not body or position != len(body):
        raise ValueError(f"not a duration: {text[:80]!r}")
    return sign * total


def format_time(milliseconds: int) -> str:
    """A moment, given in milliseconds since the epoch, in UTC.

    Divergence: the reference prints its local time zone.
    """
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    fraction = f".{milliseconds % 1000:03}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"


def parse_time(text: str) -> int:
    """The time in *text*, in milliseconds since the epoch; raises :exc:`ValueError`."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time: {text[:80]!r}")
    moment = datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    offset = timedelta(hours=int(match[4]), minutes=int(match[5]))
    moment = moment - offset if match[3] == "+" else moment + offset
    fraction = int((match[2] or ".0")[1:].ljust(9, "0")) // NANOSECONDS_PER_MS
    return (moment - _EPOCH) // timedelta(milliseconds=1) + fraction


def _decimal(value: int, unit: int) -> str:
    """*value* divided by *unit*, without trailing zeros."""
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    return f"{whole}.{str(rest).zfill(len(str(unit)) - 1).rstrip('0')}"
