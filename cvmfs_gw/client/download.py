"""Copying a part of a repository to the local disk.

Objects are fetched in parallel, also those of one large file; every one is verified. A file appears under its name
when it is complete. What is there with the same size and time is taken for the same, so that a copy that was
interrupted goes on where it was.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final

from cvmfs_gw.client.errors import ClientError, UntrustedRepository
from cvmfs_gw.client.reader import Part, RepositoryReader
from cvmfs_objstore.formats.entry import Entry, Kind, unpack_xattrs

JOBS: Final = 8
"""Objects that are fetched at once."""
_AHEAD: Final = 4 * JOBS
_PERMISSIONS: Final = 0o777


@dataclass(slots=True)
class DownloadReport:
    """What a download brought: files and bytes, what was there already, and paths that could not be copied."""

    files: int = 0
    size: int = 0
    kept: int = 0
    skipped: list[str] = field(default_factory=list)


class Download:
    """One copy. *progress* is told the plain bytes of every object that has come, from any thread.

    Permissions and times are kept; owners, set-user-id bits and special files if this process is root's and *owners*
    is wished. Raises :exc:`ClientError` and ``OSError``.
    """

    def __init__(
        self, reader: RepositoryReader, *, owners: bool = False, progress: Callable[[int], None] = lambda size: None
    ) -> None:
        self._reader, self._owners, self._progress = reader, owners, progress
        self.report = DownloadReport()
        self._links: dict[tuple[str, int], str] = {}

    def run(self, path: str, target: str) -> DownloadReport:
        """Copy what is at *path* to *target*: a file, a link, or a directory with all that is in it."""
        if os.path.isdir(target):
            target = os.path.realpath(target)  # a link to a directory is the directory, here and nowhere below
        directories: list[tuple[str, Entry]] = []
        with ThreadPoolExecutor(JOBS, "fetch") as threads:
            line = _Line(threads)
            try:
                for at, entry in self._items(path):
                    local = target + at[len(path) :]
                    if entry.is_directory:
                        _make_directory(local)
                        directories.append((local, entry))
                    else:
                        self._copy(at, local, entry, line)
                line.drain()
            except BaseException:
                line.cancel()
                raise
        for local, entry in reversed(directories):
            self._finish(local, entry, local)
        return self.report

    def _items(self, path: str) -> Iterator[tuple[str, Entry]]:
        top = self._reader.entry(path)
        yield path, top
        if top.is_directory:
            for at, entry in self._reader.walk(path):
                # Signed or not, a name must not lead out of the target.
                if entry.name in ("", ".", "..") or "/" in entry.name or "\0" in entry.name:
                    raise UntrustedRepository(f"{path}: no name for a file: {entry.name!r}")
                yield at, entry

    def _copy(self, path: str, local: str, entry: Entry, line: _Line) -> None:
        if entry.kind is Kind.SYMLINK:
            with _replacing(local) as new:
                os.symlink(entry.symlink, new)
                self._finish(new, entry, local)
        elif entry.kind is Kind.SPECIAL:
            if not self._owners:
                self.report.skipped.append(path)
                return
            with _replacing(local) as new:
                os.mknod(new, entry.mode, entry.size)
                self._finish(new, entry, local)
        elif entry.is_external:
            self.report.skipped.append(path)
        else:
            self._copy_file(path, local, entry, line)

    def _copy_file(self, path: str, local: str, entry: Entry, line: _Line) -> None:
        group = (os.path.dirname(local), entry.hardlink_group)
        first = self._links.setdefault(group, local) if entry.hardlink_group else local
        if first != local:
            line.drain()  # the other name must be there
            with _replacing(local) as new:
                os.link(first, new)
            return
        if _is_there(local, entry):
            self.report.kept += 1
            return
        self.report.files += 1
        self.report.size += entry.size
        parts = self._reader.parts(path, entry)
        new = f"{local}.cvmfs-get"
        with open(new, "wb") as file:
            file.truncate(entry.size)
        left, lock = len(parts), threading.Lock()

        def fetch(part: Part) -> None:
            nonlocal left
            with open(new, "r+b") as file:
                file.seek(part.offset)
                self._reader.fetch(part, file)
            self._progress(part.size)
            with lock:
                left -= 1
                last = not left
            if last:
                self._finish(new, entry, local)
                os.replace(new, local)

        for part in parts:
            line.add(lambda part=part: fetch(part))  # type: ignore[misc]

    def _finish(self, local: str, entry: Entry, shown: str) -> None:
        """Give *local*, which will be *shown*, what the entry says besides the content."""
        if self._owners:
            os.chown(local, entry.uid, entry.gid, follow_symlinks=False)
        if entry.kind is not Kind.SYMLINK:
            os.chmod(local, stat.S_IMODE(entry.mode) & (0o7777 if self._owners else _PERMISSIONS))
            for name, value in unpack_xattrs(entry.xattr).items():
                # not every file system has them, and not every process may set them
                with contextlib.suppress(OSError):
                    os.setxattr(local, name, value, follow_symlinks=False)
        moment = entry.mtime * 10**9 + (entry.mtimens or 0)
        os.utime(local, ns=(moment, moment), follow_symlinks=False)


def _make_directory(local: str) -> None:
    """A directory that we may write to; what else is there under that name goes."""
    try:
        status = os.lstat(local)
    except FileNotFoundError:
        os.makedirs(local)
        return
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(local)
        os.mkdir(local)
    elif status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
        os.chmod(local, stat.S_IMODE(status.st_mode) | stat.S_IRWXU)


def _is_there(local: str, entry: Entry) -> bool:
    try:
        status = os.lstat(local)
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(status.st_mode):
        raise ClientError(f"{local} is a directory, and a file in the repository")
    moment = entry.mtime * 10**9 + (entry.mtimens or 0)
    return stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == (entry.size, moment)


@contextlib.contextmanager
def _replacing(local: str) -> Iterator[str]:
    """A name for something new that then takes the place of *local*."""
    new = f"{local}.cvmfs-get"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    yield new
    os.replace(new, local)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)  # rename(2) does nothing for two names of one file


class _Line:
    """Jobs in threads, so many ahead and no more. The first that fails ends it."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._running: set[Future[None]] = set()

    def add(self, job: Callable[[], None]) -> None:
        while len(self._running) >= _AHEAD:
            self._collect()
        self._running.add(self._threads.submit(job))

    def drain(self) -> None:
        while self._running:
            self._collect()

    def cancel(self) -> None:
        for future in self._running:
            future.cancel()

    def _collect(self) -> None:
        done, self._running = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
