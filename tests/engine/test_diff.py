"""The difference of two catalog trees: hard link groups, chunk lists, rows and catalogs that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.changes import Change, Drop, Graft, Nest, Put, Remove, Unnest
from cvmfs_gw.engine.diff import TreeDiff
from cvmfs_gw.engine.errors import MergeError, MissingObject
from cvmfs_gw.engine.transaction import Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.compression import deflate
from cvmfs_objstore.formats.catalog import Catalog, NestedRef
from cvmfs_objstore.formats.entry import FLAG_BIND_MOUNTPOINT, FLAG_DIRECTORY, Chunk, Entry, Kind, path_key
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from tests.engine.strategies import Tree, directories, edits, groups, merge, trees
from tests.engine.trees import NOW, Item, Model, make_entry, new_store, plant, read

DIRECTORY = Item(Kind.DIRECTORY, 1)
FILE = Item(Kind.FILE, 1)


def changes(
    store: CatalogStore, base: ContentHash, result: ContentHash, present: ContentHash | None = None, scope: str = ""
) -> list[Change]:
    """What *result* changed of *base*."""
    with ExitStack() as stack:
        one, other, now = (
            stack.enter_context(closing(CatalogTree(store, root))) for root in (base, result, present or base)
        )
        return list(TreeDiff(one, other, now, scope).changes())


def commit(
    store: CatalogStore, base: ContentHash, result: ContentHash, present: ContentHash, scope: str = ""
) -> ContentHash:
    """The root after what *result* changed of *base* was applied to *present*."""
    with ExitStack() as stack:
        one, other, tree = (stack.enter_context(closing(CatalogTree(store, root))) for root in (base, result, present))
        transaction = Transaction(tree, other.get)
        transaction.apply(stack.enter_context(closing(TreeDiff(one, other, tree, scope).changes())))
        return tree.store(NOW, Algorithm.SHA1)[0].hash


def check(base: Tree, result: Tree, present: Tree, scope: str) -> None:
    """One merge of real catalogs against the merge of plain dicts, hard link groups included."""
    store = new_store()
    old, new, now = (plant(store, tree.model, tree.mountpoints) for tree in (base, result, present))
    found = read(store, commit(store, old, new, now, scope))
    expected = merge(base, result, present, scope)
    assert found.model == {path: replace(item, group=0) for path, item in expected.model.items()}
    assert found.mountpoints == expected.mountpoints
    assert set(found.groups.values()) == groups(expected.model)


def tree(nested: Iterable[str] = (), /, **items: Item) -> Tree:
    """A tree of files in ``/d``, by name."""
    model: Model = {"": DIRECTORY, "/d": DIRECTORY}
    return Tree(model | {f"/d/{name}": item for name, item in items.items()}, frozenset(nested))


def linked(group: int, seed: int = 1) -> Item:
    return Item(Kind.FILE, seed, group=group)


# -- hard links


@given(data=st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_groups_of_a_fresh_publisher(data: st.DataObject) -> None:
    base = data.draw(trees(links=True))
    result = data.draw(edits(base, links=True))
    check(base, result, base, "")
    assert groups(merge(base, result, base, "").model) == groups(result.model)


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_groups_of_a_stale_publisher(data: st.DataObject) -> None:
    base = data.draw(trees(links=True))
    result = data.draw(edits(base, links=True))
    present = data.draw(edits(base, links=True))
    scope = data.draw(st.sampled_from(directories(base.model)))
    check(base, result, present, scope)


# Each case: base, result, and the groups that must come out of a merge on base.
GROUPS: dict[str, tuple[Tree, Tree]] = {
    "new": (tree(), tree(a=linked(1), b=linked(1))),
    "one more member": (tree(a=linked(1), b=linked(1)), tree(a=linked(1), b=linked(1), c=linked(1))),
    "one member less": (tree(a=linked(1), b=linked(1), c=linked(1)), tree(a=linked(1), b=linked(1))),
    "last but one goes": (tree(a=linked(1), b=linked(1)), tree(a=FILE)),
    "a member is replaced": (
        tree(a=linked(1), b=linked(1), c=linked(1)),
        tree(a=linked(1), b=linked(1), c=Item(Kind.FILE, 7)),
    ),
    "a member moves": (tree(a=linked(1), b=linked(1)), tree(a=linked(1), c=linked(1))),
    "content of all changes": (tree(a=linked(1), b=linked(1)), tree(a=linked(1, 5), b=linked(1, 5))),
    "a single file gets a second name": (tree(a=FILE), tree(a=linked(1), b=linked(1))),
    "only the number changes": (tree(a=linked(1), b=linked(1)), tree(a=linked(4), b=linked(4))),
    "two groups swap members": (
        tree(a=linked(1), b=linked(1), c=linked(2), d=linked(2)),
        tree(a=linked(1), b=linked(2), c=linked(1), d=linked(2)),
    ),
    "it becomes chunked": (
        tree(a=linked(1), b=linked(1)),
        tree(a=Item(Kind.FILE, 1, 2, 1), b=Item(Kind.FILE, 1, 2, 1)),
    ),
    "symbolic links": (tree(), tree(a=Item(Kind.SYMLINK, 1, 0, 1), b=Item(Kind.SYMLINK, 1, 0, 1))),
    "special files": (tree(), tree(a=Item(Kind.SPECIAL, 1, 0, 1), b=Item(Kind.SPECIAL, 1, 0, 1))),
    "nested": (tree(a=linked(1), b=linked(1)), tree(("/d",), a=linked(1), b=linked(1))),
    "dissolved": (tree(("/d",), a=linked(1), b=linked(1)), tree(a=linked(1), b=linked(1))),
    "nested with one more": (tree(a=linked(1), b=linked(1)), tree(("/d",), a=linked(1), b=linked(1), c=linked(1))),
    "dissolved with one less": (
        tree(("/d",), a=linked(1), b=linked(1), c=linked(1)),
        tree(a=linked(1), b=linked(1)),
    ),
}


@pytest.mark.parametrize("case", GROUPS)
@pytest.mark.parametrize("neighbours", [False, True])
def test_groups(case: str, neighbours: bool) -> None:
    """Alone, and with others' groups of the same numbers in the present catalog."""
    base, result = GROUPS[case]
    if neighbours:
        others: Model = {"/e": DIRECTORY} | {f"/e/{name}": linked(1, 9) for name in "xy"}
        others |= {f"/e/{name}": linked(2, 8) for name in "vw"}
        present = Tree(base.model | others, base.mountpoints)
        if base.mountpoints or case == "only the number changes":
            check(base, result, base, "/d")
            return
        shifted = {path: replace(item, group=item.group and item.group + 10) for path, item in base.model.items()}
        present = Tree(shifted | others, base.mountpoints)
        check(base, result, present, "/d")
        return
    check(base, result, base, "")
    store = new_store()
    old, new = (plant(store, one.model, one.mountpoints) for one in (base, result))
    merged = read(store, commit(store, old, new, old))
    if case != "two groups swap members":
        assert set(merged.groups.values()) == groups(result.model)


