"""Blocks of shared memory, which bodies are read into and other processes can read.

::

    network ──▶ block ──▶ hash, file        no byte is copied from one process to another

Blocks are reused. All of them are in one anonymous file in memory, which grows as blocks are needed and is freed with
the last process that has it. Where this is not supported, blocks are private to this process.

Source: memfd_create(2).
"""

from __future__ import annotations

import mmap
import os
from typing import Final

BLOCK: Final = 1 << 20
"""The size of a block in bytes: the unit that is passed to a thread or process."""


class Blocks:
    """A pool of blocks. With *shared* false, or if that is not supported, they are private to this process."""

    def __init__(self, *, shared: bool = True) -> None:
        self.fd = os.memfd_create("cvmfs-gw-blocks") if shared and hasattr(os, "memfd_create") else -1
        """The descriptor of the file that contains the blocks; -1 if there is none."""
        self._free: list[memoryview] = []
        self._maps: list[mmap.mmap] = []
        self._numbers: dict[int, int] = {}  # by the identity of the map

    def take(self) -> memoryview:
        """A free block of :data:`BLOCK` bytes. Raises ``OSError``."""
        if self.fd < 0:
            return memoryview(bytearray(BLOCK))
        if self._free:
            return self._free.pop()
        number = len(self._maps)
        os.ftruncate(self.fd, (number + 1) * BLOCK)
        mapped = mmap.mmap(self.fd, BLOCK, offset=number * BLOCK)
        self._maps.append(mapped)
        self._numbers[id(mapped)] = number
        return memoryview(mapped)

    def give(self, block: memoryview) -> None:
        """Return a block to the pool: nobody uses it any more."""
        if id(block.obj) in self._numbers:
            self._free.append(block)

    def number(self, view: bytes | memoryview) -> int | None:
        """The number of the block that *view* is the beginning of; None if it is something else."""
        return self._numbers.get(id(view.obj)) if isinstance(view, memoryview) else None

    def close(self) -> None:
        """Free the memory. Blocks that are still in use stay valid until they are unreferenced."""
        self._free.clear()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class BlockReader:
    """The other process's side: the bytes of blocks, by their numbers."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._maps: dict[int, memoryview] = {}

    def view(self, number: int, length: int) -> memoryview:
        """The first *length* bytes of a block."""
        block = self._maps.get(number)
        if block is None:
            mapped = mmap.mmap(self._fd, BLOCK, prot=mmap.PROT_READ, offset=number * BLOCK)
            block = self._maps[number] = memoryview(mapped)
        return block[:length]
