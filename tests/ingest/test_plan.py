"""Several operations become one list of changes: what is seen after it is what they say, one after the other."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfs_gw.engine.balance import MARKER
from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.changes import CATALOG_MARKER, Change, Put, Remove
from cvmfs_gw.engine.transaction import Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.ingest.contents import Contents
from cvmfs_gw.ingest.errors import BadConfiguration, BadSource, BadTarget, SourceTooLarge
from cvmfs_gw.ingest.existing import ExistingBelow
from cvmfs_gw.ingest.gather import Gathered, GatherOptions, gather
from cvmfs_gw.ingest.items import Item, Whiteout
from cvmfs_gw.ingest.overlay import Add, Delete, Operation, Replace
from cvmfs_gw.ingest.ownership import IdMap
from cvmfs_gw.ingest.plan import PlanOptions, plan, scope
from cvmfs_objstore.formats.entry import Entry, Kind, is_below
from cvmfs_objstore.hashes import Algorithm, ContentHash
from cvmfs_objstore.memory import MemoryStorage
from cvmfs_objstore.objects import ObjectStore
from tests.engine.trees import NOW, plant
from tests.engine.trees import Item as Planted
from tests.ingest.support import OPTIONS

OPTIONS_NOW = PlanOptions(NOW * 10**9)
DIRECTORY = Planted(Kind.DIRECTORY, 1)
FILE = Planted(Kind.FILE, 1)


Members = Sequence[tuple[str, bytes | str | None]]


class Given:
    """A source of what it is given: bytes are files, None directories, text whiteouts ("gone", "opaque")."""

    def __init__(
        self, members: Members | Mapping[str, bytes | str | None], *, trust_times: bool = False, **fields: int
    ) -> None:
        self._members = [*members.items()] if isinstance(members, Mapping) else members
        self._fields = fields
        self.trust_times = trust_times

    def items(self) -> Iterator[Item | Whiteout]:
        for path, what in self._members:
            if isinstance(what, str):
                yield Whiteout(path, opaque=what == "opaque")
                continue
            mode = stat.S_IFDIR | 0o755 if what is None else stat.S_IFREG | 0o644
            item = Item(path, mode, 10, 20, NOW * 10**9, 0 if what is None else len(what), what)
            yield item._replace(**self._fields)  # type: ignore[arg-type]


class World:
    """A tree that operations are applied to; its contents are stored uncompressed."""

    def __init__(self, model: dict[str, Planted] | None = None) -> None:
        self.storage = MemoryStorage()
        self.store = CatalogStore(ObjectStore(self.storage))
        self.root = plant(self.store, {"": DIRECTORY} | (model or {}))

    def gathered(self, members: Members | Mapping[str, bytes | str | None], **fields: int) -> Gathered:
        with Contents(self.storage, OPTIONS, threads=1) as contents:
            return gather(Given(members, trust_times=False, **fields), contents)

    def plan(self, *operations: Operation, options: PlanOptions = OPTIONS_NOW, dirtab: bool = False) -> list[Change]:
        objects = ObjectStore(self.storage) if dirtab else None
        with closing(CatalogTree(self.store, self.root)) as tree:
            return [*plan(tree, operations, options, objects).changes]

    def apply(self, *operations: Operation, options: PlanOptions = OPTIONS_NOW, dirtab: bool = False) -> None:
        changes = self.plan(*operations, options=options, dirtab=dirtab)
        with closing(CatalogTree(self.store, self.root)) as tree:
            transaction = Transaction(tree)
            transaction.apply(changes)
            assert transaction.collisions == []
            self.root = tree.store(NOW, Algorithm.SHA1)[0].hash
        assert self.plan(*operations, options=options, dirtab=dirtab) == []

    def seen(self) -> dict[str, Entry]:
        found: dict[str, Entry] = {}

        def walk(tree: CatalogTree, path: str) -> None:
            for entry in tree.entries(path):
                found[f"{path}/{entry.name}"] = entry
                if entry.is_directory:
                    walk(tree, f"{path}/{entry.name}")

        with closing(CatalogTree(self.store, self.root)) as tree:
            walk(tree, "")
            for mountpoint in ("", *tree.root.nested):
                node = tree.node_of(mountpoint)
                assert node.catalog.counters()[0] == node.catalog.count_rows()
        return found

    def contents(self) -> dict[str, bytes | None]:
        """Contents of short files, and None for directories."""
        return {
            path: None if entry.is_directory else self.storage.read(ContentHash(entry.hash or b"").path)
            for path, entry in self.seen().items()
        }

    def mountpoints(self) -> set[str]:
        with closing(CatalogTree(self.store, self.root)) as tree:
            return {path for path in self.seen() if tree.is_mountpoint(path)}


# -- operations


def test_one_after_the_other() -> None:
    world = World()
    first, second = world.gathered({"/a": b"1", "/d/x": b"2"}), world.gathered({"/d/y": b"3", "/d/x": "gone"})
    world.apply(
        Replace(first, "/t"),
        Add(second, "/t"),
        Delete("/t/a"),
        Add(first, "/u/v"),
        Delete("/u/v/d"),
        Replace(second, "/u/v/d/e"),
    )
    assert world.contents() == {
        "/t": None,
        "/t/d": None,
        "/t/d/y": b"3",
        "/u": None,
        "/u/v": None,
        "/u/v/a": b"1",
        "/u/v/d": None,
        "/u/v/d/e": None,
        "/u/v/d/e/d": None,
        "/u/v/d/e/d/y": b"3",
    }


def test_what_was_gathered_can_be_planned_again() -> None:
    """For a head that has moved on: planning changes nothing of it."""
    first = World()
    source = first.gathered({"/d/x": b"2", "/d/e/f": b"3"})
    operations = (Add(source, "/t"), Delete("/t/d/x"), Add(source, "/t/d"), Replace(source, "/u"))
    before = first.plan(*operations)
    assert first.plan(*operations) == before
    assert first.plan(Add(source, "/t")) == World().plan(Add(source, "/t"))


def test_replace_and_add() -> None:
    world = World()
    world.apply(Replace(world.gathered({"/a": b"1", "/d/x": b"2", "/e": None}), "/t"))
    world.apply(Add(world.gathered({"/d/y": b"3", "/a": b"4"}), "/t"))
    assert world.contents() == {
        "/t": None, "/t/a": b"4", "/t/d": None, "/t/d/x": b"2", "/t/d/y": b"3", "/t/e": None,
    }  # fmt: skip
    world.apply(Replace(world.gathered({"/d/y": b"3"}), "/t"))
    assert world.contents() == {"/t": None, "/t/d": None, "/t/d/y": b"3"}
    world.apply(Delete("/t/d"))
    assert world.contents() == {"/t": None}
    world.apply(Delete("/t/d"), Delete("/no/such/thing"))
    assert world.contents() == {"/t": None}


def test_attributes_of_directories() -> None:
    """Adding leaves the target's alone, but not those of what is in it; what is made on the way is as options say."""
    world = World()
    world.apply(Replace(world.gathered({"": None, "/d": None}, uid=1), "/t"))
    world.apply(Add(world.gathered({"": None, "/d": None}, uid=2), "/t"))
    assert [world.seen()[path].uid for path in ("/t", "/t/d")] == [1, 2]
    options = PlanOptions(5_000_000_007, 0o750, (30, 40))
    world.apply(Add(world.gathered({"/e/f": b""}), "/m/n"), options=options)
    for path in ("/m", "/m/n", "/m/n/e"):
        entry = world.seen()[path]
        assert (entry.mode, entry.uid, entry.gid) == (stat.S_IFDIR | 0o750, 30, 40)
        assert (entry.mtime, entry.mtimens) == (5, 7)
    before = world.seen()["/m"]
    world.apply(Add(world.gathered({"/e/g": b""}), "/m/n"))
    assert world.seen()["/m"]._replace(hardlinks=0) == before._replace(hardlinks=0)


