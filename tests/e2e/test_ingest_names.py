"""The same files published by the deployed tools and taken in by ours: the same entries, chunks and object names.

``CVMFS_TEST_FILES=50000`` compares more of them (default: 500).
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from conformance.machines import content
from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.transaction import Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.ingest.archive import ArchiveSource
from cvmfs_gw.ingest.contents import ContentOptions, Contents
from cvmfs_gw.ingest.directory import DirectorySource
from cvmfs_gw.ingest.gather import gather
from cvmfs_gw.ingest.items import Source
from cvmfs_gw.ingest.overlay import Replace
from cvmfs_gw.ingest.ownership import IdMap
from cvmfs_gw.ingest.plan import PlanOptions, plan
from cvmfs_objstore.formats.entry import NESTING_FLAGS, Chunks, Entry
from cvmfs_objstore.formats.manifest import SignedManifest
from cvmfs_objstore.hashes import Algorithm, ContentHash
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.objects import ObjectStore
from tests.e2e.world import Repository, World
from tests.objstore.large_files import LARGE_FILES

FQRN = "names.example.org"
FILES = int(os.environ.get("CVMFS_TEST_FILES", "500"))


class Published(NamedTuple):
    """What a repository's catalogs say, and which objects the files of a part of it have."""

    entries: dict[str, tuple[Entry, Chunks]]
    objects: set[str]


def _small(top: Path) -> None:
    for number in range(300):
        content.put(top / f"lib/d{number % 7}/f{number}", content.noise(number, number * 37), moment=number)
    content.put(top / "empty", b"")
    content.put(top / "bin/run", "#!/bin/sh\n", mode=0o4755)
    content.put(top / "bin/text", "many words, " * 50_000)
    (top / "link").symlink_to("bin/run")
    content.stamp(top / "link", 32)
    content.KINDS["nested2"](top / "nested")
    content.KINDS["fifo"](top / "fifo")
    os.mkdir(top / "bare")
    content.stamp(top / "bare", 40)


def _many(top: Path) -> None:
    for number in range(FILES):
        content.put(top / f"many/d{number // 100}/f{number}", content.noise(number, number % 3000), moment=number)
    for number in range(0, FILES, 1000):
        content.put(top / f"many/d{number // 100}/.cvmfscatalog", "", moment=number)


def _large(top: Path) -> None:
    for name, make in LARGE_FILES.items():
        content.put(top / f"large/{name}", make())


def _archive(path: Path, source: Path) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for place in sorted(source.iterdir()):
            archive.add(place, place.name)
    return path


def _read(store: CatalogStore, root: ContentHash, base: str) -> Published:
    """Everything below *base*, by its path there, but for what is a matter of the tree: link counts and nesting."""
    found: dict[str, tuple[Entry, Chunks]] = {}
    objects: set[str] = set()

    def walk(tree: CatalogTree, path: str) -> Iterator[tuple[str, Entry]]:
        for entry in tree.entries(path):
            below = f"{path}/{entry.name}"
            yield below, entry
            if entry.is_directory:
                yield from walk(tree, below)

    with closing(CatalogTree(store, root)) as tree:
        for path, entry in walk(tree, base):
            chunks = tree.chunks(path)
            plain = entry._replace(hardlinks=0, flags=entry.flags & ~NESTING_FLAGS)
            found[path.removeprefix(base)] = (plain, chunks)
            objects |= {entry.chunk_hash(chunk).path for chunk in chunks}
            if entry.content_hash is not None:
                objects.add(entry.content_hash.path)
    return Published(found, objects)


def _theirs(repository: Repository, base: str) -> Published:
    with closing(LocalStorage(str(repository.storage))) as storage:
        head = SignedManifest.parse(storage.read(".cvmfspublished")).manifest
        return _read(CatalogStore(ObjectStore(storage)), head.root_hash, base)


def _ours(
    repository: Repository, folder: Path, source: Source, contents: ContentOptions, options: PlanOptions
) -> Published:
    """What our own layers make of *source*, in a new part of a copy of the repository's tree."""
    with (
        closing(LocalStorage(str(repository.storage))) as theirs,
        closing(LocalStorage.create(str(folder), durable=False)) as ours,
    ):
        head = SignedManifest.parse(theirs.read(".cvmfspublished")).manifest
        store = CatalogStore(ObjectStore(ours))
        ours.put(head.root_hash.path, theirs.read(head.root_hash.path))
        with Contents(ours, contents) as storing:
            gathered = gather(source, storing)
        with closing(CatalogTree(store, head.root_hash)) as tree:
            Transaction(tree).apply(plan(tree, [Replace(gathered, "/ours")], options).changes)
            root = tree.store(1, Algorithm.SHA1)[0].hash
        found = _read(store, root, "/ours")
        assert all(ours.exists(path) for path in found.objects)
        return found


def _different(one: Published, other: Published) -> list[str]:
    paths: Iterable[str] = one.entries.keys() | other.entries.keys()
    return [
        f"{path}: {one.entries.get(path)} != {other.entries.get(path)}"
        for path in sorted(paths)
        if one.entries.get(path) != other.entries.get(path)
    ]


def test_publish(world: World, tmp_path: Path) -> None:
    """``cvmfs_server publish``, which cuts large files."""
    repository = world.mkfs(FQRN)
    world.serve()
    publisher = world.publisher("alpha", repository)
    source = tmp_path / "source"
    source.mkdir()
    makers: tuple[Callable[[Path], None], ...] = (_small, _large)
    for make in makers:
        make(source)
    publisher.begin()
    for make in makers:
        make(publisher.top)
    publisher.commit()
    theirs = _theirs(repository, "")
    ours = _ours(
        repository, tmp_path / "ours", DirectorySource(str(source)), ContentOptions(), PlanOptions(1, mtime_ns=False)
    )
    # Directories were made at different times and on file systems that give them different sizes.
    for published in (theirs, ours):
        for path, (entry, chunks) in published.entries.items():
            if entry.is_directory:
                published.entries[path] = (entry._replace(mtime=0, size=0), chunks)
    assert _different(theirs, ours) == []
    assert ours.objects == theirs.objects
    assert sum(entry.is_chunked for entry, _ in ours.entries.values()) >= 5


def test_ingest(world: World, tmp_path: Path) -> None:
    """``cvmfs_server ingest``, which does not."""
    repository = world.mkfs(FQRN)
    world.serve()
    publisher = world.publisher("alpha", repository)
    source = tmp_path / "source"
    source.mkdir()
    _small(source)
    _many(source)
    content.patchwork(source / "large", 20 << 20)
    os.link(source / "bin/run", source / "bin/also")
    archive = _archive(tmp_path / "source.tar", source)
    publisher.ingest(archive.read_bytes(), "soft")
    theirs = _theirs(repository, "/soft")
    with archive.open("rb") as file:
        ours = _ours(
            repository,
            tmp_path / "ours",
            ArchiveSource(file),
            ContentOptions(chunks=None),
            PlanOptions(1, uids=IdMap.to(0), gids=IdMap.to(0), mtime_ns=False),
        )
    # That tool alone says of symbolic links that their size is 0, and not their target's length.
    link, _ = theirs.entries["/link"]
    theirs.entries["/link"] = (link._replace(size=len(link.symlink)), ())
    assert _different(theirs, ours) == []
    assert ours.objects == theirs.objects
