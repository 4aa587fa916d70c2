"""The storage driver for a local directory: ``CVMFS_UPSTREAM_STORAGE=local,...``.

Files are written to ``data/txn`` and renamed to their final path, so nobody sees a partial one. Objects are
not flushed one by one: a publish writes thousands of them and then calls :meth:`LocalStorage.sync` once,
before anything refers to them.

Small objects are written to unnamed files, which are then linked to their final path::

    open(O_TMPFILE)  write  linkat  close          four system calls; linkat fails if the object exists
    stat  open(O_EXCL)  write  close  rename       five, changing two folders: where O_TMPFILE is not supported

Source: open(2), linkat(2), rename(2), syncfs(2); the layout of ``data/``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import stat
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence, Set
from functools import partial
from typing import BinaryIO, Final

from cvmfs_objstore import folders, posix, staging
from cvmfs_objstore.errors import ObjectNotFound
from cvmfs_objstore.staging import StagedFile, unlink
from cvmfs_objstore.storage import STAGING, YOUNG_S, check_path

FILE_MODE: Final = 0o644

LINKED: Final = 1 << 16
"""Up to this size in bytes an object is written before checking whether it exists: the check costs more."""

LISTED: Final = 16
"""With this many paths per object folder, listing the folders may be cheaper than a stat(2) for each path."""
LISTED_FOR_ONE: Final = 4
"""Number of names that can be listed in the time of one stat(2)."""

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_UNNAMED: Final = os.O_WRONLY | getattr(os, "O_TMPFILE", 0) | os.O_CLOEXEC
_ABSENT: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class LocalStorage:
    """The storage protocol on the directory *root*, which must exist (see :meth:`create`).

    With *durable* false nothing is ever flushed: for tests and throw-away copies.

    Raises :exc:`FileNotFoundError` if there is no such directory, so that an unmounted file system is not mistaken
    for an empty repository.
    """

    def __init__(self, root: str, *, durable: bool = True) -> None:
        self.root = os.path.abspath(root)
        self.durable = durable
        self.pool = None
        self.opener = partial(LocalStorage, self.root, durable=False)
        # Kept open: syncfs reports a failed write-back only to descriptors that were open when it failed.
        self._fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._finalizer = weakref.finalize(self, os.close, self._fd)
        self._base = self.root + "/"
        self._staging = f"{self._base}{STAGING}/{staging.own_prefix()}"
        self._serial = itertools.count()
        self._chmod = posix.umask() & FILE_MODE != 0
        self._txn = self._base + STAGING
        self._unnamed = hasattr(os, "O_TMPFILE") and os.link in os.supports_follow_symlinks

    @classmethod
    def create(cls, root: str, *, durable: bool = True) -> LocalStorage:
        """Make the directory with all folders of a new repository, or whichever of them are missing.

        The 256 folders of ``data/`` are made in advance, since other tools rename into them without checking.
        """
        os.makedirs(os.path.dirname(os.path.abspath(root)), exist_ok=True)
        for folder in ("", "/data", f"/{STAGING}", "/stats", *(f"/data/{n:02x}" for n in range(256))):
            posix.make_dir(root + folder)
        return cls(root, durable=durable)

    def __repr__(self) -> str:
        return f"LocalStorage({self.root!r})"

    def close(self) -> None:
        """Close the directory's descriptor. Only :meth:`sync` needs it."""
        self._finalizer()

    # Reading

    def open(self, path: str) -> BinaryIO:
        try:
            return open(self._base + check_path(path), "rb")
        except _ABSENT:
            raise ObjectNotFound(path) from None

    def read(self, path: str) -> bytes:
        with self.open(path) as file:
            return file.read()

    def exists(self, path: str) -> bool:
        try:
            return stat.S_ISREG(os.stat(self._base + check_path(path)).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def missing(self, paths: Iterable[str]) -> Set[str]:
        missing = set(paths)
        if len(missing) >= LISTED * 256:
            self._discard_listed(missing)
        return {path for path in missing if not self.exists(path)}

    def _discard_listed(self, missing: set[str]) -> None:
        """Discard from *missing* what a listing of the object folders shows, while that is cheaper than stat(2)."""
        # Hashes are spread evenly, so all folders hold about the same number of objects.
        most = LISTED_FOR_ONE * len(missing) // 256
        for number in range(256):
            folder = f"data/{number:02x}"
            try:
                entries = os.scandir(self._base + folder)
            except (FileNotFoundError, NotADirectoryError):
                continue
            with entries:
                found = list(itertools.islice(entries, most))
                missing.difference_update([f"{folder}/{entry.name}" for entry in found if entry.is_file()])
            if len(found) == most:
                return

    def size(self, path: str) -> int:
        return self._stat(path).st_size

    def modified(self, path: str) -> float:
        return self._stat(path).st_mtime

    def now(self) -> float:
        # the file system's host sets the time, and a full disk does not prevent it
        try:
            os.utime(self._fd)
        except OSError as error:
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
                return time.time()  # nothing is written, so no time of another clock comes to be here
            raise
        return os.fstat(self._fd).st_mtime

    def list(self, prefix: str = "") -> Iterator[str]:
        if prefix:
            check_path(prefix)
        folders = [prefix]
        while folders:
            folder = folders.pop()
            try:
                entries = os.scandir(self._base + folder)
            except (FileNotFoundError, NotADirectoryError):
                continue
            with entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if path != STAGING:
                            folders.append(path)
                    elif entry.is_file():
                        yield path

    def _stat(self, path: str) -> os.stat_result:
        try:
            status = os.stat(self._base + check_path(path))
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectNotFound(path) from None
        if not stat.S_ISREG(status.st_mode):
            raise ObjectNotFound(path)
        return status

    # Writing

    def put(self, path: str, data: bytes | bytearray | memoryview) -> bool:
        target = self._base + check_path(path)
        if self._unnamed and len(data) <= LINKED:
            done = self._put_linked(target, data)
            if done is not None:
                return done
        if self._is_kept(target, len(data)):
            return False
        name, fd = self._create()
        try:
            try:
                written = os.write(fd, data)
                if written != len(data):
                    posix.write_all(fd, memoryview(data)[written:])
            finally:
                os.close(fd)
            self._rename(name, target)
        except BaseException:
            unlink(name)
            raise
        return True

    def _put_linked(self, target: str, data: bytes | bytearray | memoryview) -> bool | None:
        """:meth:`put` by way of an unnamed file; None if it must be done with a staged one."""
        # The hot path: a payload may have 100,000 small objects.
        try:
            fd = os.open(self._txn, _UNNAMED, FILE_MODE)
        except OSError as error:
            # ENOENT: the folder will be made. Others: not supported by the file system or kernel
            self._unnamed = error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
            return None
        try:
            if self._chmod:
                os.fchmod(fd, FILE_MODE)
            written = os.write(fd, data)
            if written != len(data):
                posix.write_all(fd, memoryview(data)[written:])
            # src_dir_fd makes Python call linkat(2), which can follow the symbolic link to the open file
            os.link(f"/proc/self/fd/{fd}", target, src_dir_fd=self._fd, follow_symlinks=True)
        except FileExistsError:
            # one of another length was cut off by a power failure and is replaced
            return False if self._is_kept(target, len(data)) else None
        except FileNotFoundError:
            if not os.path.exists("/proc/self/fd"):
                self._unnamed = False
            return None  # or a folder is missing
        finally:
            os.close(fd)
        return True

    def write(self, path: str, data: bytes) -> None:
        target = self._base + check_path(path)
        name, fd = self._create()
        try:
            try:
                posix.write_all(fd, memoryview(data))
                if self.durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            self._rename(name, target)
        except BaseException:
            unlink(name)
            raise
        if self.durable:
            posix.sync_dir(os.path.dirname(target))

    def copy(self, path: str, target: str) -> None:
        # A hard link will do: files are only ever replaced, never written to.
        name = self._staging + str(next(self._serial))
        try:
            os.link(self._base + check_path(path), name)
        except PermissionError:
            self.write(target, self.read(path))  # another user's, of which Linux lets nobody else make a second name
            return
        except _ABSENT:
            raise ObjectNotFound(path) from None
        new = self._base + check_path(target)
        try:
            self._rename(name, new)
        finally:
            # rename(2) does nothing for two names of one file.
            unlink(name)
        if self.durable:
            posix.sync_dir(os.path.dirname(new))

    def stage(self) -> StagedFile:
        """A file in ``data/txn``, durable after :meth:`sync` once it is published."""
        return StagedFile(*self._create(), self._publish)

    def delete(self, path: str) -> None:
        target = self._base + check_path(path)
        # not between a collector's look at the file and its removal: it might remove a new one of that name
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self._locked_folder(target):
            os.unlink(target)

    def touch(self, path: str) -> bool:
        return self._is_kept(self._base + check_path(path))

    def names(self, folder: str) -> Sequence[str]:
        try:
            return os.listdir(self._base + check_path(folder))
        except _ABSENT:
            return []

    def collect(
        self, folder: str, names: Iterable[str], before: float, *, pretend: bool = False, sizes: bool = True
    ) -> Sequence[int | None]:
        path = self._base + check_path(folder)
        try:
            with folders.locked(path, fcntl.LOCK_EX) as descriptor:
                # nothing was created, replaced or touched in an old folder, so no file in it need be looked at
                if not sizes and not pretend and os.fstat(descriptor).st_mtime < before - YOUNG_S:
                    return folders.remove(names, descriptor)
                return [folders.remove_if_older(name, before, descriptor, pretend) for name in names]
        except _ABSENT:
            return [None for _ in names]

    def _is_kept(self, target: str, size: int | None = None) -> bool:
        """Whether the file exists (with that size) and its modification time is, or could be made, recent."""
        try:
            status = os.stat(target)
            if size is not None and status.st_size != size:
                return False
            if status.st_mtime < time.time() - YOUNG_S:
                with self._locked_folder(target) as folder:
                    os.utime(folder)  # first: after a kill in between, the file is still old and this is done again
                    os.utime(target)
        except _ABSENT:
            return False
        except PermissionError:
            return False  # owned by another user: replaced with one of our own
        return True

    def _locked_folder(self, target: str) -> contextlib.AbstractContextManager[int]:
        """Keep collectors out of a file's folder; yields its descriptor."""
        return folders.locked(os.path.dirname(target), fcntl.LOCK_SH)

    def sync(self) -> None:
        if self.durable:
            posix.sync_file_system(self._fd)

    def clean(self) -> int:
        """See :func:`cvmfs_objstore.staging.remove_left_behind`."""
        return staging.remove_left_behind(self._txn, self.now())

    def _create(self) -> tuple[str, int]:
        name = self._staging + str(next(self._serial))
        try:
            fd = os.open(name, _NEW, FILE_MODE)
        except FileNotFoundError:
            self._make_dirs(os.path.dirname(name))
            fd = os.open(name, _NEW, FILE_MODE)
        if self._chmod:
            os.fchmod(fd, FILE_MODE)
        return name, fd

    def _publish(self, name: str, path: str) -> None:
        self._rename(name, self._base + check_path(path))

    def _rename(self, name: str, target: str) -> None:
        if os.path.lexists(target):
            # not between a collector's look at the old file and its removal
            with self._locked_folder(target):
                os.rename(name, target)
            return
        try:
            os.rename(name, target)
        except FileNotFoundError:
            self._make_dirs(os.path.dirname(target))
            os.rename(name, target)

    def _make_dirs(self, folder: str) -> None:
        """Make the folders between the root, which is never made here, and *folder*."""
        path = self.root
        for part in folder[len(self._base) :].split("/"):
            path = f"{path}/{part}"
            posix.make_dir(path)
