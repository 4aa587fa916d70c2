"""How long chunks of large files are: what :mod:`cvmfs_objstore.chunking` goes by, without the library that it needs.

Source: ``CVMFS_MIN_CHUNK_SIZE``, ``CVMFS_AVG_CHUNK_SIZE`` and ``CVMFS_MAX_CHUNK_SIZE`` in ``server.conf``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cvmfs_objstore.errors import FormatError

WINDOW: Final = 32
"""So many bytes the rolling value depends on."""
CENTRE: Final = (1 << 31) - 1
"""What the rolling value is close to at a cut."""
MASK: Final = 0xFFFFFFFF
"""The bits of the rolling value."""


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """Lengths of chunks in bytes. Raises :exc:`FormatError` for what cannot be cut."""

    smallest: int = 4 << 20
    average: int = 8 << 20
    largest: int = 16 << 20

    def __post_init__(self) -> None:
        if not WINDOW <= self.smallest < self.average < self.largest < CENTRE:
            raise FormatError(f"chunk sizes {self.smallest}, {self.average}, {self.largest} are not in order")

    @property
    def threshold(self) -> int:
        """How close to its centre the rolling value is at a cut."""
        return MASK // self.average


DEFAULT_SIZES: Final = ChunkSizes()
"""What publishers use where ``server.conf`` says nothing else."""
