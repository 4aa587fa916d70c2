"""Whole repositories on disk for tests: made, published to, looked at as clients, operators and collectors do."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from cvmfs_gw.engine.changes import Change, Put
from cvmfs_gw.engine.configure import RepositoryOptions
from cvmfs_gw.engine.create import create_repository
from cvmfs_gw.engine.repository import MANIFEST_PATH, Repository
from cvmfs_gw.engine.transaction import Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.formats.chain import verify_chain
from cvmfs_objstore.formats.entry import Kind
from cvmfs_objstore.formats.history import TRUNK, History, Tag
from cvmfs_objstore.formats.keychain import PublicKey
from cvmfs_objstore.formats.manifest import Manifest
from cvmfs_objstore.formats.reflog import REFLOG_PATH, Reflog
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from tests.engine.trees import NOW, Found, Item, Model, make_entry, read

FQRN: Final = "test.example.org"
STRATUM0: Final = f"http://localhost:8080/cvmfs/{FQRN}"


def make_keys(fqrn: str, paths: SystemPaths) -> None:
    """All five key files of a repository, in the keys folder of *paths*."""
    create_repository(fqrn, paths, {}, RepositoryOptions(STRATUM0), NOW)


def new_repository(root: str, keys: str, algorithm: Algorithm = Algorithm.SHA1, **options: object) -> Repository:
    """A new repository below *root*; *options* are those of ``mkfs``."""
    settings = RepositoryOptions(STRATUM0, algorithm=algorithm, keys=keys, **options)  # type: ignore[arg-type]
    repository = create_repository(FQRN, SystemPaths(root), {}, settings, NOW)
    return Repository(FQRN, repository.paths, {}, durable=False)


def put(path: str, item: Item) -> Put:
    entry, chunks = make_entry(path, item, 1)
    return Put(path, entry, chunks)


def puts(model: Model) -> list[Put]:
    """Puts of a whole model, directories first."""
    return [
        put(path, model[path])
        for path in sorted(model, key=lambda path: (model[path].kind is not Kind.DIRECTORY, path))
    ]


def publisher_root(
    repository: Repository, base: ContentHash, changes: Iterable[Change], now: int = NOW + 1
) -> ContentHash:
    """The root catalog that a publisher who had mounted *base* would upload."""
    with closing(CatalogTree(repository.catalogs, base)) as tree:
        Transaction(tree).apply(changes)
        return tree.store(now, base.algorithm)[0].hash


def files(*folders: str) -> dict[str, bytes]:
    """Every file below *folders* with its content."""
    found: dict[str, bytes] = {}
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(place, name)
                with open(path, "rb") as file:
                    found[path] = file.read()
    return found


def everything(repository: Repository) -> dict[str, bytes]:
    """Storage and spool of a repository, byte by byte."""
    paths = repository.paths
    return files(paths.repository_storage(repository.fqrn), paths.repository_spool(repository.fqrn))


def check_chain(repository: Repository, now: float = NOW) -> Manifest:
    """Verify the signatures as a client does, and that objects have the hashes of their names; returns the head."""
    raw = repository.storage.read(MANIFEST_PATH)
    head = repository.head()
    assert head.certificate is not None
    certificate = repository.objects.get_plain(head.certificate)
    keys = PublicKey.load_all(repository.paths.key_file(repository.fqrn, "pub"))
    whitelist = repository.storage.read(".cvmfswhitelist")
    verified = verify_chain(whitelist, certificate, raw, keys, datetime.fromtimestamp(now, UTC), repository.fqrn)
    assert verified == head
    assert len(repository.objects.get_plain(head.root_hash)) == head.root_size
    return head


def tags(repository: Repository) -> dict[str, Tag]:
    """The tags of the head."""
    head = repository.head()
    assert head.history is not None
    with History.load(repository.objects.get_plain(head.history)) as history:
        return {tag.name: tag for tag in history.tags()}


def refs(repository: Repository) -> set[ContentHash]:
    """What the reflog names."""
    with Reflog.load(repository.storage.read(REFLOG_PATH)) as reflog:
        return {ref for ref, _ in reflog.refs()}


def catalogs(repository: Repository) -> set[ContentHash]:
    """The catalogs that are in the store."""
    return {name for name in repository.objects.list() if name.suffix is Suffix.CATALOG}


def check_repository(repository: Repository, now: float = NOW, uploaded: frozenset[ContentHash] = frozenset()) -> Found:
    """Everything that must be true after any publish; returns what the head's tree holds.

    *uploaded* are catalogs that publishers sent and that need not have been committed.
    """
    head = check_chain(repository, now)
    algorithm = head.root_hash.algorithm
    # The reflog is what manifest and checksum file say, and names no object that is not there.
    digest = ContentHash.of(repository.storage.read(REFLOG_PATH), algorithm)
    assert head.reflog_hash == digest
    with open(os.path.join(repository.paths.repository_spool(repository.fqrn), "reflog.chksum"), "rb") as file:
        assert file.read() == digest.bare.encode()
    known = refs(repository)
    assert all(repository.objects.has(ref) for ref in known)
    assert {head.root_hash, head.history, head.certificate, head.meta_info} <= known
    # Every catalog in the store, unless a publisher left it there, can be reached from the reflog.
    reachable = {ref for ref in known if ref.suffix is Suffix.CATALOG}
    queue = list(reachable)
    while queue:
        with repository.catalogs.load(queue.pop()) as catalog:
            nested = {ref.hash for ref in catalog.nested().values()} - reachable
        reachable |= nested
        queue += nested
    stored = set(repository.objects.list())
    assert catalogs(repository) - uploaded <= reachable
    assert {name.algorithm for name in stored} == {algorithm}
    for name in stored:
        repository.objects.verify(name)
    trunk = tags(repository)[TRUNK]
    assert (trunk.root_hash, trunk.revision, trunk.size) == (head.root_hash, head.revision, head.root_size)
    folder = repository.paths.repository_storage(repository.fqrn)
    assert os.listdir(os.path.join(folder, "data", "txn")) == []
    return read(repository.catalogs, head.root_hash)