def test_whiteouts() -> None:
    world = World()
    world.apply(Replace(world.gathered({"/a": b"1", "/d/x": b"2", "/d/e/y": b"3", "/f/z": b"4"}), "/t"))
    world.apply(Add(world.gathered({"/a": "gone", "/d": "opaque", "/d/new": b"5", "/f": "gone", "/g": "gone"}), "/t"))
    assert world.contents() == {"/t": None, "/t/d": None, "/t/d/new": b"5"}


def test_kinds_that_change() -> None:
    world = World()
    world.apply(Replace(world.gathered({"/a": b"1", "/d/e/x": b"2"}), "/t"))
    world.apply(Add(world.gathered({"/a": None, "/a/b": b"3", "/d": b"4"}), "/t"))
    assert world.contents() == {"/t": None, "/t/a": None, "/t/a/b": b"3", "/t/d": b"4"}


@pytest.mark.parametrize("target", ["t", "/", "/t/", "/t//u", "/t/../u", "/./t", "/t\0"])
def test_targets_that_are_no_paths(target: str) -> None:
    world = World()
    for operation in (Add(world.gathered({}), target), Delete(target)):
        with pytest.raises(BadTarget):
            world.plan(operation)


def test_targets_where_nothing_can_be() -> None:
    world = World({"/f": FILE})
    source = world.gathered({"/x": b""})
    for operations in ([Add(source, "/f/t")], [Delete("")], [Add(source, ""), Add(source, "/x/y")]):
        with pytest.raises(BadTarget):
            world.plan(*operations)
    world.apply(Replace(source, "/f"))  # a file makes room for what takes its place
    assert world.contents() == {"/f": None, "/f/x": b""}


