"""Large files of every kind that matters to whoever cuts them, each the same on every machine."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

MIB: Final = 1 << 20


def _noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def _patchwork(seed: int, size: int) -> bytes:
    """Noise and zeros in turn."""
    generator = random.Random(seed)
    return b"".join(generator.randbytes(1 << 13) + bytes(248 << 10) for _ in range(0, size, 1 << 18))


def _ones(size: int) -> bytes:
    """Bytes whose rolling value has all bits set: as far from where cuts are as can be, or next to it, by overflow."""
    return b"\1" * size


LARGE_FILES: Final[dict[str, Callable[[], bytes]]] = {
    "noise": lambda: _noise(1, 20 * MIB),
    "patchwork": lambda: _patchwork(2, 24 * MIB),
    "zeros": lambda: bytes(17 * MIB),
    "ones": lambda: _ones(6 * MIB),
    "ones in noise": lambda: _noise(3, 5 * MIB + 3) + _ones(MIB) + _noise(4, 6 * MIB),
    "shortest": lambda: _noise(5, 4 * MIB),
    "shortest and one": lambda: _noise(5, 4 * MIB + 1),
    "longest": lambda: bytes(16 * MIB),
    "longest and one": lambda: bytes(16 * MIB + 1),
    "twice": lambda: _noise(6, 10 * MIB) * 2,
    "twice, shifted": lambda: b"shifted" + _noise(6, 10 * MIB) * 2,
}
"""Makers of contents by name."""
