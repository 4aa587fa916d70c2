"""Reading a repository over HTTP, every signature and hash verified."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Final

from cvmfs_gw.client.errors import ClientError, UntrustedRepository
from cvmfs_gw.client.publish import read_head
from cvmfs_gw.client.remote import RemoteStorage
from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.compression import Compression
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.formats.entry import Entry, Kind
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.objects import ObjectStore

_MAX_CHUNK: Final = 1 << 30


class RepositoryReader:
    """The head of a repository as it was when this was made. Raises :exc:`ClientError`."""

    def __init__(self, fqrn: str, url: str, public_keys: bytes) -> None:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cvmfs-read-"))
            local = LocalStorage.create(os.path.join(folder, "none"), durable=False)
            stack.enter_context(closing(local))
            remote = stack.enter_context(closing(RemoteStorage(url, local)))
            self.head = read_head(remote, fqrn, public_keys, time.time())
            self._objects = ObjectStore(remote)
            try:
                tree = CatalogTree(CatalogStore(self._objects), self.head.root_hash)
            except EngineError as error:
                raise UntrustedRepository(str(error)) from error
            self._tree = stack.enter_context(closing(tree))
            self._stack = stack.pop_all()

    def __enter__(self) -> RepositoryReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def entry(self, path: str) -> Entry:
        """The entry at *path* (``/a/b``)."""
        entry = self._tree.get(path)
        if entry is None:
            raise ClientError(f"{path} is not in the repository")
        return entry

    def entries(self, path: str) -> list[Entry]:
        """What is in the directory at *path*."""
        return self._tree.entries(path)

    def read(self, path: str) -> bytes:
        """The content of the file at *path*."""
        entry = self.entry(path)
        if entry.kind is not Kind.FILE or entry.is_external:
            raise ClientError(f"{path} is no file of the repository's storage")
        compression = Compression(entry.compression)
        chunks = self._tree.chunks(path)
        names = [entry.chunk_hash(chunk) for chunk in chunks]
        if not names and entry.content_hash is not None:
            names.append(entry.content_hash)
        try:
            parts = [self._objects.get_plain(name, max_size=_MAX_CHUNK, compression=compression) for name in names]
        except ObjectStoreError as error:
            raise UntrustedRepository(f"{path}: {error}") from error
        return b"".join(parts)
