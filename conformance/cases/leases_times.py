"""Moments as the gateway writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from conformance.outcomes import Failed

_FORM = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(\d{1,9}))? ([+-]\d{4}) \S+(?: m=\S+)?")
_OTHER = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


def moment(text: str) -> float:
    """Seconds since 1970 of ``2026-11-20 08:41:48.712 +0000 UTC`` or of ISO 8601; raises :exc:`Failed`."""
    found = _FORM.fullmatch(text)
    if found:
        whole = datetime.strptime(f"{found[1]} {found[3]}", "%Y-%m-%d %H:%M:%S %z").timestamp()
        return whole + float(f"0.{found[2] or 0}")
    if _OTHER.match(text):
        read = datetime.fromisoformat(text)
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    raise Failed(f"no moment: {text!r}")
