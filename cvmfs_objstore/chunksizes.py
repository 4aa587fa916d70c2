"""The chunk sizes of large files. Apart from :mod:`cvmfs_objstore.chunking`, so that settings do not import NumPy.

Source: ``CVMFS_MIN_CHUNK_SIZE``, ``CVMFS_AVG_CHUNK_SIZE`` and ``CVMFS_MAX_CHUNK_SIZE`` in ``server.conf``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cvmfs_objstore.errors import FormatError

WINDOW: Final = 32
"""The number of bytes that the rolling hash depends on."""
CENTRE: Final = (1 << 31) - 1
"""The rolling hash is close to this value at a cut."""
MASK: Final = 0xFFFFFFFF
"""The bits of the rolling hash."""


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """Chunk sizes in bytes. Raises :exc:`FormatError` for impossible ones."""

    smallest: int = 4 << 20
    average: int = 8 << 20
    largest: int = 16 << 20

    def __post_init__(self) -> None:
        if not WINDOW <= self.smallest < self.average < self.largest < CENTRE:
            raise FormatError(f"chunk sizes {self.smallest}, {self.average}, {self.largest} are not in order")

    @property
    def threshold(self) -> int:
        """The maximum distance of the rolling hash from its centre at a cut."""
        return MASK // self.average


DEFAULT_SIZES: Final = ChunkSizes()
"""What publishers use unless ``server.conf`` says otherwise."""
