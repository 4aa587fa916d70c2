"""A storage driver on an S3 bucket: what ``CVMFS_UPSTREAM_STORAGE=S3,<temporary folder>,<prefix>@<s3.conf>`` names.

A repository's files are the keys ``<prefix>/.cvmfspublished``, ``<prefix>/data/ab/cdef...``. A key has its old content
or its new one, and what S3 has acknowledged is durable, so nothing is renamed and nothing is left to ``sync``.

S3 has no locks. Who makes an object young and who collects old ones work on the same host, so the locks of folders
(see :mod:`cvmfs_objstore.folders`) are empty folders below the repository's temporary one.

::

    put, small     PUT if none is there            one request; S3 says whether one was there
    put, large     HEAD, then PUT                  as the body would be sent for nothing
    touch          PUT a copy of it onto itself    S3 has no other way to change the time of an object
    stage          a file without a name in the temporary folder; on publish one PUT, or an upload in parts
    open           GET of the first window; the next ones when they are read, if it is still the same object

Times are S3's, in whole seconds: of the header ``Date`` and of ``Last-Modified``.

Source: the API reference of Amazon S3 (conditional writes, CopyObject, ListObjectsV2, multipart upload); names, types
and cache headers of keys: those that deployed publishers give.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
from itertools import islice
from types import TracebackType
from typing import BinaryIO, Final
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from cvmfs_objstore import folders
from cvmfs_objstore.errors import InvalidPath, ObjectNotFound
from cvmfs_objstore.s3conf import S3Settings
from cvmfs_objstore.s3http import Bucket, Response, error_code
from cvmfs_objstore.storage import YOUNG_S, check_path

WINDOW: Final = 4 << 20
"""Bytes that are read at once."""
ASKED: Final = 256 << 10
"""From so many bytes on an object is asked for before it is sent."""
PART: Final = 16 << 20
"""Bytes of one part of a large object; what is not longer than two goes in one request."""
MOST_PARTS: Final = 10_000
LARGEST_COPY: Final = 5 << 30
"""What is larger is copied in parts."""
IN_MEMORY: Final = 512 << 10
"""Staged files of up to so many bytes are not written to the temporary folder."""
ABANDONED_S: Final = 24 * 3600.0
"""An upload in parts that was begun so many seconds ago and has not ended counts as left behind."""
LOCKS: Final = ".gw-locks"
_TOGETHER: Final = 64


class S3Storage:
    """The storage protocol on the keys of a bucket that begin with *prefix* and a slash.

    *folder* is that of temporary files and locks, which is made.
    """

    def __init__(self, settings: S3Settings, prefix: str, folder: str) -> None:
        self.settings, self.prefix, self.folder = settings, prefix, folder
        self.opener = partial(shared_storage, settings, prefix, folder)
        self._bucket = Bucket(settings)
        self._base = prefix + "/"
        self._conditional = True
        self.pool = ThreadPoolExecutor(settings.connections, "s3")
        """Threads for requests that nobody waits for one by one. What runs in them must not wait for others in it."""

    def __repr__(self) -> str:
        return f"S3Storage({self.settings.url + self.prefix!r})"

    def close(self) -> None:
        """End what is under way, and all connections."""
        self.pool.shutdown()
        self._bucket.close()

    # Reading

    def open(self, path: str) -> BinaryIO:
        key = self._key(path)
        first = self._bucket.request("GET", key, headers={"Range": f"bytes=0-{WINDOW - 1}"}, accept=(404, 416))
        if first.status == 416:  # of nothing there is no range
            return io.BytesIO()
        self._check_found(first, path)
        size = int(first.headers.get("Content-Range", "").rpartition("/")[2] or len(first.data))
        if size <= len(first.data):
            return io.BytesIO(first.data)

        def window(start: int, end: int) -> bytes:
            headers = {"Range": f"bytes={start}-{end - 1}", "If-Match": first.headers.get("ETag", "*")}
            return self._bucket.request("GET", key, headers=headers).data

        return io.BufferedReader(_Windows(window, size, first.data), 1 << 16)

    def read(self, path: str) -> bytes:
        answer = self._bucket.request("GET", self._key(path), accept=(404,))
        self._check_found(answer, path)
        return answer.data

    def exists(self, path: str) -> bool:
        return self._head(path) is not None

    def missing(self, paths: Iterable[str]) -> Set[str]:
        wanted = [*set(paths)]
        return {path for path, there in zip(wanted, self.pool.map(self.exists, wanted), strict=True) if not there}

    def size(self, path: str) -> int:
        return _size(self._found(path))

    def modified(self, path: str) -> float:
        return _modified(self._found(path))

    def now(self) -> float:
        return _date(self._bucket.request("HEAD", accept=(403, 404, 405)))

    def names(self, folder: str) -> Sequence[str]:
        prefix = self._key(folder) + "/"
        return [key[len(prefix) :].rstrip("/") for key in self._keys(prefix, {"delimiter": "/"})]

    def list(self, prefix: str = "") -> Iterator[str]:
        begin = self._key(prefix) + "/" if prefix else self._base
        for key in self._keys(begin, {}):
            yield key[len(self._base) :]

    def _keys(self, prefix: str, query: Mapping[str, str]) -> Iterator[str]:
        """The keys that begin so; with a delimiter those up to it once, too."""
        query = {"list-type": "2", "encoding-type": "url", "prefix": prefix, **query}
        while True:
            page = ElementTree.fromstring(self._bucket.request("GET", query=query).data)
            for tag in ("{*}Contents/{*}Key", "{*}CommonPrefixes/{*}Prefix"):
                for found in page.iterfind(tag):
                    yield unquote(found.text or "")
            token = page.findtext("{*}NextContinuationToken")
            if not token:
                return
            query = {**query, "continuation-token": token}

    def _head(self, path: str) -> Response | None:
        answer = self._bucket.request("HEAD", self._key(path), accept=(404,))
        return answer if answer.status != 404 else None

    def _found(self, path: str) -> Response:
        answer = self._head(path)
        if answer is None:
            raise ObjectNotFound(path)
        return answer

    @staticmethod
    def _check_found(answer: Response, path: str) -> None:
        if answer.status == 404:
            if error_code(answer) == "NoSuchBucket":
                raise FileNotFoundError(2, "the S3 bucket does not exist")  # not an empty repository
            raise ObjectNotFound(path)

    # Writing

    def write(self, path: str, data: bytes) -> None:
        self._put(self._key(path), data)

    def put(self, path: str, data: bytes | bytearray | memoryview) -> bool:
        key, data = self._key(path), bytes(data)
        with self._locked(path, fcntl.LOCK_SH):
            if self._conditional and not (self.settings.peek and len(data) > ASKED):
                answer = self._put(key, data, {"If-None-Match": "*"}, accept=(409, 412, 501))
                if answer.status < 300:
                    return True
                # an older server does not know the condition
                self._conditional = answer.status != 501
            if self._is_kept(path, len(data)):
                return False
            self._put(key, data)
            return True

    def copy(self, path: str, target: str) -> None:
        size = self.size(path)
        if not self._copied(path, self._key(target), size):
            raise ObjectNotFound(path)

    def stage(self) -> StagedUpload:
        os.makedirs(self.folder, exist_ok=True)
        return StagedUpload(tempfile.SpooledTemporaryFile(IN_MEMORY, dir=self.folder), self._publish)

    def delete(self, path: str) -> None:
        key = self._key(path)
        with self._locked(path, fcntl.LOCK_SH):
            self._bucket.request("DELETE", key, accept=(404,))

    def touch(self, path: str) -> bool:
        check_path(path)
        with self._locked(path, fcntl.LOCK_SH):
            return self._is_kept(path)

    def collect(
        self, folder: str, names: Iterable[str], before: float, *, pretend: bool = False, sizes: bool = True
    ) -> Sequence[int | None]:
        check_path(folder)
        done: list[int | None] = []
        names = iter(names)
        with self._locked(f"{folder}/x", fcntl.LOCK_EX):
            while some := [*islice(names, _TOGETHER)]:
                paths = [f"{folder}/{folders.check_name(name)}" for name in some]
                done += self.pool.map(lambda path: self._collect(path, before, pretend), paths)
        return done

    def _collect(self, path: str, before: float, pretend: bool) -> int | None:
        try:
            found = self._head(path)
        except InvalidPath:
            return None  # "." and the like, which no object is called
        # written in the second that began then: it may be up to a second younger
        if found is None or _modified(found) + 1 > before:
            return None
        if not pretend:
            self._bucket.request("DELETE", self._key(path), accept=(404,))
        return _size(found)

    def sync(self) -> None:
        """S3 has made durable what it has acknowledged."""

    def clean(self) -> int:
        """Give up uploads in parts that were left behind; returns how many. Staged files have no names."""
        oldest, removed = self.now() - ABANDONED_S, 0
        query = {"uploads": "", "prefix": self._base}
        answer = self._bucket.request("GET", query=query, accept=(403, 405, 501))
        if answer.status != 200:
            return 0  # who may publish need not be allowed to know of uploads
        page = ElementTree.fromstring(answer.data)
        for upload in page.iterfind("{*}Upload"):
            begun = upload.findtext("{*}Initiated", "")
            if begun and _iso(begun) < oldest:
                query = {"uploadId": upload.findtext("{*}UploadId", "")}
                self._bucket.request("DELETE", upload.findtext("{*}Key", ""), query=query, accept=(404,))
                removed += 1
        return removed

    def _is_kept(self, path: str, size: int | None = None) -> bool:
        """Whether an object (of that size) is there and could be made young."""
        found = self._head(path)
        if found is None or (size is not None and _size(found) != size):
            return False
        if _modified(found) >= _date(found) - YOUNG_S:
            return True
        return self._copied(path, self._key(path), _size(found))

    def _put(
        self, key: str, data: bytes, headers: Mapping[str, str] | None = None, accept: tuple[int, ...] = ()
    ) -> Response:
        return self._bucket.request(
            "PUT", key, headers={**self._kind(key), **(headers or {})}, body=data, accept=accept
        )

    def _copied(self, path: str, target: str, size: int) -> bool:
        """Have S3 copy an object; returns whether it was there."""
        source = {"x-amz-copy-source": quote(f"/{self.settings.bucket}/{self._key(path)}")}
        if size > LARGEST_COPY:

            def copy_part(number: int, start: int, end: int, query: Mapping[str, str]) -> str:
                headers = {**source, "x-amz-copy-source-range": f"bytes={start}-{end - 1}"}
                answer = self._bucket.request("PUT", target, query=query, headers=headers)
                return ElementTree.fromstring(answer.data).findtext("{*}ETag", "")

            self._in_parts(target, size, LARGEST_COPY // 8, copy_part, contextlib.nullcontext())
            return True
        headers = {**self._kind(target), **source, "x-amz-metadata-directive": "REPLACE"}
        return self._bucket.request("PUT", target, headers=headers, accept=(404,)).status != 404

    def _publish(self, file: tempfile.SpooledTemporaryFile[bytes], path: str) -> None:
        key, size = self._key(path), file.seek(0, os.SEEK_END)
        lock = self._locked(path, fcntl.LOCK_SH)
        file.seek(0)
        if size <= 2 * PART:
            with lock:
                self._put(key, file.read())
            return

        def send(number: int, start: int, end: int, query: Mapping[str, str]) -> str:
            return self._bucket.request("PUT", key, query=query, body=file.read(end - start)).headers.get("ETag", "")

        self._in_parts(key, size, max(PART, -(-size // MOST_PARTS)), send, lock)

    def _in_parts(
        self,
        key: str,
        size: int,
        length: int,
        send: Callable[[int, int, int, Mapping[str, str]], str],
        lock: contextlib.AbstractContextManager[object],
    ) -> None:
        """Write an object by its parts, each of which *send* gives to S3; it comes to be at the end, under *lock*."""
        answer = self._bucket.request("POST", key, query={"uploads": ""}, headers=self._kind(key))
        upload = ElementTree.fromstring(answer.data).findtext("{*}UploadId", "")
        try:
            parts = ElementTree.Element("CompleteMultipartUpload")
            for number, start in enumerate(range(0, size, length), 1):
                query = {"partNumber": str(number), "uploadId": upload}
                part = ElementTree.SubElement(parts, "Part")
                ElementTree.SubElement(part, "PartNumber").text = str(number)
                ElementTree.SubElement(part, "ETag").text = send(number, start, min(start + length, size), query)
            with lock:
                self._bucket.request("POST", key, query={"uploadId": upload}, body=ElementTree.tostring(parts))
        except BaseException:
            with contextlib.suppress(OSError):
                self._bucket.request("DELETE", key, query={"uploadId": upload}, accept=(404,))
            raise

    def _kind(self, key: str) -> dict[str, str]:
        """The headers that a key is written with, by which web servers and proxies go."""
        mutable = key.rpartition("/")[2].startswith(".cvmfs")
        headers = {
            "Content-Type": "application/x-cvmfs" if mutable else "application/octet-stream",
            "Cache-Control": "max-age=61" if mutable else "max-age=259200",
        }
        return headers | ({"x-amz-acl": self.settings.acl} if self.settings.acl else {})

    def _key(self, path: str) -> str:
        key = self._base + check_path(path)
        if not key.isascii():
            try:
                key.encode()
            except UnicodeEncodeError:
                raise InvalidPath(f"not a key of S3, which are UTF-8: {path[:200]!r}") from None
        return key

    @contextlib.contextmanager
    def _locked(self, path: str, kind: int) -> Iterator[None]:
        """Keep collectors, or whoever makes objects young, out of a file's folder."""
        lock = os.path.join(self.folder, LOCKS, os.path.dirname(path))
        if not os.path.isdir(lock):
            os.makedirs(lock, exist_ok=True)
        with folders.locked(lock, kind):
            yield


