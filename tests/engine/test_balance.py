"""Automatic nested catalogs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfs_gw.engine.balance import MARKER, Weights, balance
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.formats.entry import Kind
from cvmfs_objstore.hashes import Algorithm
from tests.engine.trees import NOW, Item, Model, make_entry, new_store, plant


def _model(folders: int, files: int) -> Model:
    model = {"": Item(Kind.DIRECTORY, 1), "/lease": Item(Kind.DIRECTORY, 1), "/other": Item(Kind.DIRECTORY, 1)}
    for number in range(folders):
        for top in ("/lease", "/other"):
            model[f"{top}/d{number}"] = Item(Kind.DIRECTORY, 1)
            model.update({f"{top}/d{number}/f{n}": Item(Kind.FILE, n + 1) for n in range(files)})
    return model


def _balanced(model: Model, weights: Weights, scope: str) -> tuple[dict[str, int], set[str]]:
    """Entries by mountpoint after balancing, and the markers."""
    store = new_store()
    with_change = plant(store, model)
    tree = CatalogTree(store, with_change)
    entry, _ = make_entry("", Item(Kind.DIRECTORY, 2))
    tree.put_root(entry)
    balance(tree, weights, scope, store.objects, NOW)
    root, _ = tree.store(NOW, Algorithm.SHA1)
    tree.close()
    sizes: dict[str, int] = {}
    markers: set[str] = set()
    pending = [("", root.hash)]
    while pending:
        path, ref = pending.pop()
        with store.load(ref) as catalog:
            own, _ = catalog.counters()
            assert own == catalog.count_rows()
            sizes[path] = own.entries
            markers.update(p for p, e in catalog.walk(path) if e.name == MARKER)
            pending += [(p, nested.hash) for p, nested in catalog.nested().items()]
    return sizes, markers


def test_splits_within_the_lease_only() -> None:
    sizes, markers = _balanced(_model(5, 20), Weights(50, 10), "/lease")
    assert all(path == "" or path.startswith("/lease") for path in sizes)
    assert {path for path in sizes if path} == {marker.rpartition("/")[0] for marker in markers}
    # All that the lease can give is split off; what is left lies outside of it.
    assert sizes[""] == 1 + 2 + 5 + 5 * 20


@given(folders=st.integers(0, 6), files=st.integers(0, 30), most=st.integers(5, 60))
@settings(max_examples=40, deadline=None)
def test_nothing_too_large_stays_that_can_be_split(folders: int, files: int, most: int) -> None:
    sizes, _ = _balanced(_model(folders, files), Weights(most, 3), "")
    if 3 <= files + 1 <= most:  # every folder can be a catalog
        assert sizes[""] <= max(most, 3 + 2 * folders)


def test_small_automatic_catalogs_are_merged_again() -> None:
    store = new_store()
    model = _model(1, 3)
    model[f"/lease/d0/{MARKER}"] = Item(Kind.FILE, 5)
    tree = CatalogTree(store, plant(store, model, frozenset(("/lease/d0", "/other/d0"))))
    for path in ("/lease/d0/new", "/other/d0/new"):
        entry, _ = make_entry(path, Item(Kind.FILE, 1))
        tree.put(path, entry, (), None)
    balance(tree, Weights(50, 10), "", store.objects, NOW)
    assert not tree.is_mountpoint("/lease/d0")
    assert tree.get(f"/lease/d0/{MARKER}") is None
    assert tree.is_mountpoint("/other/d0")
    tree.close()