def test_others_put_more_names_into_the_group() -> None:
    """What the publisher put is one group; a name that it did not see is a file of its own, with its content."""
    base = tree(a=linked(1), b=linked(1))
    present = tree(a=linked(1), b=linked(1), other=linked(1))
    result = tree(a=linked(1, 5), b=linked(1, 5))
    check(base, result, present, "/d")


def test_member_takes_the_place_of_a_directory_with_unseen_entries() -> None:
    """Emptying the directory in between does not tear the group apart."""
    base = Tree({"": DIRECTORY, "/d": DIRECTORY}, frozenset())
    present = Tree(base.model | {"/d/b": DIRECTORY, "/d/b/deep": DIRECTORY, "/d/b/deep/x": FILE}, frozenset())
    result = tree(a=linked(1), b=linked(1), c=linked(1))
    check(base, result, present, "")


def test_member_takes_the_place_of_a_nested_catalog() -> None:
    base = Tree({"": DIRECTORY, "/d": DIRECTORY}, frozenset())
    nested: Model = {"/d/b": DIRECTORY, "/d/b/x": FILE}
    present = Tree(base.model | nested, frozenset({"/d/b"}))
    check(base, tree(a=linked(1), b=linked(1), c=linked(1)), present, "")


# -- what is a change


def test_nothing() -> None:
    store = new_store()
    model = {"": DIRECTORY, "/d": DIRECTORY, "/d/f": FILE}
    one = plant(store, model, revision=1)
    other = plant(store, model, revision=2)
    assert one != other
    assert changes(store, one, other) == []


