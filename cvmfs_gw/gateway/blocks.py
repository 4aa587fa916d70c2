"""Blocks of memory that bodies are read into, and that other processes can see.

::

    network ──▶ block ──▶ hash, file        no byte is copied on its way from one process to another

A block is used again and again. All lie in one file that is in memory only and has no name; it grows as blocks are
needed, and goes with the last process that has it. Where there are no such files blocks are this process's own.

Source: memfd_create(2).
"""

from __future__ import annotations

import mmap
import os
from typing import Final

BLOCK: Final = 1 << 20
"""Bytes in a block: as much as crosses to a thread or a process at once."""


class Blocks:
    """Makes blocks and takes them back. With *shared* false, or where that cannot be, they are the process's own."""

    def __init__(self, *, shared: bool = True) -> None:
        self.fd = os.memfd_create("cvmfs-gw-blocks") if shared and hasattr(os, "memfd_create") else -1
        """The file that blocks are parts of; -1 if there is none."""
        self._free: list[memoryview] = []
        self._maps: list[mmap.mmap] = []
        self._numbers: dict[int, int] = {}  # by the identity of the map

    def take(self) -> memoryview:
        """A block of :data:`BLOCK` bytes; nobody else has it. Raises ``OSError``."""
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
        """Take a block back: nobody reads it or writes to it any more."""
        if id(block.obj) in self._numbers:
            self._free.append(block)

    def number(self, view: bytes | memoryview) -> int | None:
        """Of which block *view* is the beginning; None if it is something else."""
        return self._numbers.get(id(view.obj)) if isinstance(view, memoryview) else None

    def close(self) -> None:
        """Give the memory back. Blocks that are still in use stay until they are forgotten."""
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
