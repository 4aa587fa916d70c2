"""What has not changed is found by directory, or one by one: the verdict is the same."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cvmfs_gw.ingest.directory
from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.changes import CATALOG_MARKER
from cvmfs_gw.engine.transaction import Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.ingest.contents import Contents
from cvmfs_gw.ingest.directory import DirectorySource
from cvmfs_gw.ingest.errors import IngestError
from cvmfs_gw.ingest.existing import ExistingBelow
from cvmfs_gw.ingest.gather import Gathered, GatherOptions, gather
from cvmfs_gw.ingest.items import Item, Source, Whiteout
from cvmfs_gw.ingest.overlay import Add, Delete, Replace
from cvmfs_gw.ingest.ownership import SAME, IdMap
from cvmfs_gw.ingest.plan import PlanOptions, plan
from cvmfs_objstore.formats.entry import FLAG_EXTERNAL, FLAG_HIDDEN, Entry, Kind
from cvmfs_objstore.hashes import Algorithm, ContentHash
from cvmfs_objstore.memory import MemoryStorage
from cvmfs_objstore.objects import ObjectStore
from tests.engine.trees import NOW, new_store, plant
from tests.engine.trees import Item as Planted
from tests.ingest.support import OPTIONS

TARGET = "/target"


class OneByOne:
    """A directory whose files are compared one by one."""

    trust_times = True

    def __init__(self, source: DirectorySource) -> None:
        self._source = source

    def items(self) -> Iterator[Item | Whiteout]:
        return self._source.items()


class World:
    """A tree with the folder in it, as it is or was."""

    def __init__(self, folder: Path, uids: IdMap = SAME, gids: IdMap = SAME) -> None:
        self.folder, self.options = folder, PlanOptions(NOW * 10**9, uids=uids, gids=gids)
        self.storage = MemoryStorage()
        self.store = CatalogStore(ObjectStore(self.storage))
        self.root = plant(self.store, {"": Planted(Kind.DIRECTORY, 1)})

    def open(self) -> CatalogTree:
        return CatalogTree(self.store, self.root)

    def gathered(
        self,
        tree: CatalogTree | Future[CatalogTree],
        *,
        one_by_one: bool = False,
        limits: GatherOptions | None = None,
    ) -> Gathered:
        source: Source = DirectorySource(str(self.folder))
        if one_by_one:
            source = OneByOne(DirectorySource(str(self.folder)))
        existing = ExistingBelow(tree, TARGET, self.options.uids, self.options.gids)
        with Contents(self.storage, OPTIONS, threads=1) as contents:
            return gather(source, contents, limits, existing=existing)

    def publish(self) -> None:
        with closing(self.open()) as tree:
            found = self.gathered(tree, one_by_one=True)
            Transaction(tree).apply(plan(tree, [Replace(found, TARGET)], self.options).changes)
            self.root = tree.store(NOW, Algorithm.SHA1)[0].hash

    def edit(self, path: str, **fields: Any) -> None:
        """Have other columns in the entry, as other tools may write it."""
        with closing(self.open()) as tree:
            node = tree.node_of(path.rpartition("/")[0])
            entry = node.catalog.get(path)
            assert entry is not None
            node.catalog.put(path, entry._replace(**fields), node.catalog.chunks(path))
            node.changed = True
            self.root = tree.store(NOW, Algorithm.SHA1)[0].hash

    def verdict(self, *, one_by_one: bool, add: bool = False, limits: GatherOptions | None = None) -> Any:
        """What would be read and changed, or the error."""
        with closing(self.open()) as tree:
            try:
                found = self.gathered(tree, one_by_one=one_by_one, limits=limits)
                operation = Add(found, TARGET) if add else Replace(found, TARGET)
                changes = plan(tree, [operation], self.options).changes
            except IngestError as error:
                return type(error)
            return (found.entries, found.files, found.unchanged, found.bytes), sorted(map(repr, changes))

    def compare(self, *, add: bool = False, limits: GatherOptions | None = None) -> Any:
        """The verdict, which is the same both ways."""
        by_rows = self.verdict(one_by_one=False, add=add, limits=limits)
        assert by_rows == self.verdict(one_by_one=True, add=add, limits=limits)
        return by_rows


class Opening(Future[CatalogTree]):
    """A tree that is open when it has been asked for that often."""

    def __init__(self, tree: CatalogTree, questions: int) -> None:
        super().__init__()
        self._tree, self._left = tree, questions

    def done(self) -> bool:
        self._left -= 1
        return self._left < 0

    def result(self, timeout: float | None = None) -> CatalogTree:
        return self._tree


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "folder"
    _make(top)
    return top


def _make(top: Path) -> None:
    for directory in (top, top / "a", top / "a/deep", top / "b", top / "nested", top / "empty"):
        directory.mkdir(parents=True)
        if directory.name != "empty":
            (directory / "one").write_text(f"one of {directory.name}")
            (directory / "two").write_text("two")
            (directory / "link").symlink_to("one")
    (top / "nested" / CATALOG_MARKER).touch()
    (top / "b/large").write_bytes(os.urandom(5000))
    os.link(top / "b/one", top / "b/same")
    os.link(top / "a/one", top.parent / "elsewhere")


def test_nothing_has_changed(folder: Path) -> None:
    world = World(folder)
    world.publish()
    with closing(world.open()) as tree:
        found = world.gathered(tree)
        assert found.unchanged == 12
        assert found.files == 0
        kept = [path for path in ("", "a", "a/deep", "b", "nested") if _node(found, path).rest is not None]
        assert kept == ["", "a", "a/deep", "nested"]
        assert plan(tree, [Replace(found, TARGET)], world.options).changes == []
        assert _node(found, "a").rest is not None
    world.compare()


@pytest.mark.parametrize("questions", [0, 1, 3, 1000])
@pytest.mark.parametrize("most", [5, 1000])
def test_listed_while_the_tree_is_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch, questions: int, most: int
) -> None:
    """So many entries at most; what is found is the same."""
    monkeypatch.setattr(cvmfs_gw.ingest.directory, "_AHEAD", most)
    world = World(folder)
    world.publish()
    (folder / "a/one").write_text("another")
    with closing(world.open()) as tree:
        expected = world.gathered(tree)
        opening = Opening(tree, questions)
        found = world.gathered(opening)
        changes = [plan(tree, [Replace(one, TARGET)], world.options).changes for one in (expected, found)]
    assert (found.entries, found.files, found.unchanged) == (expected.entries, 1, expected.unchanged)
    assert [*map(repr, changes[0])] == [*map(repr, changes[1])]


def _node(found: Gathered, path: str) -> Any:
    node = found.root
    for name in path.split("/") if path else ():
        assert node.at_hand is not None
        node = node.at_hand[name]
    return node


def test_somewhere_else(folder: Path) -> None:
    """What was kept is what it was, also in a tree that it was not compared with, and beside other operations."""
    world = World(folder)
    world.publish()
    with closing(world.open()) as tree, closing(world.open()) as other:
        found = world.gathered(tree)
        assert plan(other, [Replace(found, TARGET)], world.options).changes == []
        Transaction(other).apply(plan(other, [Delete(TARGET)], world.options).changes)
        with_rows = plan(other, [Replace(found, TARGET)], world.options).changes
        one_by_one = plan(other, [Replace(world.gathered(tree, one_by_one=True), TARGET)], world.options).changes
        assert sorted(map(repr, with_rows)) == sorted(map(repr, one_by_one))
        assert len(with_rows) > 20
        again = plan(tree, [Delete(TARGET), Add(world.gathered(tree), TARGET)], world.options).changes
        assert again == []
        moved = plan(tree, [Replace(world.gathered(tree), "/copy")], world.options).changes
        assert len(moved) == len(with_rows)


def test_another_directory(folder: Path) -> None:
    """What was kept in one place is not taken for what is in another."""
    world = World(folder)
    world.publish()
    with closing(world.open()) as tree:
        found = world.gathered(tree)
        shutil.rmtree(folder / "a")
        (folder / "a").mkdir()
        Transaction(tree).apply(plan(tree, [Replace(world.gathered(tree), "/copy")], world.options).changes)
        changes = plan(tree, [Replace(found, "/copy")], world.options).changes
        assert len(changes) == 9  # the top, a, its three files, the directory in it with as many


CASES: dict[str, dict[str, Any]] = {
    "hidden": {"flags": 4 | FLAG_HIDDEN},
    "external": {"flags": 4 | FLAG_EXTERNAL},
    "no nanoseconds": {"mtimens": None},
    "mode": {"mode": stat.S_IFREG | 0o600},
    "owner": {"uid": 4711},
    "size": {"size": 4711},
    "a link": {"flags": 12, "symlink": "x"},
    "attributes": {"xattr": bytes((1, 1, 4, 1)) + b"user" + b"v"},
    "link count": {"hardlinks": 2},
    "another algorithm": {"flags": 4 | 1 << 8},
    "another compression": {"flags": 4 | 1 << 11},
    "chunks that are not there": {"flags": 4 | 1 << 6},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("add", [False, True])
def test_entries_of_other_tools(folder: Path, case: str, *, add: bool) -> None:
    world = World(folder)
    world.publish()
    world.edit(f"{TARGET}/a/two", **CASES[case])
    world.compare(add=add)


def test_too_many_nanoseconds(folder: Path) -> None:
    world = World(folder)
    world.publish()
    seconds, fraction = divmod((folder / "a/two").stat().st_mtime_ns, 10**9)
    world.edit(f"{TARGET}/a/two", mtime=seconds - 1, mtimens=fraction + 10**9)
    assert len(world.compare()[1]) == 1


@pytest.mark.parametrize("fields", [{"hash": ContentHash.of(b"x").digest}, {"symlink": "two"}, {"size": 4}])
def test_links_of_other_tools(folder: Path, fields: dict[str, Any]) -> None:
    world = World(folder)
    world.publish()
    world.edit(f"{TARGET}/a/link", **fields)
    _, changes = world.compare()
    assert len(changes) == 1


@pytest.mark.parametrize(
    ("uids", "changes"),
    [
        (SAME, 0),
        (IdMap.to(7), 0),
        (IdMap.parse([f"{os.getuid()} 7"]), 0),
        (IdMap.parse([f"{os.getuid()} 7", "7 8"]), 0),
    ],
)
def test_owners(folder: Path, uids: IdMap, changes: int) -> None:
    world = World(folder, uids, IdMap.to(9))
    world.publish()
    assert len(world.compare()[1]) == changes
    world.options = PlanOptions(NOW * 10**9)
    assert len(world.compare()[1]) > 10


def test_limits(folder: Path) -> None:
    world = World(folder)
    world.publish()
    assert isinstance(world.compare(limits=GatherOptions(max_file_size=12)), type)
    assert isinstance(world.compare(limits=GatherOptions(max_entries=20)), type)
    assert not isinstance(world.compare(limits=GatherOptions(max_entries=30)), type)


EDITS = ("write", "touch", "mode", "remove", "link", "symlink", "hard link", "directory", "marker", "attribute", "new")


def _edit(top: Path, what: str, place: Path) -> None:
    there = os.path.lexists(place)
    match what:
        case "write" if place.is_file():
            status = place.stat()
            place.write_bytes(place.read_bytes()[::-1] + b"!")
            os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
        case "touch" if there:
            os.utime(place, ns=(5, 1_234_567_890_123_456_789), follow_symlinks=False)
        case "mode" if place.exists() and not place.is_symlink():
            place.chmod(0o751)
        case "remove" if place.is_dir() and not place.is_symlink() and place != top:
            shutil.rmtree(place)
        case "remove" if there and place != top:
            place.unlink()
        case "symlink" if place.is_symlink() or not there:
            place.unlink(missing_ok=True)
            place.symlink_to("somewhere")
        case "hard link" if not there:
            os.link(top / "anchor", place)
        case "directory" if not there:
            place.mkdir()
        case "marker" if place.is_dir() and not (place / CATALOG_MARKER).exists():
            (place / CATALOG_MARKER).touch()
        case "attribute" if place.is_file() and not place.is_symlink():
            os.setxattr(place, "user.colour", b"blue")
        case "new" if not there:
            place.write_text(place.name)


PLACES = ("", "one", "a", "a/one", "a/two", "a/link", "a/three", "a/deep", "a/deep/one", "b/large", "b/same", "b/two",
          "nested", "nested/one", f"nested/{CATALOG_MARKER}", "empty", "empty/new")  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.sampled_from(EDITS), st.sampled_from(PLACES)), max_size=4),
    removed=st.sets(st.sampled_from(PLACES[1:]), max_size=2),
    add=st.booleans(),
)
def test_any_edits(
    edits: list[tuple[str, str]], removed: set[str], *, add: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    top = tmp_path_factory.mktemp("edits") / "folder"
    _make(top)
    (top / "anchor").write_text("anchor")
    world = World(top)
    world.publish()
    with closing(world.open()) as tree:  # others have changed the repository, too
        paths = [f"{TARGET}/{path}" for path in sorted(removed) if tree.get(f"{TARGET}/{path}") is not None]
        Transaction(tree).apply(plan(tree, [Delete(path) for path in paths], world.options).changes)
        world.root = tree.store(NOW, Algorithm.SHA1)[0].hash
    for what, place in edits:
        path = top / place
        if path.parent.is_dir():
            _edit(top, what, path)
    _, changes = world.compare(add=add)
    if not edits and not removed:
        assert changes == []
    world.publish()
    assert world.compare()[1] == []


def test_hard_links_to_what_was_kept(folder: Path) -> None:
    """Names of one file in two directories: the first of them does not stay what it was on its own."""
    os.link(folder / "a/two", folder / "b/again")
    world = World(folder)
    world.publish()
    os.link(folder / "a/deep/two", folder / "b/new")
    os.link(folder / "a/deep/two", folder / "a/deep/new")
    _, changes = world.compare()
    assert len(changes) >= 3


def test_entry_of_a_kept_file(folder: Path) -> None:
    world = World(folder)
    world.publish()
    with closing(world.open()) as tree:
        node = _node(world.gathered(tree), "a")
        entry: Entry | None = tree.get(f"{TARGET}/a/one")
        assert entry is not None
        assert set(node.children) == {"one", "two", "link", "deep"}
        assert node.children["one"].stored.hash == entry.hash
        assert node.children["link"].item.symlink == "one"
        assert node.rest is None


def test_as_deep_as_a_path_can_be() -> None:
    """Asking takes no Python frame for each of the levels."""
    store = new_store()
    model = {"": Planted(Kind.DIRECTORY, 1)} | {"/d" * depth: Planted(Kind.DIRECTORY, 1) for depth in (1, 2)}
    with closing(CatalogTree(store, plant(store, model))) as tree:
        existing = ExistingBelow(tree, "")
        assert existing.get("/d" * 2000) is None
        assert existing.get("/d/d") is not None
        assert existing.get("/d/d/d") is None
