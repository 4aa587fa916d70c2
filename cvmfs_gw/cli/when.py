"""Times as people write them: ``3 days ago``, ``yesterday``, ``@1700000000``, ``2026-11-20 08:41``.

Source: the part of ``date --date`` that ``cvmfs_server`` and ``CVMFS_AUTO_TAG_TIMESPAN`` are used with.
"""

from __future__ import annotations

import argparse
import re
import time
from datetime import datetime, timedelta
from typing import Final

_UNITS: Final = {
    "second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "day": 86_400, "week": 604_800,
    "fortnight": 1_209_600, "month": 2_629_746, "year": 31_556_952,
}  # fmt: skip
_AGO: Final = re.compile(r"(\d+|an?)\s*([a-z]+?)s?\s+ago", re.IGNORECASE)


def parse_time(text: str, now: float) -> float:
    """Seconds since the epoch; *now* as well. Months and years are average ones. Raises ``ValueError``."""
    text = text.strip()
    if text.startswith("@") and text[1:].isdigit():
        return float(text[1:])
    if text.lower() in ("now", "today"):
        return now
    if text.lower() == "yesterday":
        return now - 86_400
    if match := _AGO.fullmatch(text):
        unit = _UNITS.get(match[2].lower())
        if unit is None:
            raise ValueError(f"not a unit of time: {match[2]}")
        return now - timedelta(seconds=(int(match[1]) if match[1].isdigit() else 1) * unit).total_seconds()
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise ValueError(f"not a time: {text!r} (as in '3 days ago' or '2026-11-20 08:41')") from None


def time_argument(text: str) -> float:
    """The same as the type of an argument on the command line."""
    try:
        return parse_time(text, time.time())
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
