"""Difference and transaction together, against the plain model of a three-way merge."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.diff import TreeDiff
from cvmfs_gw.engine.newfiles import MANY
from cvmfs_gw.engine.transaction import Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.formats.entry import Kind
from cvmfs_objstore.hashes import Algorithm, ContentHash
from tests.engine.strategies import Tree, directories, edits, merge, trees
from tests.engine.trees import NOW, Item, make_entry, new_store, plant, read


def commit(
    store: CatalogStore,
    base: ContentHash,
    result: ContentHash,
    present: ContentHash,
    scope: str = "",
    many: int = MANY,
) -> ContentHash:
    """Apply what *result* changed of *base* on *present*; returns the new root."""
    base_tree, result_tree, tree = (CatalogTree(store, root) for root in (base, result, present))
    transaction = Transaction(tree, result_tree.get)
    transaction.apply(TreeDiff(base_tree, result_tree, tree, scope, many=many).changes())
    root, _ = tree.store(NOW, Algorithm.SHA1)
    for opened in (base_tree, result_tree, tree):
        opened.close()
    return root.hash


def check(base: Tree, result: Tree, present: Tree, scope: str, many: int) -> None:
    store = new_store()
    old, new, now = (plant(store, tree.model, tree.mountpoints) for tree in (base, result, present))
    found = read(store, commit(store, old, new, now, scope, many))
    expected = merge(base, result, present, scope)
    assert found.model == expected.model
    assert found.mountpoints == expected.mountpoints


together = pytest.mark.parametrize("many", [1, MANY], ids=["new files together", "one by one"])


@together
@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_fresh_base(many: int, data: st.DataObject) -> None:
    """A publisher whose base is the present root gets exactly its result."""
    base = data.draw(trees())
    result = data.draw(edits(base))
    check(base, result, base, "", many)
    merged = merge(base, result, base, "")
    assert merged == result


@together
@given(data=st.data())
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_stale_base(many: int, data: st.DataObject) -> None:
    """Others published since the publisher's base: nothing of theirs is lost that the publisher did not touch."""
    base = data.draw(trees())
    result = data.draw(edits(base))
    present = data.draw(edits(base))
    scope = data.draw(st.sampled_from(directories(base.model)))
    check(base, result, present, scope, many)


def _tree(*paths: str, nested: tuple[str, ...] = (), seed: int = 1) -> Tree:
    """A tree of the named paths; one that ends with a slash is a directory."""
    model = {"": Item(Kind.DIRECTORY, 1)}
    for path in paths:
        kind = Kind.DIRECTORY if path.endswith("/") else Kind.FILE
        model[path.rstrip("/")] = Item(kind, 1 if kind is Kind.DIRECTORY else seed)
    return Tree(model, frozenset(nested))


def test_stale_publisher_reverts_nobody() -> None:
    """Two publishers in one nested catalog, the second with a mount that lags behind the first's commit."""
    base = _tree("/a/", "/a/.cvmfscatalog", "/a/x/", "/a/y/", nested=("/a",))
    first = _tree("/a/", "/a/.cvmfscatalog", "/a/x/", "/a/y/", "/a/x/new", nested=("/a",))
    second = _tree("/a/", "/a/.cvmfscatalog", "/a/x/", "/a/y/", "/a/y/new", nested=("/a",))
    store = new_store()
    roots = [plant(store, tree.model, tree.mountpoints) for tree in (base, first, second)]
    present = commit(store, roots[0], roots[1], roots[0], "/a/x")
    found = read(store, commit(store, roots[0], roots[2], present, "/a/y"))
    assert {"/a/x/new", "/a/y/new"} <= set(found.model)
    assert found.mountpoints == {"/a"}


def test_untouched_nested_catalog_is_swapped_by_reference() -> None:
    """Where the present tree still has the publisher's base, its nested catalog becomes ours as it is."""
    base = _tree("/a/", "/a/f", "/b/", "/b/f", nested=("/a", "/b"))
    result = _tree("/a/", "/a/f", "/a/g", "/b/", "/b/f", nested=("/a", "/b"))
    store = new_store()
    old, new = (plant(store, tree.model, tree.mountpoints) for tree in (base, result))
    root = commit(store, old, new, old, "/a")
    with store.load(root) as merged, store.load(new) as published, store.load(old) as before:
        assert merged.nested()["/a"] == published.nested()["/a"]
        assert merged.nested()["/b"] == before.nested()["/b"]


def test_directory_with_unseen_entries_stays() -> None:
    base = _tree("/d/", "/d/seen")
    present = _tree("/d/", "/d/seen", "/d/unseen")
    store = new_store()
    old, new, now = (plant(store, tree.model) for tree in (base, _tree(), present))
    assert set(read(store, commit(store, old, new, now)).model) == {"", "/d", "/d/unseen"}


def test_changes_outside_of_the_lease_are_ignored() -> None:
    base = _tree("/a/", "/b/")
    result = _tree("/a/", "/b/", "/a/x", "/b/x", "/ab")
    store = new_store()
    old, new = (plant(store, tree.model) for tree in (base, result))
    assert set(read(store, commit(store, old, new, old, "/a")).model) == {"", "/a", "/b", "/a/x"}


def test_what_comes_with_work_further_down_is_no_change() -> None:
    """Publishers store the size that a directory has on their own disk, and 0 for nanoseconds that are not known."""
    base = _tree("/d/", "/d/e/")
    store = new_store()
    with closing(CatalogTree(store, plant(store, base.model))) as tree:
        entry = tree.get("/d")
        assert entry is not None
        tree.put("/d", entry._replace(mtimens=None), (), entry)
        old = tree.store(NOW, Algorithm.SHA1)[0].hash
        tree.put("/d", entry._replace(mtimens=0, size=60), (), entry)
        tree.put("/d/e/new", *make_entry("/d/e/new", Item(Kind.FILE, 1)), None)
        result = tree.store(NOW, Algorithm.SHA1)[0].hash
    present = plant(store, base.model | {"/d": Item(Kind.DIRECTORY, 7)})
    found = read(store, commit(store, old, result, present))
    assert found.model["/d"] == Item(Kind.DIRECTORY, 7)
    assert "/d/e/new" in found.model


def test_nested_catalogs_follow_their_markers() -> None:
    """A marker put back makes a nested catalog again; one that goes from a directory that stays takes it along."""
    marked = _tree("/a/", "/a/.cvmfscatalog", "/a/x", nested=("/a",))
    touched = Tree(marked.model | {"/a/.cvmfscatalog": Item(Kind.FILE, 9)}, marked.mountpoints)
    dissolved = _tree("/a/", "/a/x")
    store = new_store()
    old, new, now = (plant(store, tree.model, tree.mountpoints) for tree in (marked, touched, dissolved))
    found = read(store, commit(store, old, new, now))
    assert found.model == touched.model
    assert found.mountpoints == {"/a"}

    added = Tree(marked.model | {"/a/new": Item(Kind.FILE, 9)}, marked.mountpoints)
    old, new, now = (plant(store, tree.model, tree.mountpoints) for tree in (marked, _tree(), added))
    found = read(store, commit(store, old, new, now))
    assert set(found.model) == {"", "/a", "/a/new"}
    assert not found.mountpoints
