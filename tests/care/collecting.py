"""Repositories with a past, for tests of the collector: revisions an hour apart, and objects as old as they."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Final

from cvmfs_gw.care.check import CheckOptions, check_repository
from cvmfs_gw.care.gc import GcReport, Policy, collect
from cvmfs_gw.engine.commit import Engine
from cvmfs_gw.engine.commit_api import CommitRequest
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.tags import list_tags
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.compression import deflate
from cvmfs_objstore.errors import ObjectNotFound
from cvmfs_objstore.formats.entry import FLAG_CHUNKED, FLAG_DIRECTORY, FLAG_FILE, Chunk, Chunks, Entry, name_of
from cvmfs_objstore.formats.history import Tag
from cvmfs_objstore.hashes import ContentHash, Suffix
from tests.engine.repositories import FQRN, new_repository
from tests.engine.trees import NOW

HOUR: Final = 3600
REAL: Final = NOW + 30_000_000
"""Files that are younger than this got their time from the machine's clock."""


class Past:
    """A repository whose revisions are made one after the other; ``now`` goes on by an hour with each."""

    def __init__(self, root: str, keys: str, **options: object) -> None:
        made = new_repository(root, keys, garbage_collection=True, auto_tag=False, **options)  # type: ignore[arg-type]
        self.paths = made.paths
        self.now = NOW
        self.engine = Engine(self.paths, {}, durable=False, clock=lambda: self.now)
        self.age()

    def repository(self) -> Repository:
        """Opened anew, so that nothing is remembered."""
        return Repository(FQRN, self.paths, {}, durable=False)

    def age(self) -> None:
        """Let what was written just now, and its folders, be as old as ``now``; nobody else publishes meanwhile."""
        storage = self.paths.repository_storage(FQRN)
        for folder, _, names in os.walk(os.path.join(storage, "data")):
            for path in (*(os.path.join(folder, name) for name in names), folder):
                if os.stat(path).st_mtime > REAL:
                    os.utime(path, (self.now, self.now))

    def upload(
        self, files: dict[str, bytes | None], *, nest: tuple[str, ...] = (), base: ContentHash | None = None
    ) -> CommitRequest:
        """What a publisher uploads that makes *files* (None: removed; two lines: chunked) of the head, or of *base*."""
        repository = self.repository()
        base = base or repository.head().root_hash
        with closing(CatalogTree(repository.catalogs, base)) as tree:
            for path, data in files.items():
                old = tree.get(path)
                if data is None:
                    tree.remove_tree(path)
                else:
                    entry, chunks = self._entry(repository, path, data)
                    tree.put(path, entry, chunks, old)
            for path in nest:
                tree.nest(path)
            root, _ = tree.store(self.now, base.algorithm)
        return CommitRequest(FQRN, "", base, root.hash)

    @staticmethod
    def _entry(repository: Repository, path: str, data: bytes) -> tuple[Entry, Chunks]:
        algorithm = repository.head().root_hash.algorithm
        if data == b"/":
            return Entry(2, None, 4096, 0o040755, NOW, 0, FLAG_DIRECTORY, name_of(path), "", 0, 0, None), ()
        parts = data.split(b"\n")
        if len(parts) == 1:
            name = repository.objects.add(data, algorithm, deflate=deflate)
            entry = Entry(1, name.digest, len(data), 0o100644, NOW, 0, FLAG_FILE, name_of(path), "", 0, 0, None)
            return entry, ()
        chunks, offset = [], 0
        for part in parts:
            name = repository.objects.add(part, algorithm, Suffix.CHUNK, deflate=deflate)
            chunks.append(Chunk(offset, len(part), name.digest))
            offset += len(part)
        flags = FLAG_FILE | FLAG_CHUNKED
        return Entry(1, None, offset, 0o100644, NOW, 0, flags, name_of(path), "", 0, 0, None), tuple(chunks)

    def commit(self, files: dict[str, bytes | None], tag: str = "", *, nest: tuple[str, ...] = ()) -> ContentHash:
        """One revision, an hour later; returns its root."""
        self.now += HOUR
        request = self.upload(files, nest=nest)
        root = self.engine.commit(CommitRequest(FQRN, "", request.old_root, request.new_root, tag)).root_hash
        self.age()
        return root

    def collect(self, policy: Policy, **options: object) -> GcReport:
        """A collection at ``now``."""
        return collect(self.repository(), policy, clock=lambda: self.now, **options)  # type: ignore[arg-type]

    def tags(self) -> list[Tag]:
        """All tags of the head."""
        return list_tags(self.repository())

    def objects(self) -> set[ContentHash]:
        """Everything in the storage."""
        return set(self.repository().objects.list())

    def has(self, data: bytes, suffix: Suffix = Suffix.NONE) -> bool:
        """Whether the storage has the object of that content."""
        return self.repository().objects.has(ContentHash.of(deflate(data), suffix=suffix))

    def check(self) -> None:
        """All trees of head and tags are whole, and the reflog names nothing that is not there."""
        report = check_repository(self.repository(), CheckOptions(every_tag=True, integrity=True), self.now)
        assert [str(fault) for fault in report.faults if fault.kind.code not in IGNORED] == []


IGNORED: Final = frozenset(("nested-no-marker", "whitelist-expires-soon", "whitelist-expired"))
"""What these small repositories are not careful about."""


def content_of(repository: Repository, path: str) -> bytes:
    """The content of a file of the head; raises :exc:`ObjectNotFound` if any of its objects is gone."""
    with closing(CatalogTree(repository.catalogs, repository.head().root_hash)) as tree:
        entry = tree.get(path)
        if entry is None:
            raise ObjectNotFound(path)
        names: list[ContentHash | None] = [entry.chunk_hash(chunk) for chunk in tree.chunks(path)]
        names = names or [entry.content_hash]
        return b"".join(repository.objects.get_plain(name) for name in names if name is not None)