def test_order() -> None:
    store = new_store()
    base: Model = {"": DIRECTORY, "/a": DIRECTORY, "/a/b": DIRECTORY, "/a/b/c": FILE, "/n": DIRECTORY, "/n/f": FILE}
    base |= {"/u": DIRECTORY, "/u/f": FILE, "/g": DIRECTORY, "/g/f": FILE}
    result: Model = {"": DIRECTORY, "/x": DIRECTORY, "/x/y": DIRECTORY, "/x/y/z": FILE, "/x-": FILE, "/u": DIRECTORY}
    result |= {"/u/f": FILE, "/g": DIRECTORY, "/g/f": replace(FILE, seed=2), "/w": DIRECTORY, "/w/f": FILE}
    old = plant(store, base, frozenset({"/n", "/u", "/g"}))
    new = plant(store, result, frozenset({"/g", "/x/y", "/w"}))
    found = changes(store, old, new)
    order = {Drop: 0, Remove: 0, Put: 1, Graft: 2, Unnest: 3, Nest: 3}
    ranks = [order[type(change)] for change in found]
    assert ranks == sorted(ranks)
    removed = [change.path for change in found if isinstance(change, Remove)]
    assert removed.index("/a/b/c") < removed.index("/a/b") < removed.index("/a")
    put = [change.path for change in found if isinstance(change, Put)]
    assert len(put) == len(set(put))
    for path in put:
        parent = path.rpartition("/")[0]
        assert parent not in put or put.index(parent) < put.index(path)
    assert {change.path for change in found if isinstance(change, Drop)} == {"/n"}
    assert {change.path for change in found if isinstance(change, Unnest)} == {"/u"}
    assert {change.path for change in found if isinstance(change, Graft)} == {"/g", "/w", "/x/y"}


def test_unchanged_nested_catalog_is_not_opened() -> None:
    store = new_store()
    model: Model = {"": DIRECTORY, "/n": DIRECTORY, "/n/f": FILE}
    old = plant(store, model, frozenset({"/n"}))
    new = plant(store, model | {"/f": FILE}, frozenset({"/n"}))
    with store.load(old) as catalog:
        store.objects.delete(catalog.nested()["/n"].hash)
    fresh = CatalogStore(store.objects)
    assert [change.path for change in changes(fresh, old, new) if isinstance(change, Put)] == ["/f"]


@pytest.mark.parametrize(
    "field",
    [
        {"uid": 99},
        {"gid": 99},
        {"mode": 0o100600},
        {"mtime": 1},
        {"mtimens": None},
        {"xattr": b"\x01\x01\x04\x01userz"},
        {"size": 12345},
        {"hash": bytes(20)},
        {"flags": 4 | 1 << 15},
        {"flags": 4 | 1 << 11},
    ],
    ids=lambda field: "-".join(field),
)
def test_every_column_counts(field: dict[str, object]) -> None:
    store = new_store()
    old = plant(store, tree(f=FILE).model)

    def edit(catalog: Catalog) -> None:
        entry = catalog.get("/d/f")
        assert entry is not None
        catalog.put("/d/f", entry._replace(**field))  # type: ignore[arg-type]

    new = edited(store, old, edit)
    (change,) = changes(store, old, new)
    assert isinstance(change, Put)
    for name, value in field.items():
        assert getattr(change.entry, name) == value
    with closing(CatalogTree(store, commit(store, old, new, old))) as merged:
        entry = merged.get("/d/f")
    assert entry == change.entry


