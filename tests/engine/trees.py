"""Catalog trees for tests: made from plain dicts, read back into plain dicts, and checked without mercy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_objstore.formats.catalog import Catalog, NestedRef
from cvmfs_objstore.formats.entry import (
    FLAG_CHUNKED,
    FLAG_DIRECTORY,
    FLAG_FILE,
    FLAG_LINK,
    FLAG_MOUNTPOINT,
    FLAG_NESTED_ROOT,
    FLAG_SPECIAL,
    NESTING_FLAGS,
    Chunk,
    Chunks,
    Counters,
    Entry,
    Kind,
    name_of,
    parent_path,
    path_key,
)
from cvmfs_objstore.hashes import Algorithm, ContentHash
from cvmfs_objstore.memory import MemoryStorage
from cvmfs_objstore.objects import ObjectStore

NOW = 1_700_000_000


def new_store() -> CatalogStore:
    """An empty catalog store in memory."""
    return CatalogStore(ObjectStore(MemoryStorage()))


@dataclass(frozen=True)
class Item:
    """An entry of the plain model: what it is, and a number that stands for its content and attributes."""

    kind: Kind
    seed: int = 0
    chunks: int = 0
    group: int = 0
    """Hard link group within its directory; members share the seed."""


Model = dict[str, Item]
"""Items by path; the root ``""`` is always there."""


def make_entry(path: str, item: Item, group_size: int = 1) -> tuple[Entry, Chunks]:
    """The entry that stands for *item*."""
    seed = item.seed
    flags = {
        Kind.DIRECTORY: FLAG_DIRECTORY,
        Kind.FILE: FLAG_FILE,
        Kind.SYMLINK: FLAG_FILE | FLAG_LINK,
        Kind.SPECIAL: FLAG_FILE | FLAG_SPECIAL,
    }[item.kind]
    mode = {Kind.DIRECTORY: 0o040755, Kind.FILE: 0o100644, Kind.SYMLINK: 0o120777, Kind.SPECIAL: 0o010644}[item.kind]
    size, digest, symlink = 0, None, ""
    if item.kind is Kind.DIRECTORY:
        size = 4096
    elif item.kind is Kind.SYMLINK:
        symlink = f"target-{seed}"
        size = len(symlink)
    elif item.kind is Kind.FILE:
        size = 100 + seed
        if item.chunks:
            flags |= FLAG_CHUNKED
        else:
            digest = ContentHash.of(b"%d" % seed).digest
    chunks = tuple(Chunk(i * 10, 10, ContentHash.of(b"%d/%d" % (seed, i)).digest) for i in range(item.chunks))
    xattr = bytes((1, 1, 4, 1)) + b"user" + bytes((seed % 256,)) if seed % 3 == 0 and item.kind is Kind.FILE else None
    entry = Entry(
        item.group << 32 | group_size,
        digest,
        size,
        mode,
        NOW + seed,
        seed,
        flags,
        name_of(path),
        symlink,
        10,
        20,
        xattr,
    )
    return entry, chunks


def group_sizes(model: Mapping[str, Item]) -> dict[tuple[str, int], int]:
    """Members of each hard link group, by directory and group number."""
    sizes: dict[tuple[str, int], int] = {}
    for path, item in model.items():
        if item.group:
            key = (parent_path(path), item.group)
            sizes[key] = sizes.get(key, 0) + 1
    return sizes


def plant(
    store: CatalogStore, model: Mapping[str, Item], mountpoints: frozenset[str] = frozenset(), revision: int = 1
) -> ContentHash:
    """Store *model* as a catalog tree, nested at *mountpoints*, row by row and with its own arithmetic."""
    return _plant(store, model, mountpoints, "", revision)[0].hash


def _plant(
    store: CatalogStore, model: Mapping[str, Item], mountpoints: frozenset[str], top: str, revision: int
) -> tuple[NestedRef, Counters]:
    sizes = group_sizes(model)

    def links(path: str, item: Item) -> int:
        if item.kind is Kind.DIRECTORY:
            return 2 + sum(1 for p, i in model.items() if p and parent_path(p) == path and i.kind is Kind.DIRECTORY)
        return item.group << 32 | sizes.get((parent_path(path), item.group), 1) if item.group else 1

    below = Counters()
    with Catalog.create(top, make_entry(top, model[top])[0]._replace(hardlinks=links(top, model[top]))) as catalog:
        for path in sorted(model):
            if not path.startswith(top + "/"):
                continue
            holder = max((m for m in mountpoints | {""} if m == "" or path.startswith(m + "/")), key=len)
            if holder != top:
                continue
            entry, chunks = make_entry(path, model[path])
            entry = entry._replace(hardlinks=links(path, model[path]))
            if path in mountpoints:
                entry = entry._replace(flags=entry.flags | FLAG_MOUNTPOINT)
                ref, total = _plant(store, model, mountpoints, path, revision)
                catalog.set_nested(path, ref)
                below.add(total)
            catalog.put(path, entry, chunks)
        own = catalog.count_rows()
        catalog.set_counters(own, below)
        catalog.set_property("revision", revision)
        total = replace(own)
        total.add(below)
        return store.store(catalog, Algorithm.SHA1), total


@dataclass
class Found:
    """What a catalog tree holds."""

    model: Model
    mountpoints: frozenset[str]
    groups: dict[tuple[str, int], frozenset[str]]
    """Paths of each hard link group, by directory and number."""


def read(store: CatalogStore, root: ContentHash) -> Found:
    """Read a whole tree, checking everything that ``cvmfs_swissknife check`` would, and more."""
    found = Found({}, frozenset(), {})
    entries: dict[str, tuple[Entry, Chunks]] = {}
    mountpoints: set[str] = set()
    _read(store, root, "", entries, mountpoints, found.groups)
    subdirectories: dict[str, int] = {}
    for path, (entry, _) in entries.items():
        if path and entry.is_directory:
            subdirectories[parent_path(path)] = subdirectories.get(parent_path(path), 0) + 1
    for path, (entry, chunks) in entries.items():
        if entry.is_directory:
            assert entry.linkcount == 2 + subdirectories.get(path, 0), (path, entry.linkcount)
        elif not entry.hardlink_group:
            assert entry.linkcount == 1, path
        found.model[path] = _item(path, entry, chunks)
        if path:
            assert entries[parent_path(path)][0].is_directory, path
    found.mountpoints = frozenset(mountpoints)
    return found


def _item(path: str, entry: Entry, chunks: Chunks) -> Item:
    seed = entry.mtimens
    assert seed is not None
    item = Item(entry.kind, seed, len(chunks))
    expected, expected_chunks = make_entry(path, item)
    plain = entry._replace(hardlinks=1, flags=entry.flags & ~NESTING_FLAGS)
    assert plain == expected, (path, plain, expected)
    assert chunks == expected_chunks, path
    return item


def _read(
    store: CatalogStore,
    ref: ContentHash,
    top: str,
    entries: dict[str, tuple[Entry, Chunks]],
    mountpoints: set[str],
    groups: dict[tuple[str, int], frozenset[str]],
) -> Counters:
    with store.load(ref) as catalog:
        assert catalog.mountpoint == top
        root = catalog.get(top)
        assert root is not None
        assert bool(root.flags & FLAG_NESTED_ROOT) == bool(top)
        if top:
            mask = ~NESTING_FLAGS
            in_parent = entries[top][0]
            assert in_parent._replace(flags=in_parent.flags & mask) == root._replace(flags=root.flags & mask), top
        else:
            entries[""] = (root, ())
        seen = 1
        nested = catalog.nested()
        found_mountpoints = set()
        members: dict[tuple[str, int], dict[str, Entry]] = {}
        for path, entry in catalog.walk(top):
            seen += 1
            assert catalog.get_key(path_key(path)) == entry, path
            assert path not in entries
            entries[path] = (entry, catalog.chunks(path))
            if entry.flags & FLAG_MOUNTPOINT:
                found_mountpoints.add(path)
                assert not catalog.has_children(path), path
            if not entry.is_directory and entry.hardlink_group:
                members.setdefault((parent_path(path), entry.hardlink_group), {})[path] = entry
        for (directory, group), paths in members.items():
            assert all(entry.linkcount == len(paths) > 1 for entry in paths.values()), (directory, paths)
            assert len({entry.hash for entry in paths.values()}) == 1, paths
            groups[directory, group] = frozenset(paths)
        # Groups are numbered per catalog: no number is used in two directories of one.
        assert len({group for _, group in members}) == len(members)
        rows = catalog.connection.execute("SELECT count(*) FROM catalog").fetchone()[0]
        assert rows == seen, (top, rows, seen)
        orphans = (
            "SELECT count(*) FROM chunks WHERE (md5path_1, md5path_2) NOT IN (SELECT md5path_1, md5path_2 FROM catalog)"
        )
        assert catalog.connection.execute(orphans).fetchone()[0] == 0
        assert found_mountpoints == set(nested), (top, found_mountpoints, set(nested))
        mountpoints |= found_mountpoints
        own, below = catalog.counters()
        assert own == catalog.count_rows(), (top, own, catalog.count_rows())
        expected = Counters()
        for path, child in nested.items():
            assert len(store.plain(child.hash)) == child.size
            expected.add(_read(store, child.hash, path, entries, mountpoints, groups))
        assert below == expected, (top, below, expected)
        own.add(below)
        return own