def test_changes_say_what_they_replace() -> None:
    world = World()
    world.apply(Replace(world.gathered({"/a": b"1", "/b": b"2", "/c": b"3"}), "/t"))
    before = world.seen()
    changes = world.plan(Replace(world.gathered({"/a": b"other", "/b": b"2", "/d": b"4"}), "/t"))
    found = [(type(change), change.path, change.base) for change in changes if isinstance(change, Put | Remove)]
    assert found == [(Remove, "/t/c", before["/t/c"]), (Put, "/t/a", before["/t/a"]), (Put, "/t/d", None)]
    assert len(found) == len(changes)


def test_scope() -> None:
    world = World({"/a": DIRECTORY, "/a/b": DIRECTORY, "/f": FILE})
    with closing(CatalogTree(world.store, world.root)) as tree:
        found = [
            scope(tree, targets)
            for targets in (
                ["/a/b"],
                ["/a/b/c"],
                ["/a/x/y/z"],
                ["/a/b", "/a/c"],
                ["/a", "/a/b"],
                ["/a/b", "/ab"],
                ["/f"],
                [],
            )
        ]
        assert found == ["/a/b", "/a/b/c", "/a/x", "/a", "/a", "", "/f", ""]
        with pytest.raises(BadTarget):
            scope(tree, ["/f/x"])


# -- entries


def test_owners_and_times() -> None:
    world = World()
    options = PlanOptions(0, uids=IdMap({10: 11}), gids=IdMap.to(0), mtime_ns=False)
    world.apply(Add(world.gathered({"/a": b"1"}, mtime=-1), "/t"), options=options)
    entry = world.seen()["/t/a"]
    assert (entry.uid, entry.gid, entry.mtime, entry.mtimens) == (11, 0, -1, None)


def test_what_is_known_is_not_read() -> None:
    world = World()
    world.apply(Replace(world.gathered({"/a": b"1234", "/b": bytes(3000)}), "/t"))
    for trust_times, mtime, read in ((True, NOW, 0), (True, NOW + 1, 2), (False, NOW, 2)):
        with closing(CatalogTree(world.store, world.root)) as tree:
            source = Given({"/a": b"1234", "/b": bytes(3000)}, trust_times=trust_times, mtime=mtime * 10**9)
            storage = MemoryStorage()
            with Contents(storage, OPTIONS, threads=1) as contents:
                found = gather(source, contents, existing=ExistingBelow(tree, "/t"))
            assert (found.files, found.unchanged) == (read, 2 - read)
            assert list(storage.list()) == []  # what has the same content is not stored again
            changes = plan(tree, [Replace(found, "/t")], OPTIONS_NOW).changes
            assert len(changes) == (2 if mtime != NOW else 0)


