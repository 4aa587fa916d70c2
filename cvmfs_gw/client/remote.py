"""A repository's storage over HTTP, with what is new kept in a local folder until it is uploaded."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence, Set
from typing import BinaryIO, Final

import urllib3

from cvmfs_gw.client.errors import GatewayUnreachable
from cvmfs_objstore.errors import ObjectNotFound
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.storage import Staged

_TIMEOUT: Final = urllib3.Timeout(connect=30, read=300)
_MAX_FILE: Final = 2 << 30


class RemoteStorage:
    """The storage protocol: reads from *url* what is not in *local*, writes to *local* only."""

    def __init__(self, url: str, local: LocalStorage) -> None:
        self._url = url.rstrip("/")
        self._local = local
        self._pool = urllib3.PoolManager(retries=urllib3.Retry(3, backoff_factor=0.2), timeout=_TIMEOUT)

    def close(self) -> None:
        """Drop all connections."""
        self._pool.clear()

    def open(self, path: str) -> BinaryIO:
        if self._local.exists(path):
            return self._local.open(path)
        return io.BytesIO(self._fetch("GET", path).data)

    def read(self, path: str) -> bytes:
        with self.open(path) as file:
            return file.read()

    def exists(self, path: str) -> bool:
        if self._local.exists(path):
            return True
        try:
            self._fetch("HEAD", path)
        except ObjectNotFound:
            return False
        return True

    def missing(self, paths: Iterable[str]) -> Set[str]:
        return {path for path in paths if not self.exists(path)}

    def size(self, path: str) -> int:
        if self._local.exists(path):
            return self._local.size(path)
        return int(self._fetch("HEAD", path).headers.get("Content-Length", "0"))

    def modified(self, path: str) -> float:
        return self._local.modified(path)

    def write(self, path: str, data: bytes) -> None:
        self._local.write(path, data)

    def put(self, path: str, data: bytes | bytearray | memoryview) -> bool:
        return self._local.put(path, data)

    def copy(self, path: str, target: str) -> None:
        self._local.write(target, self.read(path))

    def stage(self) -> Staged:
        return self._local.stage()

    def delete(self, path: str) -> None:
        self._local.delete(path)

    def touch(self, path: str) -> bool:
        return self._local.touch(path)

    def names(self, folder: str) -> Sequence[str]:
        return self._local.names(folder)

    def collect(
        self, folder: str, names: Sequence[str], before: float, *, pretend: bool = False
    ) -> Sequence[int | None]:
        return self._local.collect(folder, names, before, pretend=pretend)

    def list(self, prefix: str = "") -> Iterator[str]:
        """What is new: the server's files cannot be listed."""
        return self._local.list(prefix)

    def sync(self) -> None:
        self._local.sync()

    def clean(self) -> int:
        return self._local.clean()

    def _fetch(self, method: str, path: str) -> urllib3.BaseHTTPResponse:
        url = f"{self._url}/{path}"
        try:
            reply = self._pool.request(method, url)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise GatewayUnreachable(f"cannot read {url}: {error}") from error
        if reply.status == 404:
            raise ObjectNotFound(url)
        if reply.status != 200:
            raise GatewayUnreachable(f"cannot read {url}: HTTP {reply.status}")
        return reply
