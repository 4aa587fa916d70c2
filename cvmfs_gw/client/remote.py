"""A repository's storage over HTTP; new objects are kept locally until they are uploaded."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from typing import BinaryIO, Final, Protocol

import urllib3

from cvmfs_gw.client.errors import GatewayUnreachable
from cvmfs_gw.client.net import connections, why
from cvmfs_objstore.compression import PIECE
from cvmfs_objstore.errors import ObjectNotFound
from cvmfs_objstore.storage import Staged

_READ_S: Final = 120.0
_TRIES: Final = 4
_PAUSE_S: Final = 0.2


class New(Protocol):
    """Where new objects are kept: a storage, or a :class:`cvmfs_gw.client.spool.Spool`."""

    def exists(self, path: str) -> bool: ...
    def size(self, path: str) -> int: ...
    def open(self, path: str) -> BinaryIO: ...
    def put(self, path: str, data: bytes | bytearray | memoryview, /) -> bool: ...
    def stage(self) -> Staged: ...


class RemoteStorage:
    """The storage protocol: reads from *url* what is not in *local*, and puts new objects into *local*.

    There is nothing else that one could do with a server's files, and the rest raises ``io.UnsupportedOperation``.

    Files are streamed. A connection that breaks is made again, and the file read on where it was. Without *local*
    there is nothing to write to. Raises :exc:`GatewayUnreachable` where the server is.
    """

    def __init__(self, url: str, local: New | None = None) -> None:
        self.opener = None
        self.pool = None  # what is put is put into *local*
        self._url = url.rstrip("/")
        self._there = local
        self._pool = connections(url, read_s=_READ_S, tries=_TRIES)
        self.closed = False

    def close(self) -> None:
        """Drop all connections; what other threads are reading ends."""
        self.closed = True
        self._pool.clear()

    @property
    def _local(self) -> New:
        if self._there is None:
            raise _unsupported()
        return self._there

    def _has(self, path: str) -> bool:
        return self._there is not None and self._there.exists(path)

    def open(self, path: str) -> BinaryIO:
        if self._has(path):
            return self._local.open(path)
        return io.BufferedReader(_Body(self, path), PIECE)

    def read(self, path: str) -> bytes:
        with self.open(path) as file:
            return file.read()

    def exists(self, path: str) -> bool:
        if self._has(path):
            return True
        try:
            self.fetch("HEAD", path).release_conn()
        except ObjectNotFound:
            return False
        return True

    def missing(self, paths: Iterable[str]) -> Set[str]:
        return {path for path in paths if not self.exists(path)}

    def size(self, path: str) -> int:
        if self._has(path):
            return self._local.size(path)
        reply = self.fetch("HEAD", path)
        reply.release_conn()
        return int(reply.headers.get("Content-Length", "0"))

    def put(self, path: str, data: bytes | bytearray | memoryview) -> bool:
        return self._local.put(path, data)

    def stage(self) -> Staged:
        return self._local.stage()

    def modified(self, path: str) -> float:
        raise _unsupported()

    def now(self) -> float:
        raise _unsupported()

    def write(self, path: str, data: bytes) -> None:
        raise _unsupported()

    def copy(self, path: str, target: str) -> None:
        raise _unsupported()

    def delete(self, path: str) -> None:
        raise _unsupported()

    def touch(self, path: str) -> bool:
        raise _unsupported()

    def names(self, folder: str) -> Sequence[str]:
        raise _unsupported()

    def collect(
        self, folder: str, names: Iterable[str], before: float, *, pretend: bool = False, sizes: bool = True
    ) -> Sequence[int | None]:
        raise _unsupported()

    def list(self, prefix: str = "") -> Iterator[str]:
        raise _unsupported()

    def open_range(self, path: str, start: int, end: int | None = None) -> BinaryIO:
        """The bytes of a file of the server from *start* up to *end* or, where that is None, to its end."""
        return io.BufferedReader(_Body(self, path, start, end), PIECE)

    def sync(self) -> None:
        raise _unsupported()

    def clean(self) -> int:
        raise _unsupported()

    def fetch(self, method: str, path: str, start: int = 0, end: int | None = None) -> urllib3.BaseHTTPResponse:
        """The reply to a request for the file from byte *start* on and up to *end*, its body not yet read.

        Raises :exc:`ObjectNotFound` and :exc:`GatewayUnreachable`.
        """
        url = f"{self._url}/{path}"
        headers = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if start or end else None
        try:
            reply = self._pool.request(method, url, headers=headers, preload_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise GatewayUnreachable(f"cannot read {url}: {why(error)}") from error
        if reply.status in (200, 206):
            return reply
        reply.drain_conn()
        reply.release_conn()
        if reply.status == 404:
            raise ObjectNotFound(url)
        raise GatewayUnreachable(f"cannot read {url}: HTTP {reply.status}")


class _Body(io.RawIOBase):
    """What a server has of a file from *start* up to *end*, as a file."""

    def __init__(self, storage: RemoteStorage, path: str, start: int = 0, end: int | None = None) -> None:
        self._storage, self._path = storage, path
        self._position, self._end = start, end
        self._reply: urllib3.BaseHTTPResponse | None = self._again()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        wanted = len(buffer) if self._end is None else min(len(buffer), self._end - self._position)
        if not wanted:
            return 0
        for pause in (*(_PAUSE_S * 2**n for n in range(_TRIES - 1)), None):
            if self._storage.closed:
                raise GatewayUnreachable(f"{self._path} is no longer read")
            try:
                self._reply = self._reply or self._again()
                data = self._reply.read(wanted, decode_content=False)
                break
            except (urllib3.exceptions.HTTPError, OSError) as error:
                if pause is None:
                    raise GatewayUnreachable(f"cannot read {self._path} to its end: {why(error)}") from error
                self._drop()
                time.sleep(pause)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _again(self) -> urllib3.BaseHTTPResponse:
        """The body from where it is wanted next: the beginning, or where it was cut off."""
        reply = self._storage.fetch("GET", self._path, self._position, self._end)
        left = self._position if reply.status == 200 else 0  # the server knows no ranges
        while left and (skipped := reply.read(min(left, PIECE), decode_content=False)):
            left -= len(skipped)
        return reply

    def _drop(self) -> None:
        if self._reply is not None:
            # A connection with a body half read is of no use for the next request.
            if self._reply.length_remaining:
                self._reply.close()
            self._reply.release_conn()
            self._reply = None

    def close(self) -> None:
        self._drop()
        super().close()


def _unsupported() -> io.UnsupportedOperation:
    return io.UnsupportedOperation("a server's files are only read")