def test_whole_seconds_do_where_the_repository_has_no_others() -> None:
    world = World()
    world.apply(Replace(world.gathered({"/a": b"1234"}), "/t"), options=PlanOptions(0, mtime_ns=False))
    with closing(CatalogTree(world.store, world.root)) as tree, Contents(MemoryStorage(), OPTIONS) as contents:
        source = Given({"/a": b"1234"}, trust_times=True, mtime=NOW * 10**9 + 7)
        assert gather(source, contents, existing=ExistingBelow(tree, "/t")).unchanged == 1


def test_streams_of_unknown_length() -> None:
    world = World()

    class Streams:
        trust_times = False

        def items(self) -> Iterator[Item | Whiteout]:
            for size in (0, 1, 700, 5000):
                yield Item(f"/{size}", stat.S_IFREG | 0o644, 0, 0, 0, -1, io.BytesIO(bytes(size)))

    with Contents(world.storage, OPTIONS) as contents:
        found = gather(Streams(), contents, GatherOptions(max_file_size=5000))
        assert found.bytes == 5701
        with pytest.raises(SourceTooLarge):
            gather(Streams(), contents, GatherOptions(max_file_size=4999))
    world.apply(Add(found, "/t"))
    assert [world.seen()[f"/t/{size}"].size for size in (0, 1, 700, 5000)] == [0, 1, 700, 5000]


def test_contents_are_not_kept_in_memory() -> None:
    node = (World().gathered({"/a": b"1"}).root.children or {})["a"]
    assert node.item is not None
    assert node.item.content is None


# -- nested catalogs


def test_markers() -> None:
    world = World()
    world.apply(Replace(world.gathered({f"/d/{CATALOG_MARKER}": b"", "/d/x": b"1", "/e/y": b"2"}), "/t"))
    assert world.mountpoints() == {"/t/d"}
    world.apply(Add(world.gathered({"/d/z": b"3", f"/e/{CATALOG_MARKER}": b""}), "/t"))
    assert world.mountpoints() == {"/t/d", "/t/e"}
    world.apply(Delete(f"/t/d/{CATALOG_MARKER}"))
    assert world.mountpoints() == {"/t/e"}
    world.apply(Replace(world.gathered({"/e/y": b"2"}), "/t"))
    assert world.mountpoints() == set()


def test_automatic_catalogs_stay() -> None:
    """A source knows nothing of the marks that a server made."""
    world = World()
    world.apply(Replace(world.gathered({f"/d/{MARKER}": b"", "/d/x": b"1"}), "/t"))
    with closing(CatalogTree(world.store, world.root)) as tree:
        tree.nest("/t/d")
        world.root = tree.store(NOW, Algorithm.SHA1)[0].hash
    world.apply(Replace(world.gathered({"/d/x": b"2"}), "/t"))
    assert world.mountpoints() == {"/t/d"}
    assert f"/t/d/{MARKER}" in world.contents()
    world.apply(Replace(world.gathered({"/x": b"2"}), "/t"))
    assert world.mountpoints() == set()


def test_marker_that_is_no_file() -> None:
    world = World()
    with pytest.raises(BadSource, match="is not a file"):
        world.plan(Add(world.gathered({f"/d/{CATALOG_MARKER}": None}), "/t"))


def test_dirtab() -> None:
    world = World()
    world.apply(Add(world.gathered({"/.cvmfsdirtab": b"/t/*\n/t/*/e\n! *.git\n"}), ""))
    tree = {"/a/x": b"1", "/a/e/y": b"2", "/.git/x": b"3", "/f": b"a file", "/empty": None}
    world.apply(Replace(world.gathered(tree), "/t"), dirtab=True)
    assert world.mountpoints() == {"/t/a", "/t/a/e", "/t/empty"}
    assert world.seen()[f"/t/a/{CATALOG_MARKER}"].mtime == NOW
    # The same again, later: the marks stay what they are, though the source has none.
    later = PlanOptions((NOW + 5) * 10**9)
    assert world.plan(Replace(world.gathered(tree), "/t"), options=later, dirtab=True) == []
    # One that was taken away comes back; what is outside of the targets is left alone.
    world.apply(Delete(f"/t/a/{CATALOG_MARKER}"))
    world.apply(Add(world.gathered({"/z": b""}), "/t/empty"), dirtab=True)
    assert world.mountpoints() == {"/t/a/e", "/t/empty"}
    world.apply(Add(world.gathered({"/z": b""}), "/t/a"), dirtab=True)
    assert world.mountpoints() == {"/t/a", "/t/a/e", "/t/empty"}
    # Taking away everything is no reason to make something.
    world.apply(Delete("/t/a"), dirtab=True)
    assert world.mountpoints() == {"/t/empty"}