def test_link_count_of_a_directory_is_no_change() -> None:
    """It belongs to the tree that the directory is in."""
    store = new_store()
    old = plant(store, tree(f=FILE).model)
    new = edited(store, old, lambda catalog: catalog.set_links("/d", 17))
    assert changes(store, old, new) == []


def edited(store: CatalogStore, root: ContentHash, edit: Callable[[Catalog], object]) -> ContentHash:
    """The catalog *root* after *edit*, stored as somebody else's tool might store it."""
    with store.load(root) as catalog:
        edit(catalog)
        catalog.set_counters(catalog.count_rows(), catalog.counters()[1])
        catalog.set_property("revision", catalog.revision + 1)
        catalog.set_property("previous_revision", root.bare)
        return store.store(catalog, Algorithm.SHA1).hash


@pytest.mark.parametrize("chunks", [2, 4])
@pytest.mark.parametrize("nested", [(), ("/d",)])
def test_chunks_alone(chunks: int, nested: tuple[str, ...]) -> None:
    """The same row with another list of chunks: legacy whole-file hashes are the same, or there are none."""
    store = new_store()
    model: Model = {"": DIRECTORY, "/d": DIRECTORY, "/d/f": Item(Kind.FILE, 1, 3), "/d/g": Item(Kind.FILE, 2, 3)}
    old = plant(store, model, frozenset(nested))
    parts = tuple(Chunk(i * 7, 7, ContentHash.of(b"%d" % i).digest) for i in range(chunks))

    def edit(catalog: Catalog) -> None:
        entry = catalog.get("/d/f")
        assert entry is not None
        catalog.put("/d/f", entry, parts)

    if nested:
        with store.load(old) as catalog:
            inner = edited(store, catalog.nested()["/d"].hash, edit)
        size = len(store.plain(inner))
        new = edited(store, old, lambda catalog: catalog.set_nested("/d", NestedRef(inner, size)))
        # A present tree in which others changed the nested catalog, so that it is merged and not swapped.
        present = plant(store, model | {"/d/h": FILE}, frozenset(nested))
    else:
        new, present = edited(store, old, edit), old
    found = [change for change in changes(store, old, new, present) if isinstance(change, Put)]
    assert [(change.path, change.chunks) for change in found] == [("/d/f", parts)]
    with closing(CatalogTree(store, commit(store, old, new, present))) as merged:
        assert merged.chunks("/d/f") == parts
        assert len(merged.chunks("/d/g")) == 3
        own, _ = merged.node_of("/d").catalog.counters()
        assert own == merged.node_of("/d").catalog.count_rows()


def test_chunks_of_another_content_only() -> None:
    """One chunk's hash changes, not its place: also found."""
    store = new_store()
    old = plant(store, tree(f=Item(Kind.FILE, 1, 3)).model)

    def edit(catalog: Catalog) -> None:
        entry = catalog.get("/d/f")
        assert entry is not None
        one, two, three = catalog.chunks("/d/f")
        catalog.put("/d/f", entry, (one, two._replace(hash=bytes(20)), three))

    (change,) = changes(store, old, edited(store, old, edit))
    assert isinstance(change, Put)
    assert change.chunks[1].hash == bytes(20)


