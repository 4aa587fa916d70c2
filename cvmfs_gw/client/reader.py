"""Reading a repository over HTTP or from this machine's storage, every signature and hash verified.

Catalogs are fetched when a path in them is accessed. This module returns only verified content: an object is held back,
in memory or, if it is large, in a temporary file, until its last byte has been hashed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from types import TracebackType
from typing import IO, BinaryIO, Final
from urllib.parse import quote

from cvmfs_gw.client.errors import ClientError, GatewayUnreachable, NotThere, UntrustedRepository
from cvmfs_gw.client.remote import RemoteStorage
from cvmfs_gw.client.trust import read_head
from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.changelist import compare_trees
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.engine.tags import choose_root, root_at
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.compression import PIECE, Compression
from cvmfs_objstore.errors import ObjectNotFound, ObjectStoreError
from cvmfs_objstore.formats.entry import Entry, Kind
from cvmfs_objstore.formats.history import History, Tag
from cvmfs_objstore.hashes import ContentHash
from cvmfs_objstore.objects import ObjectStore, Sink, plain_pieces
from cvmfs_objstore.storage import Storage

THREADS: Final = 4
"""The number of objects that are fetched at once."""
HELD: Final = 32 << 20
"""An object of at most this many bytes is held in memory until it is verified; a larger one in a temporary file."""
_MAX_HISTORY: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Part:
    """One object of a file's content: its name, and where its *size* plain bytes begin.

    *external* is where the file is on the servers of external files, ``""`` for an object of the storage.
    """

    name: ContentHash
    offset: int
    size: int
    compression: Compression
    external: str = ""


class RepositoryReader:
    """One revision of a repository: the head as it was when this was made, or what :meth:`select` chose.

    *where* is a URL (``http://host/cvmfs/<fqrn>``) or a storage; *public_keys* the PEM text of its master keys;
    *external* the URLs of servers that have what is not in the storage. Raises :exc:`ClientError`. To be used by one
    thread, but for :meth:`fetch`.
    """

    def __init__(self, fqrn: str, where: str | Storage, public_keys: bytes, external: Sequence[str] = ()) -> None:
        self.fqrn = fqrn
        with ExitStack() as stack:
            if isinstance(where, str):
                where = stack.enter_context(closing(RemoteStorage(where)))
            self.head = read_head(where, fqrn, public_keys, time.time())
            self.root = self.head.root_hash
            self._objects = ObjectStore(where)
            self._catalogs = CatalogStore(self._objects)
            self._external = [stack.enter_context(closing(RemoteStorage(url))) for url in external]
            self._open: CatalogTree | None = None
            stack.callback(self._close_tree)
            self._stack = stack.pop_all()

    def __enter__(self) -> RepositoryReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # -- revisions

    def tags(self) -> list[Tag]:
        """All tags of the head, newest revision first."""
        if self.head.history is None:
            return []
        with _trusted("tag database"):
            data = self._objects.get_plain(self.head.history, max_size=_MAX_HISTORY)
            with History.load(data) as history:
                return list(history.tags())

    def select(self, what: str | float) -> None:
        """Read another revision: a tag, ``@NUMBER`` of a tagged revision, the hash of a root catalog, or a time.

        A time, in seconds since the epoch, is the newest tagged revision of then. Raises :exc:`ClientError`.
        """
        try:
            self.root = choose_root(self.tags(), what) if isinstance(what, str) else root_at(self.tags(), what)
        except EngineError as error:
            raise NotThere(f"{self.fqrn}: {error}") from error
        self._close_tree()

    def changes_of(self, path: str, tags: Sequence[Tag]) -> Iterator[Tag]:
        """Those of *tags*, newest revision first, that differ at or below *path* from the revision before."""
        for index, tag in enumerate(tags):
            older = next((other for other in tags[index + 1 :] if other.root_hash != tag.root_hash), None)
            with _trusted(path), closing(CatalogTree(self._catalogs, tag.root_hash)) as after:
                if older is None:
                    changed = after.get(path) is not None
                else:
                    with closing(CatalogTree(self._catalogs, older.root_hash)) as before:
                        changed = any(True for _ in compare_trees(before, after, path))
            if changed:
                yield tag

    @property
    def tree(self) -> CatalogTree:
        """The tree of this revision."""
        if self._open is None:
            with _trusted("root catalog"):
                self._open = CatalogTree(self._catalogs, self.root)
        return self._open

    def _close_tree(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    # -- entries

    def find(self, path: str) -> Entry | None:
        """The entry at *path* (``""`` or ``/a/b``), or None."""
        with _trusted(path):
            return self.tree.get(path)

    def entry(self, path: str) -> Entry:
        """The same; raises :exc:`NotThere`."""
        entry = self.find(path)
        if entry is None:
            raise NotThere(f"{path or '/'} is not in the repository")
        return entry

    def entries(self, path: str) -> list[Entry]:
        """What is in the directory at *path*, by name."""
        with _trusted(path):
            return sorted(self.tree.entries(path), key=lambda entry: entry.name)

    def walk(self, path: str) -> Iterator[tuple[str, Entry]]:
        """Everything below the directory at *path*, directories before what is in them."""
        pending = [(path, iter(self.entries(path)))]
        while pending:
            directory, entries = pending[-1]
            entry = next(entries, None)
            if entry is None:
                pending.pop()
                continue
            below = f"{directory}/{entry.name}"
            yield below, entry
            if entry.is_directory:
                pending.append((below, iter(self.entries(below))))

    # -- contents

    def has_content(self, entry: Entry) -> bool:
        """Whether this is a file whose content this reader can get."""
        return entry.kind is Kind.FILE and bool(self._external or not entry.is_external)

    def parts(self, path: str, entry: Entry) -> list[Part]:
        """The objects of the file *entry* at *path*, in order. Raises :exc:`ClientError` if it has none here."""
        if entry.kind is not Kind.FILE:
            raise ClientError(f"{path or '/'} is not a file")
        if not self.has_content(entry):
            raise ClientError(f"{path}: its content is on an external server, and no URL of one is known")
        with _trusted(path):
            compression = Compression(entry.compression)
            place = path if entry.is_external else ""
            if entry.is_chunked:
                chunks = self.tree.chunks(path)
                return [Part(entry.chunk_hash(chunk), chunk.offset, chunk.size, compression, place) for chunk in chunks]
            if entry.content_hash is None:
                raise UntrustedRepository(f"{path}: a file without content")
            return [Part(entry.content_hash, 0, entry.size, compression, place)]

    def fetch(self, part: Part, file: Sink) -> None:
        """Write the plain bytes of *part* to *file*. Thread-safe.

        What is wrong is known at the end only: when this raises :exc:`ClientError`, throw *file* away.
        """
        size = 0
        with _trusted(part.external or str(part.name)), self._stored(part) as stored:
            for piece in plain_pieces(part.name, stored, max_size=part.size, compression=part.compression):
                file.write(piece)
                size += len(piece)
        if size != part.size:
            raise UntrustedRepository(f"{part.name} has {size} bytes, and its catalog says {part.size}")

    def _stored(self, part: Part) -> BinaryIO:
        """The bytes that have the part's hash.

        Source: clients append a file's path in the repository to ``CVMFS_EXTERNAL_URL``, ask for chunks by range, and
        go on to the next server where one has nothing.
        """
        if not part.external:
            return self._objects.open(part.name)
        ranged = part.compression is Compression.NONE and part.size
        place = quote(os.fsencode(part.external[1:]))
        for number, server in enumerate(self._external, 1):
            try:
                return server.open_range(place, part.offset, part.offset + part.size if ranged else None)
            except (ObjectNotFound, GatewayUnreachable) as error:
                if number == len(self._external):
                    raise GatewayUnreachable(f"{part.external} is on no external server: {error}") from error
        raise AssertionError("a part of an external file, and no server")

    def copy(self, path: str, file: Sink) -> None:
        """Write the content of the file at *path* to *file*, verified bytes only, in bounded memory."""
        entry = self.entry(path)
        with ThreadPoolExecutor(THREADS) as threads:
            coming: deque[Future[IO[bytes]]] = deque()
            try:
                for part in self.parts(path, entry):
                    coming.append(threads.submit(self._hold, part))
                    if len(coming) == THREADS:
                        _pour(coming.popleft().result(), file)
                while coming:
                    _pour(coming.popleft().result(), file)
            finally:
                for future in coming:
                    if not future.cancel() and future.exception() is None:
                        future.result().close()

    def read(self, path: str) -> bytes:
        """The content of the file at *path*."""
        pieces: list[bytes] = []
        self.copy(path, _Pieces(pieces))
        return b"".join(pieces)

    def _hold(self, part: Part) -> IO[bytes]:
        held: IO[bytes] = tempfile.SpooledTemporaryFile(HELD)  # noqa: SIM115 (whoever gets it closes it)
        try:
            self.fetch(part, held)
            held.seek(0)
        except BaseException:
            held.close()
            raise
        return held


class _Pieces:
    def __init__(self, pieces: list[bytes]) -> None:
        self.write = pieces.append


def _pour(held: IO[bytes], file: Sink) -> None:
    with held:
        while piece := held.read(PIECE):
            file.write(piece)


@contextlib.contextmanager
def _trusted(what: str) -> Iterator[None]:
    """What the store and its formats complain about is what the server gave us."""
    try:
        yield
    except (EngineError, ObjectStoreError, ValueError) as error:
        raise UntrustedRepository(f"{what or '/'}: {error}") from error