def test_dirtab_that_is_published_counts() -> None:
    world = World()
    world.apply(Add(world.gathered({"/.cvmfsdirtab": b"/d\n", "/d/x": b"1"}), ""), dirtab=True)
    assert world.mountpoints() == {"/d"}
    with pytest.raises(BadConfiguration):
        world.plan(Add(world.gathered({"/.cvmfsdirtab": b"no path"}), ""), dirtab=True)
    world.apply(Delete("/.cvmfsdirtab"), Add(world.gathered({"/e/d/x": b""}), ""), dirtab=True)
    assert world.mountpoints() == {"/d"}


# -- against a model

DIRECTORIES = st.lists(st.sampled_from("ab"), max_size=2).map(lambda parts: "".join(f"/{part}" for part in parts))
FILES = st.tuples(DIRECTORIES, st.sampled_from(["/x", "/y"])).map("".join)
CONTENTS: st.SearchStrategy[bytes | str | None] = st.sampled_from([b"1", b"2", "gone"])
MARKS: st.SearchStrategy[bytes | str | None] = st.sampled_from([None, "gone", "opaque"])
MEMBERS = st.tuples(FILES, CONTENTS) | st.tuples(DIRECTORIES.filter(bool), MARKS)


def consistent(members: list[tuple[str, bytes | str | None]]) -> bool:
    """Not that a directory is gone, and that it or one in it is there and opaque."""
    gone = [path for path, what in members if what == "gone"]
    return not any(what == "opaque" and is_below(path, above) for path, what in members for above in gone)


SOURCES = st.lists(MEMBERS, max_size=6).filter(lambda members: consistent(members))
OPERATIONS = st.lists(st.tuples(st.sampled_from(["add", "replace", "delete"]), DIRECTORIES, SOURCES), max_size=4)


class Model:
    """Contents by path, None for directories."""

    def __init__(self) -> None:
        self.tree: dict[str, bytes | None] = {}
        self.given: set[str] = set()
        """Paths that a source has named, and not only what is in them."""

    def empty(self, path: str) -> None:
        self.tree = {other: content for other, content in self.tree.items() if not other.startswith(path + "/")}
        self.given &= self.tree.keys()

    def delete(self, path: str) -> None:
        self.empty(path)
        self.tree.pop(path, None)
        self.given.discard(path)

    def put(self, path: str, content: bytes | None) -> None:
        parts = path.split("/")[1:]
        for end in range(1, len(parts)):
            self.tree["/" + "/".join(parts[:end])] = None
        if path:
            self.tree[path] = content
            self.given.add(path)

    def add(self, target: str, members: Members) -> None:
        self.put(target, None)
        for path, what in members:
            if what == "gone":
                self.delete(target + path)
            elif what == "opaque":
                self.empty(target + path)
        for path, what in members:
            if what != "gone":  # an opaque directory is one that is there
                self.put(target + path, what if isinstance(what, bytes) else None)


@given(batches=st.lists(OPERATIONS, min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_any_operations(batches: list[list[tuple[str, str, Members]]]) -> None:
    """One batch of operations after the other, against a dictionary that is changed step by step."""
    world, model = World(), Model()
    for batch in batches:
        operations: list[Operation] = []
        for kind, target, members in batch:
            if kind == "delete":
                if target:
                    operations.append(Delete(target))
                    model.delete(target)
                continue
            source = world.gathered([("", None), *members])
            operations.append(Replace(source, target) if kind == "replace" else Add(source, target))
            if kind == "replace":
                model.empty(target)
            model.add(target, members)
        world.apply(*operations)
        found = world.contents()
        assert found.items() <= model.tree.items()
        # Directories that were to hold something that went again in the same batch are not made.
        assert all(model.tree[path] is None for path in model.tree.keys() - found.keys())
        assert not model.given & (model.tree.keys() - found.keys())
        model.tree = found
