"""The memory of recent catalogs: bounded, and with the stored form of the newest alone."""

from __future__ import annotations

import os
from contextlib import closing

from cvmfs_gw.engine.catalogs import CatalogCache, CatalogStore
from cvmfs_gw.engine.changes import Put
from cvmfs_gw.engine.transaction import Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.formats.entry import Kind
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from cvmfs_objstore.memory import MemoryStorage
from cvmfs_objstore.objects import ObjectStore
from cvmfs_objstore.piecewise import Deflated
from tests.engine.trees import NOW, Item, make_entry, plant

STORE = 1


def ref(number: int) -> ContentHash:
    return ContentHash.of(b"%d" % number, suffix=Suffix.CATALOG)


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache = CatalogCache(100)
    for number in range(4):
        cache.put(STORE, ref(number), bytes(30))
        cache.get(STORE, ref(0))
    assert [cache.get(STORE, ref(number)) is not None for number in range(4)] == [True, False, True, True]
    cache.put(STORE, ref(4), bytes(51))  # more than half: it would leave no room for others
    assert cache.get(STORE, ref(4)) is None
    assert cache.get(2, ref(0)) is None


def test_the_stored_form_counts_and_is_taken_once() -> None:
    deflated = Deflated.of(os.urandom(40))
    assert deflated.size >= 80
    cache = CatalogCache(2 * deflated.size)
    cache.put(STORE, ref(0), deflated)
    cache.put(STORE, ref(1), bytes(deflated.size))
    assert cache.take_deflated(STORE, ref(0)) is deflated
    assert cache.take_deflated(STORE, ref(0)) is None
    assert cache.take_deflated(STORE, ref(1)) is None
    assert cache.take_deflated(STORE, ref(2)) is None
    assert cache.get(STORE, ref(0)) == deflated.plain
    # What is given back is there for others.
    cache.put(STORE, ref(2), bytes(deflated.size - 40))
    assert all(cache.get(STORE, ref(number)) is not None for number in range(3))
    cache.drop(STORE, ref(0))
    cache.put(STORE, ref(3), bytes(40))
    assert [cache.get(STORE, ref(number)) is not None for number in range(4)] == [False, True, True, True]


def test_a_catalog_whose_stored_form_is_too_much_is_kept_plain() -> None:
    deflated = Deflated.of(os.urandom(40))
    cache = CatalogCache(100)
    cache.put(STORE, ref(0), deflated)
    assert cache.get(STORE, ref(0)) == deflated.plain
    assert cache.take_deflated(STORE, ref(0)) is None


class Counting(CatalogStore):
    """Notes which catalogs it is asked for."""

    def __init__(self) -> None:
        super().__init__(ObjectStore(MemoryStorage()), CatalogCache(0))
        self.asked: list[ContentHash] = []

    def plain(self, ref: ContentHash) -> bytes:
        self.asked.append(ref)
        return super().plain(ref)


def test_a_root_catalog_that_is_too_large_to_be_kept_is_read_once() -> None:
    store = Counting()
    root = plant(store, {"": Item(Kind.DIRECTORY, 1), "/file": Item(Kind.FILE, 1)})
    store.asked.clear()
    with closing(CatalogTree(store, root)) as tree:
        assert tree.get("/file") is not None
    assert store.asked == [root]


def test_a_tree_that_is_stored_for_the_last_time() -> None:
    """It comes out the same, and its catalogs are closed."""
    nested = {"": Item(Kind.DIRECTORY, 1), "/a": Item(Kind.DIRECTORY, 1), "/a/b": Item(Kind.DIRECTORY, 1)}
    roots = []
    for last in (False, True):
        store = CatalogStore(ObjectStore(MemoryStorage()))
        root = plant(store, nested, frozenset({"/a", "/a/b"}))
        with closing(CatalogTree(store, root)) as tree:
            path = "/a/b/file"
            Transaction(tree).apply([Put(path, *make_entry(path, Item(Kind.FILE, 1)))])
            ref, stored = tree.store(NOW, Algorithm.SHA1, last=last)
            assert len(stored) == 3
        with closing(CatalogTree(store, ref.hash)) as tree:
            assert tree.get(path) is not None
        roots.append(ref)
    assert roots[0] == roots[1]
