"""Where the copy of a repository goes: a folder, a tar archive, hard links, or nowhere as it stays where it is.

Whoever copies looks whether an object is there, adds it if not, and writes the files that name all else at the end.
Objects are hashed on their way.
"""

from __future__ import annotations

import errno
import os
import tarfile
from concurrent.futures import Executor
from typing import BinaryIO, Protocol

from cvmfs_gw.engine.errors import ConfigurationError
from cvmfs_objstore.compression import PIECE
from cvmfs_objstore.errors import ObjectCorrupt, ObjectNotFound
from cvmfs_objstore.hashes import ContentHash
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.storage import Storage


class Target(Protocol):
    """What a copy is written to. Paths are those of a repository's storage."""

    def threads(self, source: Storage) -> Executor | None:
        """Where objects of *source* may be added side by side; None: one after the other."""

    def has(self, name: ContentHash, size: int) -> bool:
        """Whether the object is there already, with that size."""

    def add(self, name: ContentHash, size: int, file: BinaryIO) -> None:
        """Copy an object; raises :exc:`ObjectCorrupt` if it is not what it is called."""

    def write(self, path: str, data: bytes) -> None:
        """Write a file that changes, after all that was written before."""


class StorageTarget:
    """A copy in another storage."""

    def __init__(self, storage: Storage) -> None:
        self._target = storage
        self._synced = False

    def close(self) -> None:
        """Nothing to let go of."""

    def threads(self, source: Storage) -> Executor | None:
        return source.pool or self._target.pool

    def has(self, name: ContentHash, size: int) -> bool:
        try:
            return self._target.size(name.path) == size
        except ObjectNotFound:
            return False

    def add(self, name: ContentHash, size: int, file: BinaryIO) -> None:
        self._synced = False
        hasher = name.algorithm.new()
        with self._target.stage() as staged:
            while data := file.read(PIECE):
                hasher.update(data)
                staged.write(data)
            _compare(name, hasher.digest())
            staged.publish(name.path)

    def write(self, path: str, data: bytes) -> None:
        if not self._synced:
            self._target.sync()  # objects are there before anything names them
            self._synced = True
        self._target.write(path, data)


class FolderTarget(StorageTarget):
    """A copy in a folder, which is made."""

    def __init__(self, folder: str) -> None:
        self._storage = LocalStorage.create(folder)
        super().__init__(self._storage)

    def close(self) -> None:
        self._storage.close()


class LinkTarget(FolderTarget):
    """A folder on the file system of *source*, a storage: objects are hard links, which take no room and little time.

    With *trust* they are not read.
    """

    def __init__(self, folder: str, source: str, *, trust: bool = False) -> None:
        super().__init__(folder)
        self._source, self._trust = source, trust

    def add(self, name: ContentHash, size: int, file: BinaryIO) -> None:
        if not self._trust:
            verify(name, file)
        self._synced = False
        link = os.path.join(self._storage.root, name.path)
        try:
            try:
                os.link(os.path.join(self._source, name.path), link)
            except FileExistsError:  # of another size: what is there is not it
                os.unlink(link)
                os.link(os.path.join(self._source, name.path), link)
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                raise ConfigurationError(f"{self._source} cannot be linked to: {error.strerror}; copy it") from error
            raise


class InPlace:
    """No copy: the objects are where they shall be. With *trust* they are not read."""

    def __init__(self, *, trust: bool = False) -> None:
        self._trust = trust

    def close(self) -> None:
        """Nothing to let go of."""

    def threads(self, source: Storage) -> Executor | None:
        return source.pool

    def has(self, name: ContentHash, size: int) -> bool:
        return self._trust

    def add(self, name: ContentHash, size: int, file: BinaryIO) -> None:
        verify(name, file)

    def write(self, path: str, data: bytes) -> None:
        """It is there."""


class TarTarget:
    """A copy as a tar archive that is written from its beginning to its end."""

    def __init__(self, file: BinaryIO, now: float) -> None:
        self._archive = tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._now = now

    def close(self) -> None:
        """Write the archive's end."""
        self._archive.close()

    def threads(self, source: Storage) -> Executor | None:
        return None

    def has(self, name: ContentHash, size: int) -> bool:
        return False

    def add(self, name: ContentHash, size: int, file: BinaryIO) -> None:
        verify(name, file)  # before, as an archive takes nothing back
        file.seek(0)
        self._archive.addfile(self._info(name.path, size), file)

    def write(self, path: str, data: bytes) -> None:
        info = self._info(path, len(data))
        self._archive.addfile(info, _Bytes(data))

    def _info(self, path: str, size: int) -> tarfile.TarInfo:
        info = tarfile.TarInfo(path)
        info.size, info.mtime, info.mode = size, int(self._now), 0o644
        return info


class _Bytes:
    """Bytes as a file, for an archive."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def read(self, size: int = -1, /) -> bytes:
        size = len(self._data) if size < 0 else size
        found, self._data = bytes(self._data[:size]), self._data[size:]
        return found


def verify(name: ContentHash, file: BinaryIO) -> None:
    """Read an object to its end; raises :exc:`ObjectCorrupt` if it is not what it is called."""
    hasher = name.algorithm.new()
    while data := file.read(PIECE):
        hasher.update(data)
    _compare(name, hasher.digest())


def _compare(name: ContentHash, digest: bytes) -> None:
    if digest != name.digest:
        raise ObjectCorrupt(f"{name} has the content of {digest.hex()}")
