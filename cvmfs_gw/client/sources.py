"""What to publish, as people name it: a directory, a tar archive, or ``-`` for one on standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from cvmfs_gw.client.errors import ClientError
from cvmfs_gw.ingest.archive import ArchiveSource
from cvmfs_gw.ingest.directory import DirectorySource
from cvmfs_gw.ingest.items import Item, Source, Whiteout


class ArchiveFile:
    """A tar archive, plain or compressed, in the file at *path*, which is opened when its turn comes."""

    trust_times = False

    def __init__(self, path: str) -> None:
        self._path = path

    def items(self) -> Iterator[Item | Whiteout]:
        with open(self._path, "rb", buffering=0) as file:
            yield from ArchiveSource(file).items()


def open_source(name: str) -> Source:
    """The source that is called *name*. Raises :exc:`ClientError`."""
    if name == "-":
        return ArchiveSource(sys.stdin.buffer)
    if os.path.isdir(name):
        return DirectorySource(name)
    if not os.path.exists(name):
        raise ClientError(f"{name} is not there")
    return ArchiveFile(name)
