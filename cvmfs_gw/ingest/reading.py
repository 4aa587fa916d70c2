"""Contents read: in pieces of equal length, or short files at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

from cvmfs_gw.ingest.items import Content, LocalFile

_PIECE: Final = 1 << 20


def pieces_of(content: Content, size: int) -> Iterator[bytes]:
    """The first *size* bytes of *content* in pieces of equal length, but for the last."""
    if isinstance(content, bytes):
        for at in range(0, size, _PIECE):
            yield content[at : at + _PIECE]
    elif isinstance(content, LocalFile):
        with open(content.path, "rb", buffering=0, opener=_open) as file:
            yield from _read_all(file.read, size)
    else:
        yield from _read_all(content.read, size)


def _read_all(read: Callable[[int], bytes | None], size: int) -> Iterator[bytes]:
    while size > 0:
        piece = read(min(_PIECE, size)) or b""
        while piece and len(piece) < min(_PIECE, size):
            more = read(min(_PIECE, size) - len(piece))
            if not more:
                break
            piece += more
        if not piece:
            return
        yield piece
        size -= len(piece)


def read_file(path: str, size: int) -> bytes:
    """The first *size* bytes of a file; fewer if it is shorter."""
    descriptor = _open(path)
    try:
        data = os.read(descriptor, size)
        while len(data) < size:
            more = os.read(descriptor, size - len(data))
            if not more:
                break
            data += more
        return data
    finally:
        os.close(descriptor)


def _open(path: str, flags: int = os.O_RDONLY) -> int:
    """Open what was a file when it was looked at: a link in its place is not followed, and no pipe is waited for."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
