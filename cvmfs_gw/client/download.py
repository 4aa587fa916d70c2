"""Copying a part of a repository to the local disk.

Objects are fetched in parallel, also those of a single large file; every one is verified. A file appears under its name
only when it is complete. An existing file of the same size and time is assumed to be the same, so that an interrupted
copy can be continued. Hard links are preserved.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cvmfs_gw.client.errors import UntrustedRepository
from cvmfs_gw.client.localtree import NewFile, dress, finish_directory, is_there, make_directory, replacing
from cvmfs_gw.client.reader import Part, RepositoryReader
from cvmfs_objstore.formats.entry import Entry, Kind

JOBS: Final = 8
"""Objects that are fetched at once."""
_AHEAD: Final = 4 * JOBS


class Skipped(NamedTuple):
    """A path of the repository that was not copied, or not all of it, and why."""

    path: str
    why: str


@dataclass(slots=True)
class DownloadReport:
    """What a download brought: files and bytes, what was there already, and what could not be copied."""

    files: int = 0
    size: int = 0
    kept: int = 0
    skipped: list[Skipped] = field(default_factory=list)


class Download:
    """One copy. *progress* is called with the plain bytes of every object that has arrived, from any thread.

    Permissions, times, pipes and sockets are kept; owners, set-user-id bits and devices only with *owners*, which needs
    root. Raises :exc:`ClientError` and ``OSError``.
    """

    def __init__(
        self, reader: RepositoryReader, *, owners: bool = False, progress: Callable[[int], None] = lambda size: None
    ) -> None:
        self._reader, self._owners, self._progress = reader, owners, progress
        self.report = DownloadReport()
        self._firsts: dict[tuple[str, int], str] = {}
        self._names: list[tuple[str, str]] = []
        self._new: set[NewFile] = set()

    def run(self, path: str, target: str) -> DownloadReport:
        """Copy what is at *path* to *target*: a file, a link, or a directory with all that is in it."""
        if os.path.isdir(target):
            target = os.path.realpath(target)  # a link to a directory is the directory, here and nowhere below
        directories: list[tuple[str, str, Entry]] = []
        try:
            with ThreadPoolExecutor(JOBS, "fetch") as threads:
                line = _Line(threads)
                try:
                    for at, entry in self._items(path):
                        local = target + at[len(path) :]
                        if entry.is_directory:
                            make_directory(local)
                            directories.append((at, local, entry))
                        else:
                            self._copy(at, local, entry, line)
                    line.drain()
                except BaseException:
                    line.cancel()
                    raise
        finally:
            for new in self._new:
                new.discard()
        for first, local in self._names:
            with replacing(local) as name:
                os.link(first, name, follow_symlinks=False)
        for at, local, entry in reversed(directories):
            self._note(at, finish_directory(local, entry, owners=self._owners))
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
            with replacing(local) as new:
                os.symlink(entry.symlink, new)
                dress(new, entry, owners=self._owners)
        elif entry.kind is Kind.SPECIAL:
            if not self._owners and not (stat.S_ISFIFO(entry.mode) or stat.S_ISSOCK(entry.mode)):
                self.report.skipped.append(Skipped(path, "a device; root can make it, with owners"))
                return
            with replacing(local) as new:
                os.mknod(new, stat.S_IFMT(entry.mode) | 0o600, entry.size)
                self._note(path, dress(new, entry, owners=self._owners))
        elif not self._reader.has_content(entry):
            self.report.skipped.append(Skipped(path, "its content is on an external server, and no URL is known"))
        else:
            self._copy_file(path, local, entry, line)

    def _copy_file(self, path: str, local: str, entry: Entry, line: _Line) -> None:
        if entry.hardlink_group:
            first = self._firsts.setdefault((os.path.dirname(local), entry.hardlink_group), local)
            if first != local:
                self._names.append((first, local))  # when the first is there
                return
        if is_there(local, entry):
            self.report.kept += 1
            return
        self.report.files += 1
        self.report.size += entry.size
        parts = self._reader.parts(path, entry)
        new = NewFile(local, entry.size)
        self._new.add(new)
        left, lock = len(parts), threading.Lock()

        def fetch(part: Part) -> None:
            nonlocal left
            self._reader.fetch(part, new.at(part.offset))
            self._progress(part.size)
            with lock:
                left -= 1
                last = not left
            if last:
                self._note(path, new.finish(entry, owners=self._owners))
                self._new.discard(new)

        for part in parts:
            line.add(lambda part=part: fetch(part))  # type: ignore[misc]

    def _note(self, path: str, lost: list[str]) -> None:
        if lost:
            self.report.skipped.append(Skipped(path, f"cannot be set here: {', '.join(lost)}"))


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
