"""Applying changes one by one: hard link groups, special entries, nesting, the root directory, collisions."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace

import pytest

from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.changes import UNKNOWN, Change, Drop, Graft, Nest, Put, Remove, Unnest
from cvmfs_gw.engine.errors import MergeError
from cvmfs_gw.engine.transaction import Collision, Transaction, same_content
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.formats.catalog import NestedRef
from cvmfs_objstore.formats.entry import (
    FLAG_BIND_MOUNTPOINT,
    FLAG_DIRECTORY,
    FLAG_EXTERNAL,
    FLAG_HIDDEN,
    FLAG_MOUNTPOINT,
    FLAG_NESTED_ROOT,
    Entry,
    Kind,
)
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from tests.engine.trees import NOW, Found, Item, Model, make_entry, new_store, plant, read

DIRECTORY = Item(Kind.DIRECTORY, 1)
FILE = Item(Kind.FILE, 1)
CATALOG = NestedRef(ContentHash.of(b"catalog", suffix=Suffix.CATALOG), 4096)


def linked(group: int, seed: int = 1, kind: Kind = Kind.FILE, chunks: int = 0) -> Item:
    return Item(kind, seed, chunks, group)


def put(path: str, item: Item) -> Put:
    """A put of *item*; nobody minds what was there."""
    entry, chunks = make_entry(path, item, 2 if item.group else 1)
    return Put(path, entry, chunks)


class World:
    """A tree that changes are applied to, and what came of it."""

    def __init__(self, model: Model | None = None, nested: Iterable[str] = ()) -> None:
        self.store: CatalogStore = new_store()
        self.root = plant(self.store, {"": DIRECTORY} | (model or {}), frozenset(nested))
        self.collisions: list[Collision] = []

    def apply(self, *changes: Change, ancestors: Model | None = None) -> Found:
        """Apply and read back, with every count checked."""
        source = {path: make_entry(path, item)[0] for path, item in (ancestors or {}).items()}
        with closing(CatalogTree(self.store, self.root)) as tree:
            transaction = Transaction(tree, source.get)
            transaction.apply(changes)
            self.root = tree.store(NOW, Algorithm.SHA1)[0].hash
            self.collisions = transaction.collisions
        return read(self.store, self.root)

    def entry(self, path: str) -> Entry:
        with closing(CatalogTree(self.store, self.root)) as tree:
            found = tree.get(path)
        assert found is not None
        return found


def groups(found: Found) -> set[frozenset[str]]:
    return set(found.groups.values())


def paths(*names: str) -> frozenset[str]:
    return frozenset(f"/d/{name}" for name in names)


# -- hard links

D: Model = {"/d": DIRECTORY}
LINKED: Model = D | {f"/d/{name}": linked(1) for name in "abc"}


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.SYMLINK, Kind.SPECIAL])
def test_new_group(kind: Kind) -> None:
    world = World(D)
    found = world.apply(*(put(f"/d/{name}", linked(7, kind=kind)) for name in "ab"))
    assert groups(found) == {paths("a", "b")}
    assert world.entry("/d/a").linkcount == 2


def test_chunked_group() -> None:
    found = World(D).apply(*(put(f"/d/{name}", linked(7, chunks=3)) for name in "ab"))
    assert groups(found) == {paths("a", "b")}
    assert found.model["/d/a"].chunks == 3


def test_two_groups_of_one_directory_and_same_number_in_two_directories() -> None:
    world = World(D | {"/e": DIRECTORY})
    found = world.apply(
        *(put(f"/d/{name}", linked(1)) for name in "ab"),
        *(put(f"/d/{name}", linked(2)) for name in "xy"),
        *(put(f"/e/{name}", linked(1)) for name in "ab"),
    )
    assert groups(found) == {paths("a", "b"), paths("x", "y"), frozenset({"/e/a", "/e/b"})}


def test_numbers_that_the_catalog_uses_already() -> None:
    """Groups 1 and 2 are taken here; those of the source are others, whatever their numbers."""
    world = World(
        D | {"/e": DIRECTORY} | {f"/e/{n}": linked(1) for n in "ab"} | {f"/e/{n}": linked(2, 5) for n in "xy"}
    )
    found = world.apply(
        *(put(f"/d/{name}", linked(1, 3)) for name in "ab"), *(put(f"/d/{name}", linked(2, 4)) for name in "xy")
    )
    assert groups(found) == {
        paths("a", "b"),
        paths("x", "y"),
        frozenset({"/e/a", "/e/b"}),
        frozenset({"/e/x", "/e/y"}),
    }


def test_only_one_name_of_a_group() -> None:
    """The rest of the group lies outside of what was published: it is a single file here."""
    world = World(D)
    found = world.apply(put("/d/a", linked(7)))
    assert groups(found) == set()
    assert world.entry("/d/a").hardlinks == 1


@pytest.mark.parametrize(("gone", "left"), [("a", {paths("b", "c")}), ("ab", set()), ("abc", set())])
def test_removed_members(gone: str, left: set[frozenset[str]]) -> None:
    found = World(LINKED).apply(*(Remove(f"/d/{name}") for name in gone))
    assert groups(found) == left
    assert set(found.model) == {"", "/d", *(f"/d/{name}" for name in "abc" if name not in gone)}


@pytest.mark.parametrize("item", [Item(Kind.FILE, 9), Item(Kind.SYMLINK, 9), DIRECTORY, Item(Kind.FILE, 9, 2)])
def test_replaced_member(item: Item) -> None:
    found = World(LINKED).apply(put("/d/a", item))
    assert groups(found) == {paths("b", "c")}
    assert found.model["/d/a"] == item


def test_replaced_by_a_group_of_the_same_number() -> None:
    """The new group 1 of two is not mixed up with the old group 1 of three."""
    found = World(LINKED).apply(*(put(f"/d/{name}", linked(1, 6)) for name in "ab"))
    assert groups(found) == {paths("a", "b")}
    assert found.model["/d/c"].seed == 1


def test_group_takes_the_place_of_a_directory() -> None:
    """Whether others put something into it or not, and a nested catalog or not."""
    for nested in ((), ("/d/b",)):
        model: Model = D | {"/d/b": DIRECTORY, "/d/b/x": DIRECTORY, "/d/b/x/y": FILE}
        found = World(model, nested).apply(*(put(f"/d/{name}", linked(1)) for name in "abc"))
        assert groups(found) == {paths("a", "b", "c")}
        assert found.mountpoints == frozenset()


def test_nest_and_unnest_groups() -> None:
    world = World(
        LINKED | {"/d/s": DIRECTORY} | {f"/d/s/{n}": linked(2) for n in "xy"} | {f"/{n}": linked(3) for n in "pq"}
    )
    everything = {paths("a", "b", "c"), frozenset({"/d/s/x", "/d/s/y"}), frozenset({"/p", "/q"})}
    for changes in ((Nest("/d"),), (Nest("/d/s"),), (Unnest("/d"),), (Unnest("/d/s"),)):
        found = world.apply(*changes)
        assert groups(found) == everything
    assert found.mountpoints == frozenset()


def test_unnest_into_a_catalog_with_the_same_numbers() -> None:
    world = World(LINKED | {"/e": DIRECTORY} | {f"/e/{name}": linked(1, 5) for name in "xy"}, ("/d",))
    found = world.apply(Unnest("/d"))
    assert groups(found) == {paths("a", "b", "c"), frozenset({"/e/x", "/e/y"})}


def test_put_and_nest_at_once() -> None:
    found = World(LINKED).apply(Remove("/d/c"), *(put(f"/d/{name}", linked(4, 4)) for name in "xyz"), Nest("/d"))
    assert groups(found) == {paths("a", "b"), paths("x", "y", "z")}
    assert found.mountpoints == {"/d"}


def test_put_and_unnest_at_once() -> None:
    world = World(LINKED | {f"/{name}": linked(1, 5) for name in "pq"}, ("/d",))
    found = world.apply(
        *(put(f"/d/{name}", linked(4, 4)) for name in "xyz"),
        *(put(f"/{name}", linked(4, 4)) for name in "rs"),
        Unnest("/d"),
    )
    expected = {paths("a", "b", "c"), paths("x", "y", "z"), frozenset({"/p", "/q"}), frozenset({"/r", "/s"})}
    assert groups(found) == expected


def test_group_in_a_nested_catalog_that_is_dropped() -> None:
    world = World(LINKED, ("/d",))
    with closing(CatalogTree(world.store, world.root)) as tree:
        old = tree.nested_at("/d")
    assert old is not None
    found = world.apply(Drop("/d", old), put("/d/x", linked(1)), put("/d/y", linked(1)))
    assert set(found.model) == {"", "/d", "/d/x", "/d/y"}
    assert groups(found) == {paths("x", "y")}


# -- all kinds of entries


@pytest.mark.parametrize("fields", [{"uid": 77}, {"gid": 78}, {"uid": 77, "gid": 78}], ids=repr)
@pytest.mark.parametrize("path", ["/d", "/d/f", "/d/l", "/d/s", "/n", "/n/f"])
def test_changed_owner_only(path: str, fields: dict[str, int]) -> None:
    model: Model = D | {
        "/d/f": FILE,
        "/d/l": Item(Kind.SYMLINK, 1),
        "/d/s": Item(Kind.SPECIAL, 1),
        "/n": DIRECTORY,
        "/n/f": FILE,
    }
    world = World(model, ("/n",))
    before = world.entry(path)
    with closing(CatalogTree(world.store, world.root)) as tree:
        Transaction(tree).apply([Put(path, before._replace(**fields))])  # type: ignore[arg-type]
        world.root = tree.store(NOW, Algorithm.SHA1)[0].hash
    assert world.entry(path) == before._replace(**fields)  # type: ignore[arg-type]
    if path == "/n":
        with closing(CatalogTree(world.store, world.root)) as tree:
            inside = tree.node_of("/n").catalog.get("/n")
        assert inside is not None
        assert inside._replace(flags=0) == world.entry(path)._replace(flags=0)


@pytest.mark.parametrize(("old", "new"), [(3, 6), (3, 1), (1, 3)])
def test_changed_xattrs(old: int, new: int) -> None:
    """A value only, removed, added: what the counters count goes along (the reader checks it)."""
    world = World(D | {"/d/f": Item(Kind.FILE, old)})
    world.apply(put("/d/f", Item(Kind.FILE, new)))
    assert world.entry("/d/f").xattr == make_entry("/d/f", Item(Kind.FILE, new))[0].xattr


@pytest.mark.parametrize(
    ("mode", "size"),
    [(0o10644, 0), (0o20666, 0x103), (0o60660, 0x801), (0o140755, 0)],
    ids=["fifo", "chr", "blk", "sock"],
)
def test_special_files(mode: int, size: int) -> None:
    world = World(D)
    with closing(CatalogTree(world.store, world.root)) as tree:
        entry = make_entry("/d/s", Item(Kind.SPECIAL, 1))[0]._replace(mode=mode, size=size)
        Transaction(tree).apply([Put("/d/s", entry)])
        world.root = tree.store(NOW, Algorithm.SHA1)[0].hash
        assert tree.root.catalog.counters()[0].special == 1
        assert tree.root.catalog.counters()[0].file_size == 0
    assert world.entry("/d/s") == entry


def test_flags_that_belong_to_the_entry_stay() -> None:
    world = World(D)
    hidden = make_entry("/d/.cvmfs", DIRECTORY)[0]
    hidden = hidden._replace(flags=FLAG_DIRECTORY | FLAG_HIDDEN | FLAG_MOUNTPOINT | FLAG_NESTED_ROOT, hardlinks=9)
    external = make_entry("/d/f", FILE)[0]
    external = external._replace(flags=external.flags | FLAG_EXTERNAL | FLAG_HIDDEN)
    with closing(CatalogTree(world.store, world.root)) as tree:
        Transaction(tree).apply([Put("/d/.cvmfs", hidden), Put("/d/f", external), Nest("/d/.cvmfs")])
        world.root = tree.store(NOW, Algorithm.SHA1)[0].hash
        assert tree.root.catalog.counters()[0].external == 1
        assert tree.root.catalog.counters()[0].external_file_size == external.size
    assert world.entry("/d/.cvmfs") == hidden._replace(
        flags=FLAG_DIRECTORY | FLAG_HIDDEN | FLAG_MOUNTPOINT, hardlinks=2
    )
    assert world.entry("/d/f") == external


@pytest.mark.parametrize("old", [None, FILE, DIRECTORY])
def test_bind_mountpoint(old: Item | None) -> None:
    world = World(D | ({"/d/b": old} if old else {}) | ({"/d/b/x": FILE} if old == DIRECTORY else {}))
    bound = make_entry("/d/b", DIRECTORY)[0]._replace(flags=FLAG_DIRECTORY | FLAG_BIND_MOUNTPOINT, hardlinks=5)
    other = replace(CATALOG, size=9)
    for ref in (CATALOG, other):
        with closing(CatalogTree(world.store, world.root)) as tree:
            Transaction(tree).apply([Put("/d/b", bound, bind=ref)])
            world.root = tree.store(NOW, Algorithm.SHA1)[0].hash
            assert tree.root.catalog.nested("bind_mountpoints") == {"/d/b": ref}
            assert tree.get("/d/b") == bound
            assert not tree.has_children("/d/b")
            assert tree.get("/d") == make_entry("/d", DIRECTORY)[0]._replace(hardlinks=3)
    for change in (
        Remove("/d/b"),
        Put("/d/b", *make_entry("/d/b", FILE)),
        Put("/d/b", make_entry("/d/b", DIRECTORY)[0]),
    ):
        with closing(CatalogTree(world.store, world.root)) as tree:
            Transaction(tree).apply([change])
            after = tree.store(NOW, Algorithm.SHA1)[0].hash
        with closing(CatalogTree(world.store, after)) as tree:
            assert tree.root.catalog.nested("bind_mountpoints") == {}
        read(world.store, after)


def test_nothing_goes_below_a_bind_mountpoint() -> None:
    world = World(D)
    bound = make_entry("/d/b", DIRECTORY)[0]._replace(flags=FLAG_DIRECTORY | FLAG_BIND_MOUNTPOINT)
    with closing(CatalogTree(world.store, world.root)) as tree:
        Transaction(tree).apply([Put("/d/b", bound, bind=CATALOG)])
        for change in (put("/d/b/x", FILE), Nest("/d/b")):
            with pytest.raises(MergeError):
                Transaction(tree).apply([change])


def test_bind_mountpoints_move_with_their_catalog() -> None:
    world = World(D)
    bound = make_entry("/d/b", DIRECTORY)[0]._replace(flags=FLAG_DIRECTORY | FLAG_BIND_MOUNTPOINT)
    with closing(CatalogTree(world.store, world.root)) as tree:
        Transaction(tree).apply([Put("/d/b", bound, bind=CATALOG), Nest("/d")])
        world.root = tree.store(NOW, Algorithm.SHA1)[0].hash
    with closing(CatalogTree(world.store, world.root)) as tree:
        assert tree.root.catalog.nested("bind_mountpoints") == {}
        assert tree.node_of("/d").catalog.nested("bind_mountpoints") == {"/d/b": CATALOG}
        Transaction(tree).apply([Unnest("/d")])
        world.root = tree.store(NOW, Algorithm.SHA1)[0].hash
    with closing(CatalogTree(world.store, world.root)) as tree:
        assert tree.root.catalog.nested("bind_mountpoints") == {"/d/b": CATALOG}


# -- the root directory


@pytest.mark.parametrize(
    "fields", [{"uid": 5}, {"mode": 0o40700}, {"mtime": 1}, {"xattr": b"\x01\x01\x01\x00a"}], ids=repr
)
def test_entry_of_the_root(fields: dict[str, object]) -> None:
    world = World(D | {"/e": DIRECTORY, "/e/f": FILE})
    with closing(CatalogTree(world.store, world.root)) as tree:
        before = tree.get("")
        assert before is not None
        wanted = before._replace(**fields)  # type: ignore[arg-type]
        Transaction(tree).apply([Put("", wanted._replace(hardlinks=77))])
        world.root = tree.store(NOW, Algorithm.SHA1)[0].hash
        assert tree.root.catalog.counters()[0] == tree.root.catalog.count_rows()
    assert world.entry("") == wanted


def test_root_cannot_go() -> None:
    world = World(D)
    for change in (Remove(""), Remove("", recursive=True), put("", FILE), put("", Item(Kind.SYMLINK, 1))):
        with pytest.raises(MergeError):
            world.apply(change)


def test_directory_counts_at_the_root() -> None:
    """Whose own row no parent has."""
    world = World(D)
    world.apply(put("/x", DIRECTORY), put("/y", DIRECTORY), Remove("/d"))
    assert world.entry("").linkcount == 4


# -- removing


def test_remove_keeps_what_the_author_did_not_see() -> None:
    world = World(D | {"/d/f": FILE})
    found = world.apply(Remove("/d"))
    assert set(found.model) == {"", "/d", "/d/f"}
    assert world.collisions == [Collision("/d", "kept for what others put in it")]


@pytest.mark.parametrize("nested", [(), ("/d",), ("/d/s",), ("/d", "/d/s")])
def test_remove_recursively(nested: tuple[str, ...]) -> None:
    model: Model = D | {"/d/f": Item(Kind.FILE, 3, 2), "/d/s": DIRECTORY, "/d/s/t": DIRECTORY, "/d/s/t/f": FILE}
    world = World(model | {"/dd": DIRECTORY, "/dd/f": FILE}, nested)
    found = world.apply(Remove("/d", recursive=True))
    assert set(found.model) == {"", "/dd", "/dd/f"}
    assert found.mountpoints == frozenset()
    assert world.collisions == []


def test_remove_what_is_not_there() -> None:
    world = World(D)
    assert set(world.apply(Remove("/x"), Remove("/d/x"), Remove("/x/y/z", recursive=True)).model) == {"", "/d"}


@pytest.mark.parametrize("nested", [(), ("/d",)])
def test_remove_an_emptied_directory(nested: tuple[str, ...]) -> None:
    found = World(D | {"/d/f": FILE}, nested).apply(Remove("/d/f"), Remove("/d"))
    assert set(found.model) == {""}
    assert found.mountpoints == frozenset()


# -- parents


def test_missing_parents_are_made_as_the_source_had_them() -> None:
    ancestors: Model = {"/a": Item(Kind.DIRECTORY, 5), "/a/b": Item(Kind.DIRECTORY, 6)}
    found = World().apply(put("/a/b/f", FILE), ancestors=ancestors)
    assert found.model == {"": DIRECTORY, **ancestors, "/a/b/f": FILE}


@pytest.mark.parametrize("ancestors", [{}, {"/a": FILE}, {"/a/b": DIRECTORY}])
def test_parents_that_nobody_knows(ancestors: Model) -> None:
    for change in (put("/a/b/f", FILE), Nest("/a/b"), Graft("/a/b", None, CATALOG)):
        world = World()
        with pytest.raises(MergeError, match="is not a directory"):
            world.apply(change, ancestors=ancestors)


def test_parent_that_became_a_file() -> None:
    """The author of the change holds the lease: its directory comes back."""
    world = World({"/a": FILE})
    found = world.apply(put("/a/f", FILE), ancestors={"/a": DIRECTORY})
    assert found.model == {"": DIRECTORY, "/a": DIRECTORY, "/a/f": FILE}
    assert world.collisions == [Collision("/a", "replaced")]


# -- collisions


def test_collisions() -> None:
    seen, other, wanted = (make_entry("/d/f", Item(Kind.FILE, seed))[0] for seed in (1, 2, 4))
    cases: list[tuple[Item | None, Change, list[str]]] = [
        (Item(Kind.FILE, 1), Put("/d/f", wanted, base=seen), []),
        (Item(Kind.FILE, 2), Put("/d/f", wanted, base=seen), ["replaced"]),
        (Item(Kind.FILE, 2), Put("/d/f", wanted, base=None), ["replaced"]),
        (None, Put("/d/f", wanted, base=seen), ["put back"]),
        (None, Put("/d/f", wanted, base=None), []),
        (Item(Kind.FILE, 2), Put("/d/f", wanted, base=UNKNOWN), []),
        # Both sides did the same: nobody needs to know.
        (Item(Kind.FILE, 2), Put("/d/f", other, base=seen), []),
        (Item(Kind.FILE, 1), Remove("/d/f", base=seen), []),
        (Item(Kind.FILE, 2), Remove("/d/f", base=seen), ["removed"]),
        (None, Remove("/d/f", base=seen), []),
        (Item(Kind.FILE, 2), Remove("/d/f"), []),
    ]
    for present, change, outcomes in cases:
        world = World(D | ({"/d/f": present} if present else {}))
        world.apply(change)
        assert world.collisions == [Collision("/d/f", outcome) for outcome in outcomes], (present, change)


def test_link_data_is_no_collision() -> None:
    """Where only the number of links differs from what the author saw, nothing collides."""
    world = World(LINKED)
    seen = make_entry("/d/a", FILE)[0]
    world.apply(Put("/d/a", make_entry("/d/a", Item(Kind.FILE, 8))[0], base=seen.with_links(2, 9)))
    assert world.collisions == []
    assert same_content(seen, seen.with_links(2, 9))
    assert same_content(seen, seen._replace(flags=seen.flags | FLAG_MOUNTPOINT))
    assert not same_content(seen, seen._replace(flags=seen.flags | FLAG_HIDDEN))


def test_directory_with_unseen_entries_becomes_a_file() -> None:
    world = World(D | {"/d/f": FILE})
    found = world.apply(put("/d", FILE))
    assert found.model == {"": DIRECTORY, "/d": FILE}
    assert world.collisions == [Collision("/d", "replaced with what others put in it")]


# -- nesting


def test_nest_twice_and_unnest_nothing() -> None:
    world = World(D | {"/d/f": FILE})
    found = world.apply(Nest("/d"), Nest("/d"), Unnest("/x"))
    assert found.mountpoints == {"/d"}
    assert world.apply(Unnest("/d"), Unnest("/d")).mountpoints == frozenset()


@pytest.mark.parametrize("there", [FILE, Item(Kind.SYMLINK, 1)])
def test_nest_what_is_no_directory(there: Item) -> None:
    with pytest.raises(MergeError):
        World({"/d": there}).apply(Nest("/d"))


def test_graft() -> None:
    source = World(
        {"/g": DIRECTORY, "/g/s": DIRECTORY, "/g/s/f": Item(Kind.FILE, 3, 2), "/g/n": DIRECTORY}, ("/g", "/g/n")
    )
    with closing(CatalogTree(source.store, source.root)) as tree:
        ref = tree.nested_at("/g")
    assert ref is not None
    for model, nested in (({}, ()), ({"/g": DIRECTORY}, ()), ({"/g": DIRECTORY, "/g/old": FILE}, ("/g",))):
        world = World(model, nested)
        for name in source.store.objects.list():
            world.store.objects.put(name, source.store.objects.get(name))
        found = world.apply(Graft("/g", None, ref), ancestors={"/g": DIRECTORY})
        assert set(found.model) == {"", "/g", "/g/s", "/g/s/f", "/g/n"}
        assert found.mountpoints == {"/g", "/g/n"}
        with closing(CatalogTree(world.store, world.root)) as tree:
            assert tree.nested_at("/g") == ref


def test_properties_of_stored_catalogs() -> None:
    """Each that changed gets the next revision, the time, and a note of what it replaces; the others stay."""
    model: Model = D | {"/d/n": DIRECTORY, "/d/n/f": FILE, "/e": DIRECTORY, "/e/f": FILE}
    world = World(model, ("/d", "/d/n", "/e"))
    with closing(CatalogTree(world.store, world.root)) as tree:
        before = {path: tree.nested_at(path) for path in ("", "/d", "/d/n", "/e")}
    old_root = world.root
    world.apply(put("/d/n/g", FILE), put("/d/new", DIRECTORY), Nest("/d/new"))
    with closing(CatalogTree(world.store, world.root)) as tree:
        for path in ("", "/d", "/d/n"):
            catalog = tree.node_of(path).catalog
            ref = before[path]
            assert ref is not None
            assert catalog.revision == 2
            assert catalog.previous_revision == ref.hash
            assert catalog.property("last_modified") == str(NOW)
        assert before[""] is not None
        assert before[""].hash == old_root
        fresh = tree.node_of("/d/new").catalog
        assert fresh.revision == 1
        assert fresh.property("previous_revision") == "0" * 40
        assert fresh.property("root_prefix") == "/d/new"
        assert tree.nested_at("/e") == before["/e"]
