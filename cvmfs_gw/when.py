"""Times as people write them: ``3 days ago``, ``tomorrow``, ``next week``, ``@1700000000``, ``2026-11-20 08:41``.

Source: the part of ``date --date`` that ``cvmfs_server``, ``CVMFS_AUTO_TAG_TIMESPAN`` and ``CVMFS_AUTO_GC_*`` are used
with; and what ``date --utc`` prints.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

_UNITS: Final = {
    "second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "day": 86_400, "week": 604_800,
    "fortnight": 1_209_600, "month": 2_629_746, "year": 31_556_952,
}  # fmt: skip
# duration = ("last" | "next" | number | "a" | "an") unit ["s"] ["ago"]
_DISTANCE: Final = re.compile(r"(last|next|\+?\d+|an?)\s*([a-z]+?)s?(\s+ago)?", re.IGNORECASE)
_DAYS: Final = {"now": 0, "today": 0, "yesterday": -86_400, "tomorrow": 86_400}
_PRINTED: Final = ("%a %b %d %H:%M:%S UTC %Y", "%a %b %d %I:%M:%S %p UTC %Y", "%a %d %b %Y %I:%M:%S %p UTC")


def parse_time(text: str, now: float) -> float:
    """Seconds since the epoch; *now* as well. Months and years are average ones. Raises ``ValueError``."""
    text = text.strip()
    if text.startswith("@") and text[1:].isdigit():
        return float(text[1:])
    if text.lower() in _DAYS:
        return now + _DAYS[text.lower()]
    if match := _DISTANCE.fullmatch(text):
        count, unit = match[1].lower(), _UNITS.get(match[2].lower())
        if unit is None or (match[3] and count in ("last", "next")):
            raise ValueError(f"not a distance in time: {text!r}")
        number = int(count) if count.lstrip("+").isdigit() else 1
        past = bool(match[3]) or count == "last"
        return now + timedelta(seconds=number * unit).total_seconds() * (-1 if past else 1)
    for form in _PRINTED:
        with suppress(ValueError):
            return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise ValueError(f"not a time: {text!r} (as in '3 days ago' or '2026-11-20 08:41')") from None
