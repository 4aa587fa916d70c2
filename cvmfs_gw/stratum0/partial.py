"""Uploads that arrive in several requests: each is a file on disk until its last part is there.

::

    <spool>/<fqrn>/partial/<id>.json    the path, and what is wanted of the body
    <spool>/<fqrn>/partial/<id>         what has arrived; its length is the offset at which the next part begins

Both survive a restart. The repository sees nothing of an upload before it is complete, and then a body like any other.
Every request for an upload replaces the one that is still sending a part: its connection is taken to be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Executor
from typing import Final, TypeVar
from urllib.parse import quote, unquote

import msgspec

from cvmfs_gw.engine.repository import replace_file
from cvmfs_gw.stratum0.content import Upload
from cvmfs_gw.stratum0.errors import ChecksumMismatch, NotThere, OffsetMismatch, Replaced, TooLarge, TryAgain
from cvmfs_objstore import posix

MAX_PARTIAL: Final = 64
"""Incomplete uploads to one repository; more are told to come again."""
MAX_AGE_S: Final = 86_400.0
"""How long an upload is kept after its last part has arrived, in seconds."""
_PIECE: Final = 1 << 20
_ID: Final = re.compile(r"[0-9a-f]{32}")

log = logging.getLogger(__name__)
T = TypeVar("T")


class Partial(msgspec.Struct, frozen=True):
    """An incomplete upload to *place*, a percent-encoded path in the repository."""

    place: str
    wanted: Upload

    @property
    def path(self) -> str:
        """The path in the repository."""
        return unquote(self.place, errors="surrogateescape")


class PartialUploads:
    """The incomplete uploads to one repository, in *folder*. Belongs to one event loop; disks keep *threads* busy."""

    def __init__(self, folder: str, threads: Executor, now: Callable[[], float] = time.time) -> None:
        """Finds the uploads that an earlier server left."""
        self._folder, self._threads, self._now = folder, threads, now
        self._known: dict[str, Partial] = {}
        self._sizes: dict[str, int] = {}
        self._running: dict[str, asyncio.Task[int]] = {}
        for name in _names(self._folder):
            upload, kind = os.path.splitext(name)
            if kind == ".json" and _ID.fullmatch(upload) and os.path.exists(self._file(upload)):
                try:
                    with open(os.path.join(self._folder, name), "rb") as file:
                        self._known[upload] = msgspec.json.decode(file.read(), type=Partial)
                    self._sizes[upload] = os.path.getsize(self._file(upload))
                except (OSError, msgspec.MsgspecError) as error:
                    log.error("cannot read the incomplete upload %s: %s", upload[:8], error)

    def find(self, upload: str) -> Partial:
        """The upload of that id; raises :exc:`NotThere`."""
        found = self._known.get(upload)
        if found is None:
            raise NotThere("there is no such incomplete upload (any more)")
        return found

    async def begin(self, path: str, wanted: Upload) -> str:
        """Begin an upload, which has no bytes yet; returns its id. Raises :exc:`TryAgain` and ``OSError``."""
        await self.clean()
        if len(self._known) >= MAX_PARTIAL:
            raise TryAgain("too many incomplete uploads")
        upload, partial = secrets.token_hex(16), Partial(quote(path, errors="surrogateescape"), wanted)
        self._known[upload] = partial
        try:
            await self._in_thread(self._create, upload, partial)
        except BaseException:
            del self._known[upload]
            raise
        return upload

    def _create(self, upload: str, partial: Partial) -> None:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        os.close(os.open(self._file(upload), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        replace_file(self._file(upload) + ".json", msgspec.json.encode(partial), 0o600)

    async def offset(self, upload: str) -> int:
        """How many bytes have arrived; no part is arriving any more."""
        await self._stop(upload)
        return self._sizes.get(upload, 0)

    async def append(
        self, upload: str, offset: int, chunks: AsyncIterator[bytes | memoryview], most: int, checksum: str = ""
    ) -> int:
        """Append *chunks*, which begin at *offset*; returns how many bytes there are then.

        If *chunks* break off, what has arrived stays, unless the part has a *checksum* (SHA-256, in hex). All uploads
        to the repository together have at most *most* bytes. Raises :exc:`NotThere`, :exc:`OffsetMismatch`,
        :exc:`TooLarge`, :exc:`ChecksumMismatch`, :exc:`Replaced`, ``OSError``, and what *chunks* raises.
        """
        await self._stop(upload)
        task = asyncio.create_task(self._append(upload, offset, chunks, most, checksum))
        self._running[upload] = task
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise Replaced from None
            await self._stop(upload)
            raise
        finally:
            if self._running.get(upload) is task:
                del self._running[upload]

    async def _append(
        self, upload: str, offset: int, chunks: AsyncIterator[bytes | memoryview], most: int, checksum: str
    ) -> int:
        hasher = hashlib.sha256() if checksum else None
        file = self._open(upload, offset)
        end, whole = offset, False
        try:
            async for chunk in chunks:
                if sum(self._sizes.values()) + len(chunk) > most:
                    raise TooLarge(f"more than {most} bytes in all incomplete uploads")
                end += len(chunk)
                self._sizes[upload] = end
                await self._in_thread(posix.write_all, file, memoryview(chunk))
                if hasher is not None:
                    hasher.update(chunk)
            if hasher is not None and hasher.hexdigest() != checksum:
                raise ChecksumMismatch(f"this part has the SHA-256 {hasher.hexdigest()}, not {checksum}")
            whole = True
            return end
        finally:
            self._sizes[upload] = await self._in_thread(_finish, file, None if whole or not checksum else offset)

    def _open(self, upload: str, offset: int) -> int:
        try:
            file = os.open(self._file(upload), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotThere("there is no such incomplete upload (any more)") from None
        size = os.fstat(file).st_size
        if size != offset:
            os.close(file)
            raise OffsetMismatch(size)
        return file

    async def _stop(self, upload: str) -> None:
        """Return when no part of the upload is arriving."""
        while (task := self._running.get(upload)) is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    async def read(self, upload: str, length: int) -> AsyncIterator[bytes]:
        """The first *length* bytes, whatever arrives meanwhile. Raises ``OSError``."""
        with await self._in_thread(lambda: open(self._file(upload), "rb", buffering=0)) as file:
            while length and (piece := await self._in_thread(file.read, min(length, _PIECE))):
                length -= len(piece)
                yield piece

    async def remove(self, upload: str) -> None:
        """Forget an upload and what has arrived of it; nothing happens if there is none."""
        await self._stop(upload)
        self._known.pop(upload, None)
        await self._in_thread(self._unlink, [upload + ".json", upload])
        self._sizes.pop(upload, None)

    async def clean(self) -> None:
        """Remove uploads of which nothing has arrived for :data:`MAX_AGE_S`."""
        for upload in await self._in_thread(self._old):
            if upload not in self._running:
                log.info("the incomplete upload %s was given up", upload[:8])
                await self.remove(upload)

    def _old(self) -> list[str]:
        oldest = self._now() - MAX_AGE_S
        found = {os.path.splitext(name)[0] for name in _names(self._folder)}
        return [upload for upload in found if self._changed(upload) < oldest]

    def _changed(self, upload: str) -> float:
        for name in (self._file(upload), self._file(upload) + ".json"):
            with contextlib.suppress(FileNotFoundError):
                return os.stat(name).st_mtime
        return self._now()

    def _unlink(self, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._folder, name))

    def _file(self, upload: str) -> str:
        return os.path.join(self._folder, upload)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """The result of *work* in a thread, which has ended also if whoever waits for it is cancelled."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _finish(file: int, length: int | None) -> int:
    """Make a file durable and close it; *length*: cut it off there first. Returns its length."""
    try:
        if length is not None:
            os.ftruncate(file, length)
        os.fsync(file)
        return os.fstat(file).st_size
    finally:
        os.close(file)