def test_bind_mountpoint_alone() -> None:
    """The row of a bind mountpoint stays while what it shows becomes another catalog."""
    store = new_store()
    one, other = (NestedRef(ContentHash.of(text, suffix=Suffix.CATALOG), 4096) for text in (b"1", b"2"))

    def show(ref: NestedRef) -> Callable[[Catalog], None]:
        def edit(catalog: Catalog) -> None:
            entry = make_entry("/b", DIRECTORY)[0]
            catalog.put("/b", entry._replace(flags=FLAG_DIRECTORY | FLAG_BIND_MOUNTPOINT, hardlinks=5))
            catalog.set_nested("/b", ref, "bind_mountpoints")

        return edit

    empty = plant(store, {"": DIRECTORY})
    old = edited(store, empty, show(one))
    new = edited(store, old, show(other))
    (change,) = changes(store, old, new)
    assert isinstance(change, Put)
    assert change.bind == other
    for base, present in ((old, old), (empty, empty), (old, empty)):
        with closing(CatalogTree(store, commit(store, base, new, present))) as merged:
            assert merged.root.catalog.nested("bind_mountpoints") == {"/b": other}
            entry = merged.get("/b")
            assert entry is not None
            assert entry.flags == FLAG_DIRECTORY | FLAG_BIND_MOUNTPOINT
            # What it shows has its own sub-directories: the number is the publisher's.
            assert entry.linkcount == 5
    gone = commit(store, old, empty, old)
    with closing(CatalogTree(store, gone)) as merged:
        assert merged.root.catalog.nested("bind_mountpoints") == {}
        assert merged.get("/b") is None


# -- trees that cannot be


def bad_root(edit: Callable[[Catalog], object], model: Model | None = None) -> tuple[CatalogStore, list[ContentHash]]:
    store = new_store()
    old = plant(store, model or tree(f=FILE).model)
    return store, [old, edited(store, old, edit)]


def put_raw(
    path: str, entry: Entry, parent: tuple[int, int] | None = None, key: tuple[int, int] | None = None
) -> Callable[[Catalog], None]:
    def edit(catalog: Catalog) -> None:
        catalog.put_new_rows([Catalog.row(path, entry, key, parent)])

    return edit


SOME_FILE = make_entry("/d/x", FILE)[0]
SOME_DIRECTORY = make_entry("/d/x", DIRECTORY)[0]