@cache
def shared_storage(settings: S3Settings, prefix: str, folder: str) -> S3Storage:
    """The one storage of that place in this process, so that all who use it share its connections."""
    return S3Storage(settings, prefix, folder)


class StagedUpload:
    """A staged file that is not in the bucket yet; see :class:`cvmfs_objstore.storage.Staged`."""

    __slots__ = ("_file", "_publish")

    def __init__(
        self,
        file: tempfile.SpooledTemporaryFile[bytes],
        publish: Callable[[tempfile.SpooledTemporaryFile[bytes], str], None],
    ) -> None:
        self._file, self._publish = file, publish

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        self._check_open()
        return self._file.write(data)

    def publish(self, path: str) -> None:
        self._check_open()
        check_path(path)
        with self._file as file:
            self._publish(file, path)

    def discard(self) -> None:
        self._file.close()

    def _check_open(self) -> None:
        if self._file.closed:
            raise ValueError("the staged file is closed")

    def __enter__(self) -> StagedUpload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


class _Windows(io.RawIOBase):
    """An object that is read window by window, of *size* bytes, of which *first* is there."""

    def __init__(self, get: Callable[[int, int], bytes], size: int, first: bytes) -> None:
        self._get, self._size = get, size
        self._start, self._window, self._at = 0, first, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        if self._at >= self._size:
            return 0
        if not self._start <= self._at < self._start + len(self._window):
            self._window = self._get(self._at, min(self._at + WINDOW, self._size))
            self._start = self._at
        offset = self._at - self._start
        piece = self._window[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _size(answer: Response) -> int:
    return int(answer.headers["Content-Length"])


def _modified(answer: Response) -> float:
    return parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()


def _date(answer: Response) -> float:
    return parsedate_to_datetime(answer.headers["Date"]).timestamp()


def _iso(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
