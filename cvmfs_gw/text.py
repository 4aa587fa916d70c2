"""How things are written for people."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text that any terminal and any JSON parser takes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def human_size(value: float) -> str:
    """A number of bytes: ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
