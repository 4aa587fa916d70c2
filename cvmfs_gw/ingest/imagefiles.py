"""The files that an image consists of: in a folder, or in an archive that can be read from anywhere.

Both give the same: a file's length, and its bytes from its beginning to its end, by a path such as ``/index.json``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol

from cvmfs_gw.ingest.archive import normalized
from cvmfs_gw.ingest.errors import BadArchive, BadImage, SourceTooLarge
from cvmfs_gw.ingest.inputs import Readable, SeekableInput
from cvmfs_gw.ingest.tarfields import BLOCK
from cvmfs_gw.ingest.tarheader import members

_MAX_MEMBERS: Final = 100_000  # of an archive


class ImageFiles(Protocol):
    """What an image is read from, one file at a time. Raises :exc:`BadImage` for what is not there."""

    def has(self, path: str) -> bool:
        """Whether there is a file at *path*."""

    def size(self, path: str) -> int:
        """Bytes of the file at *path*."""

    @contextmanager
    def open(self, path: str) -> Iterator[Readable]:
        """The file at *path*, until the next is opened."""


class FolderFiles:
    """The files of a folder, such as an OCI layout that was never packed. Links may not lead out of it."""

    def __init__(self, folder: str) -> None:
        self._folder = os.path.realpath(folder)

    def has(self, path: str) -> bool:
        return self._status(path) is not None

    def size(self, path: str) -> int:
        status = self._status(path)
        if status is None:
            raise BadImage(f"{path[:200]} is not in the folder of the image")
        return status.st_size

    @contextmanager
    def open(self, path: str) -> Iterator[Readable]:
        size = self.size(path)
        with open(self._place(path), "rb", buffering=0) as file:
            yield _Window(file, size)

    def _place(self, path: str) -> str:
        return os.path.realpath(os.path.join(self._folder, path.lstrip("/")))

    def _status(self, path: str) -> os.stat_result | None:
        place = self._place(path)
        if os.path.commonpath((place, self._folder)) != self._folder:
            raise BadImage(f"{path[:200]} leads out of the folder of the image")
        try:
            status = os.stat(place)
        except FileNotFoundError:
            return None
        return status if stat.S_ISREG(status.st_mode) else None


@dataclass(frozen=True, slots=True)
class _Member:
    """A file within the archive: where it begins and how long it is, in bytes."""

    offset: int
    size: int


class ArchivedFiles:
    """The files of a plain tar archive. Raises :exc:`BadImage` and :exc:`SourceTooLarge`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._members = _index(file)

    def has(self, path: str) -> bool:
        return path in self._members

    def size(self, path: str) -> int:
        return self._member(path).size

    @contextmanager
    def open(self, path: str) -> Iterator[Readable]:
        member = self._member(path)
        self._file.seek(member.offset)
        yield _Window(self._file, member.size)

    def _member(self, path: str) -> _Member:
        member = self._members.get(path)
        if member is None:
            raise BadImage(f"{path[:200]} is not in the archive of the image")
        return member


def _index(file: BinaryIO) -> dict[str, _Member]:
    found: dict[str, _Member] = {}
    links: dict[str, str] = {}
    source = SeekableInput(file)
    try:
        for member in members(source):
            path = normalized(member.name)
            if stat.S_ISREG(member.mode) and not member.is_link and member.segments is None:
                found[path] = _Member(source.offset, member.size)
            elif stat.S_ISLNK(member.mode):
                # docker save makes layers that several images have links to one another's
                links[path] = os.path.normpath(os.path.join(os.path.dirname(path), member.link))
            elif member.is_link:
                links[path] = normalized(member.link)
            source.skip(member.data + -member.data % BLOCK)
            if len(found) + len(links) > _MAX_MEMBERS:
                raise SourceTooLarge("too many files in the archive of an image")
    except BadArchive as error:
        raise BadImage(f"no archive of an image: {error}") from error
    for path, target in links.items():
        if target in found:
            found.setdefault(path, found[target])
    return found


class _Window:
    """The next *size* bytes of a file, which nobody else reads meanwhile."""

    def __init__(self, file: Readable, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._left))
        if not data and self._left and size:
            raise BadImage("a file of the image ends early")
        self._left -= len(data)
        return data