IMPOSSIBLE: dict[str, Callable[[Catalog], None]] = {
    "name of another": put_raw("/d/x", SOME_FILE._replace(name="y")),
    "no name": put_raw("/d/x", SOME_FILE._replace(name="")),
    "dot": put_raw("/d/.", SOME_FILE._replace(name=".")),
    "dots": put_raw("/d/..", SOME_FILE._replace(name="..")),
    "slash": put_raw("/d/x/y", SOME_FILE._replace(name="x/y"), path_key("/d")),
    "nul": put_raw("/d/x\0", SOME_FILE._replace(name="x\0")),
    "parent missing": put_raw("/e/x", SOME_FILE),
    "parent is a file": put_raw("/d/f/x", SOME_FILE),
    "parent of another": put_raw("/d/x", SOME_FILE, path_key("")),
    "key of another": put_raw("/d/x", SOME_FILE, key=path_key("/d/y")),
    "no parent": put_raw("/d/x", SOME_FILE, (0, 0)),
    "directory without parent": put_raw("/d/x", SOME_DIRECTORY, (0, 0)),
    "its own parent": put_raw("/d/x", SOME_DIRECTORY, path_key("/d/x")),
    "directory with the name of another": put_raw("/d/x", SOME_DIRECTORY._replace(name="y")),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
@pytest.mark.parametrize("scope", ["", "/d"])
def test_impossible_rows(case: str, scope: str) -> None:
    """A row that no tool makes is refused, whether it lies in the lease or nobody can say where it lies."""
    store, (old, new) = bad_root(IMPOSSIBLE[case])
    with pytest.raises(MergeError):
        commit(store, old, new, old, scope)


def test_cycle_of_directories() -> None:
    def edit(catalog: Catalog) -> None:
        put_raw("/x", SOME_DIRECTORY, path_key("/y"))(catalog)
        put_raw("/y", SOME_DIRECTORY._replace(name="y"), path_key("/x"))(catalog)

    store, (old, new) = bad_root(edit)
    with pytest.raises(MergeError):
        commit(store, old, new, old)


def test_directory_became_a_file_with_children_left() -> None:
    def edit(catalog: Catalog) -> None:
        catalog.put("/d", make_entry("/d", FILE)[0])
        catalog.put("/d/new", make_entry("/d/new", FILE)[0])

    store, (old, new) = bad_root(edit)
    with pytest.raises(MergeError):
        commit(store, old, new, old)


def test_root_directory_became_a_file() -> None:
    store, (old, new) = bad_root(lambda catalog: catalog.put("", make_entry("", FILE)[0]))
    with pytest.raises(MergeError):
        commit(store, old, new, old)


def test_root_directory_is_missing() -> None:
    store, (old, new) = bad_root(lambda catalog: catalog.remove(""))
    with pytest.raises(MergeError):
        commit(store, old, new, old)


@pytest.mark.parametrize("fresh", [True, False])
def test_nested_catalog_of_another_place(fresh: bool) -> None:
    """A registration that leads to a catalog whose own idea of where it is differs."""
    store = new_store()
    base: Model = {"": DIRECTORY, "/n": DIRECTORY, "/n/f": FILE, "/m": DIRECTORY, "/m/f": FILE}
    old = plant(store, base if not fresh else {"": DIRECTORY}, frozenset() if fresh else frozenset({"/n", "/m"}))
    other = plant(store, base | {"/m/g": FILE}, frozenset({"/n", "/m"}))
    with store.load(other) as catalog:
        wrong = catalog.nested()["/m"]
    new = edited(store, other, lambda catalog: catalog.set_nested("/n", wrong))
    with pytest.raises(MergeError, match=f"catalog {wrong.hash} belongs to /m, not to /n"):
        commit(store, old, new, old)


@pytest.mark.parametrize("scope", ["", "/n", "/n/f"])
@pytest.mark.parametrize("side", ["base", "result"])
def test_missing_nested_catalog_is_named(side: str, scope: str) -> None:
    store = new_store()
    base: Model = {"": DIRECTORY, "/n": DIRECTORY, "/n/f": FILE}
    old = plant(store, base, frozenset({"/n"}))
    new = plant(store, base | {"/n/f": replace(FILE, seed=4)}, frozenset({"/n"}))
    present = plant(store, base | {"/n/g": FILE}, frozenset({"/n"}))
    with store.load(old if side == "base" else new) as catalog:
        lost = catalog.nested()["/n"].hash
    store.objects.delete(lost)
    with pytest.raises(MissingObject, match=str(lost)):
        commit(CatalogStore(store.objects), old, new, present, scope)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_missing_root_is_named(which: int) -> None:
    store = new_store()
    roots = [plant(store, tree(f=replace(FILE, seed=seed)).model) for seed in range(3)]
    store.objects.delete(roots[which])
    with pytest.raises(MissingObject, match=str(roots[which])):
        commit(CatalogStore(store.objects), roots[0], roots[1], roots[2])


def test_registered_without_a_mountpoint() -> None:
    """A nested catalog registered where there is no directory, or where a file is."""
    store = new_store()
    model: Model = {"": DIRECTORY, "/n": DIRECTORY, "/n/f": FILE}
    with store.load(plant(store, model, frozenset({"/n"}))) as catalog:
        nested = catalog.nested()["/n"]
    for there in ({"": DIRECTORY}, {"": DIRECTORY, "/n": FILE}):
        old = plant(store, there)
        new = edited(store, old, lambda catalog: catalog.set_nested("/n", nested))
        with pytest.raises(MergeError):
            commit(store, old, new, old)


@example(raw=b"")
@given(raw=st.binary(max_size=200))
@settings(max_examples=30, deadline=None)
def test_root_that_is_no_catalog(raw: bytes) -> None:
    store = new_store()
    old = plant(store, {"": DIRECTORY})
    name = store.objects.add(raw, Algorithm.SHA1, Suffix.CATALOG, deflate=deflate)
    with pytest.raises(MergeError, match=str(name)):
        commit(store, old, name, old)
