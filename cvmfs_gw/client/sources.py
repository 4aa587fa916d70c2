"""The names of sources on the command line.

::

    DIRECTORY        a directory
    FILE             a tar archive, plain or compressed; - is standard input
    image:FILE       a container image as `docker save` writes it, or as an OCI archive; image:- is standard input
    image:DIRECTORY  the same unpacked, as an OCI layout is (`skopeo copy ... oci:DIRECTORY`)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from cvmfs_gw.client.errors import ClientError
from cvmfs_gw.ingest.directory import DirectorySource
from cvmfs_gw.ingest.items import Item, Source, Whiteout

IMAGE: Final = "image:"


class FileSource:
    """What *read* makes of the file at *path* (``-``: standard input), which is opened when its turn comes."""

    trust_times = False

    def __init__(self, path: str, read: Callable[[BinaryIO], Source]) -> None:
        self._path, self._read = path, read

    def items(self) -> Iterator[Item | Whiteout]:
        if self._path == "-":
            yield from self._read(sys.stdin.buffer).items()
        else:
            with open(self._path, "rb", buffering=0) as file:
                yield from self._read(file).items()


def open_source(name: str, platform: str | None = None, tag: str | None = None) -> Source:
    """The source that is called *name*; of several images, the one for *platform* or called *tag*.

    Raises :exc:`ClientError`.
    """
    path = name.removeprefix(IMAGE)
    if path != "-" and not os.path.exists(path):
        raise ClientError(f"{path} is not there")
    if name.startswith(IMAGE):
        from cvmfs_gw.ingest.image import ImageSource  # of use to few, and takes a while

        if os.path.isdir(path):
            return ImageSource(path, platform=platform, tag=tag)
        return FileSource(path, lambda file: ImageSource(file, platform=platform, tag=tag))
    if os.path.isdir(path):
        return DirectorySource(path)
    from cvmfs_gw.ingest.archive import ArchiveSource

    return FileSource(path, ArchiveSource)
