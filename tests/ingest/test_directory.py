"""A directory on disk becomes a list of changes, and a tree that is equal to it."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from contextlib import closing
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvmfs_gw.engine.changes import CATALOG_MARKER, Change, Nest, Put, Remove, Unnest
from cvmfs_gw.engine.transaction import Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.ingest.contents import ContentOptions, Contents
from cvmfs_gw.ingest.directory import DirectorySource
from cvmfs_gw.ingest.existing import ExistingBelow
from cvmfs_gw.ingest.gather import gather
from cvmfs_gw.ingest.overlay import Replace
from cvmfs_gw.ingest.plan import PlanOptions, nearest_directory, plan
from cvmfs_objstore.chunksizes import ChunkSizes
from cvmfs_objstore.compression import Compression
from cvmfs_objstore.formats.entry import FLAG_DIRECTORY, FLAG_HIDDEN, Entry, Kind, unpack_xattrs
from cvmfs_objstore.hashes import Algorithm, ContentHash
from cvmfs_objstore.memory import MemoryStorage
from cvmfs_objstore.objects import ObjectStore
from tests.engine.trees import NOW, Item, Model, make_entry, new_store, plant

DIRECTORY = Item(Kind.DIRECTORY, 1)
FILE = Item(Kind.FILE, 1)


SIZES = ChunkSizes(500, 800, 1000)
OPTIONS = ContentOptions(compression=Compression.NONE, chunks=SIZES)


class World:
    """A tree that is made equal to a directory again and again."""

    def __init__(self, folder: Path, target: str = "", model: Model | None = None) -> None:
        self.store = new_store()
        self.storage = MemoryStorage()
        self.folder, self.target = folder, target
        self.root = plant(self.store, {"": DIRECTORY} | (model or {}))
        self.read: list[str] = []

    def plan(self, tree: CatalogTree) -> list[Change]:
        self.read = []
        with Contents(self.storage, OPTIONS, threads=1) as contents:
            gathered = gather(
                DirectorySource(str(self.folder)),
                contents,
                existing=ExistingBelow(tree, self.target),
                progress=lambda path, size: self.read.append(path),
            )
        assert gathered.files == len(self.read)
        return [*plan(tree, [Replace(gathered, self.target)], PlanOptions(NOW * 10**9)).changes]

    def changes(self) -> list[Change]:
        """What would change now; nothing does."""
        with closing(CatalogTree(self.store, self.root)) as tree:
            return self.plan(tree)

    def publish(self) -> None:
        """Make the tree equal to the directory, and see that it is, and that nothing is left to change."""
        with closing(CatalogTree(self.store, self.root)) as tree:
            transaction = Transaction(tree)
            transaction.apply(self.plan(tree))
            assert transaction.collisions == []
            self.root = tree.store(NOW, Algorithm.SHA1)[0].hash
        self.check()
        read = self.read
        assert self.changes() == []
        assert self.read == []
        self.read = read

    def check(self) -> None:
        """Compare name by name, and the counters with the rows."""
        with closing(CatalogTree(self.store, self.root)) as tree:
            self._check(tree, str(self.folder), self.target)
            for mountpoint in ("", *tree.root.nested):
                node = tree.node_of(mountpoint)
                assert node.catalog.counters()[0] == node.catalog.count_rows()

    def _check(self, tree: CatalogTree, local: str, path: str) -> None:
        entry = tree.get(path)
        assert entry is not None, path
        status = os.lstat(local)
        name = os.path.basename(path)
        found = (entry.mode, entry.uid, entry.gid, entry.mtime * 10**9 + (entry.mtimens or 0), entry.name)
        assert found == (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, name)
        attributes = os.listxattr(local, follow_symlinks=False)
        expected = {
            key: os.getxattr(local, key, follow_symlinks=False) for key in attributes if key.startswith("user.")
        }
        assert unpack_xattrs(entry.xattr) == expected
        if stat.S_ISDIR(status.st_mode):
            assert entry.is_directory
            names = [name for name in os.listdir(local) if not stat.S_ISSOCK(os.lstat(f"{local}/{name}").st_mode)]
            shown = {child.name for child in tree.entries(path) if not child.flags & FLAG_HIDDEN}
            assert shown == set(names)
            assert tree.is_mountpoint(path) is (bool(path) and CATALOG_MARKER in names)
            for child in names:
                self._check(tree, f"{local}/{child}", f"{path}/{child}")
        elif stat.S_ISLNK(status.st_mode):
            assert entry.kind is Kind.SYMLINK
            assert entry.symlink == os.readlink(local)
            assert entry.size == len(os.fsencode(entry.symlink))
        elif stat.S_ISREG(status.st_mode):
            assert entry.kind is Kind.FILE
            data = Path(local).read_bytes()
            assert entry.size == len(data)
            chunks = tree.chunks(path)
            assert bool(chunks) is entry.is_chunked
            assert entry.is_chunked or len(data) <= SIZES.largest
            if chunks:
                assert b"".join(self.object(entry.chunk_hash(one)) for one in chunks) == data
                assert [one.offset for one in chunks] == [*accumulate((one.size for one in chunks[:-1]), initial=0)]
                assert sum(one.size for one in chunks) == entry.size
                assert entry.hash is None
            else:
                assert entry.content_hash is not None
                assert self.object(entry.content_hash) == data
        else:
            assert entry.kind is Kind.SPECIAL
            assert entry.size == status.st_rdev

    def object(self, name: ContentHash) -> bytes:
        return ObjectStore(self.storage).get(name)

    def entry(self, path: str) -> Entry:
        with closing(CatalogTree(self.store, self.root)) as tree:
            found = tree.get(path)
        assert found is not None
        return found

    def mountpoints(self) -> set[str]:
        with closing(CatalogTree(self.store, self.root)) as tree:
            return {path for path in ("/d", "/d/e", "/d/e/f", "/t", "/t/d") if tree.is_mountpoint(path)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with one of everything."""
    folder = tmp_path / "source"
    for name in ("d/e/f", "empty", "d-", "ä"):
        (folder / name).mkdir(parents=True)
    (folder / "file").write_bytes(b"content")
    (folder / "nothing").write_bytes(b"")
    (folder / "d/large").write_bytes(bytes(range(250)) * 11)
    (folder / "d/exactly").write_bytes(b"x" * SIZES.largest)
    (folder / "d/e/tool").write_bytes(b"#!/bin/sh\n")
    (folder / "d/e/tool").chmod(0o4755)
    (folder / "d/link").symlink_to("../file")
    (folder / "dangling").symlink_to("/no/where")
    (folder / "d/e/f/x").write_bytes(b"x")
    os.mkfifo(folder / "fifo")
    raw = os.fsencode(folder)
    os.symlink(b"\xff\xfe", raw + b"/l\xff")
    with open(raw + b"/f\xfe\xff", "wb") as file:
        file.write(b"not UTF-8")
    os.utime(folder / "file", ns=(1, 1_600_000_000_123_456_789))
    os.utime(folder / "d", ns=(1, 5))
    os.chmod(folder / "empty", 0o1777)
    return folder


@pytest.mark.parametrize("target", ["", "/t", "/p/q/r"])
def test_everything(folder: Path, target: str) -> None:
    """Into the root, into a new directory, and into one whose parents are missing."""
    world = World(folder, target)
    world.publish()
    assert len(world.read) == 7
    world.publish()
    assert world.read == []


def test_what_is_beside_the_target_stays(folder: Path) -> None:
    world = World(folder, "/t", {"/t": DIRECTORY, "/t/old": FILE, "/tt": DIRECTORY, "/tt/f": FILE, "/f": FILE})
    world.publish()
    assert world.entry("/tt/f") == make_entry("/tt/f", FILE)[0]
    assert world.entry("/f") == make_entry("/f", FILE)[0]


Edit = Callable[[Path], object]


def remove_tree(path: Path) -> None:
    for place, directories, names in os.walk(os.fsencode(path), topdown=False):
        for name in names:
            os.unlink(os.path.join(place, name))
        for name in directories:
            os.rmdir(os.path.join(place, name))
    path.rmdir()


def instead(name: str, make: Edit) -> Edit:
    """Remove what is at *name* and make something else there."""

    def edit(folder: Path) -> None:
        path = folder / name
        if path.is_dir():
            remove_tree(path)
        else:
            path.unlink()
        make(path)

    return edit


EDITS: dict[str, Edit] = {
    "content": lambda folder: (folder / "file").write_bytes(b"other content"),
    "becomes large": lambda folder: (folder / "file").write_bytes(b"y" * 5000),
    "becomes small": lambda folder: (folder / "d/large").write_bytes(b"y"),
    "mode": lambda folder: (folder / "file").chmod(0o600),
    "mode of a large one": lambda folder: (folder / "d/large").chmod(0o600),
    "mode of a directory": lambda folder: (folder / "d").chmod(0o700),
    "mode of the top": lambda folder: folder.chmod(0o711),
    "owner": lambda folder: os.chown(folder / "file", 1234, 5678),
    "time": lambda folder: os.utime(folder / "file", ns=(7, 7)),
    "time of a large one": lambda folder: os.utime(folder / "d/large", ns=(7, 7)),
    "time of a link": lambda folder: os.utime(folder / "d/link", ns=(7, 7), follow_symlinks=False),
    "xattr": lambda folder: os.setxattr(folder / "file", "user.a", b"1"),
    "xattr of a directory": lambda folder: os.setxattr(folder / "d", "user.a", b"1"),
    "xattr of a large one": lambda folder: os.setxattr(folder / "d/large", "user.a", b"1"),
    "target of a link": instead("d/link", lambda path: path.symlink_to("elsewhere")),
    "removed": lambda folder: (folder / "file").unlink(),
    "removed tree": lambda folder: remove_tree(folder / "d"),
    "file becomes directory": instead("file", Path.mkdir),
    "file becomes link": instead("file", lambda path: path.symlink_to("x")),
    "file becomes fifo": instead("file", os.mkfifo),
    "large becomes link": instead("d/large", lambda path: path.symlink_to("x")),
    "link becomes file": instead("d/link", lambda path: path.write_bytes(b"z")),
    "fifo becomes file": instead("fifo", lambda path: path.write_bytes(b"z")),
    "tree becomes file": instead("d", lambda path: path.write_bytes(b"z")),
    "tree becomes link": instead("d", lambda path: path.symlink_to("ä")),
    "renamed tree": lambda folder: (folder / "d").rename(folder / "renamed"),
    "nested": lambda folder: (folder / "d" / CATALOG_MARKER).write_bytes(b""),
    "nested deep": lambda folder: (
        (folder / "d" / CATALOG_MARKER).write_bytes(b""),
        (folder / "d/e/f" / CATALOG_MARKER).write_bytes(b""),
    ),
    "marker at the top": lambda folder: (folder / CATALOG_MARKER).write_bytes(b""),
}


@pytest.mark.parametrize("target", ["", "/t"])
@pytest.mark.parametrize("case", EDITS)
def test_edit_and_publish_again(folder: Path, target: str, case: str) -> None:
    world = World(folder, target)
    world.publish()
    EDITS[case](folder)
    assert world.changes() != []
    world.publish()
    if "mode" in case or "owner" in case or "xattr" in case:
        assert world.read == []


@pytest.mark.parametrize("case", [case for case in EDITS if "becomes" in case or "removed" in case])
def test_edit_of_a_nested_catalog(folder: Path, case: str) -> None:
    world = World(folder, "/t")
    for name in ("d", "d/e"):
        (folder / name / CATALOG_MARKER).write_bytes(b"")
    world.publish()
    EDITS[case](folder)
    world.publish()


def test_markers_nest_and_dissolve(folder: Path) -> None:
    world = World(folder)
    world.publish()
    assert world.mountpoints() == set()
    for name in ("d", "d/e", "d/e/f"):
        (folder / name / CATALOG_MARKER).write_bytes(b"")
    kinds = [type(change) for change in world.changes()]
    assert kinds.count(Nest) == 3
    world.publish()
    assert world.mountpoints() == {"/d", "/d/e", "/d/e/f"}
    (folder / "d/e" / CATALOG_MARKER).unlink()
    changes = world.changes()
    assert [change.path for change in changes if isinstance(change, Unnest)] == ["/d/e"]
    assert [change.path for change in changes if isinstance(change, Nest)] == []
    world.publish()
    assert world.mountpoints() == {"/d", "/d/e/f"}
    remove_tree(folder / "d")
    world.publish()
    assert world.mountpoints() == set()


def test_marker_at_the_top(folder: Path) -> None:
    """The repository's root is a catalog anyway; a target is one if its marker says so."""
    (folder / CATALOG_MARKER).write_bytes(b"")
    world = World(folder)
    world.publish()
    world = World(folder, "/t")
    world.publish()
    assert world.mountpoints() == {"/t"}


def test_order(folder: Path) -> None:
    """Removals, directories before what is in them, and nesting at the end."""
    world = World(folder, "/t", {"/t": DIRECTORY, "/t/d": FILE, "/t/z": DIRECTORY, "/t/z/f": FILE})
    (folder / "d" / CATALOG_MARKER).write_bytes(b"")
    changes = world.changes()
    ranks = [{Remove: 0, Put: 1, Unnest: 2, Nest: 2}[type(change)] for change in changes]
    assert ranks == sorted(ranks)
    puts = [change.path for change in changes if isinstance(change, Put)]
    for path in puts:
        parent = path.rpartition("/")[0]
        assert parent not in puts or puts.index(parent) < puts.index(path)


def test_sockets_are_left_out(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind("s")
        world = World(folder)
        world.publish()
        (folder / "file").unlink()
        with closing(socket.socket(socket.AF_UNIX)) as other:
            other.bind("file")
            world.publish()


def test_hidden_directory_stays(folder: Path) -> None:
    """Nobody sees ``.cvmfs`` in a mounted repository, so that its not being here says nothing."""
    world = World(folder, "", {"/.cvmfs": DIRECTORY, "/.cvmfs/snapshots": DIRECTORY})
    with closing(CatalogTree(world.store, world.root)) as tree:
        hidden = make_entry("/.cvmfs", DIRECTORY)[0]._replace(flags=FLAG_DIRECTORY | FLAG_HIDDEN)
        Transaction(tree).apply([Put("/.cvmfs", hidden)])
        world.root = tree.store(NOW, Algorithm.SHA1)[0].hash
    world.publish()
    assert world.entry("/.cvmfs").flags & FLAG_HIDDEN
    assert world.entry("/.cvmfs/snapshots").is_directory


def test_hard_links(folder: Path) -> None:
    """Names in one directory are a group there; one in another directory is a file of its own, with the same object."""
    os.link(folder / "file", folder / "second")
    os.link(folder / "file", folder / "d/third")
    world = World(folder)
    world.publish()
    one, two, three = (world.entry(path) for path in ("/file", "/second", "/d/third"))
    assert one.hardlinks == two.hardlinks
    assert (one.linkcount, three.hardlinks) == (2, 1)
    assert one.hash == two.hash == three.hash
    os.link(folder / "file", folder / "fourth")
    world.publish()
    assert world.entry("/file").linkcount == world.entry("/fourth").linkcount == 3
    for name in ("second", "fourth"):
        (folder / name).unlink()
        (folder / name).write_bytes(b"content")
        os.utime(folder / name, ns=(1, 1_600_000_000_123_456_789))
    world.publish()
    assert [world.entry(f"/{name}").hardlinks for name in ("file", "second", "fourth")] == [1, 1, 1]


def test_xattrs_that_do_not_fit(folder: Path) -> None:
    """Values over 255 bytes have no place in a catalog: left out, and the rest is kept."""
    os.setxattr(folder / "file", "user.long", bytes(300))
    os.setxattr(folder / "file", "user.fits", bytes(255))
    world = World(folder)
    found = [change for change in world.changes() if isinstance(change, Put) and change.path == "/file"]
    assert unpack_xattrs(found[0].entry.xattr) == {"user.fits": bytes(255)}


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        World(tmp_path / "missing").changes()


def test_nearest_directory(folder: Path) -> None:
    world = World(folder, "", {"/a": DIRECTORY, "/a/b": DIRECTORY, "/a/f": FILE})
    with closing(CatalogTree(world.store, world.root)) as tree:
        found = [nearest_directory(tree, path) for path in ("", "/a", "/a/b", "/a/b/c/d", "/a/f", "/a/f/g", "/x")]
    assert found == ["", "/a", "/a/b", "/a/b", "/a", "/a", ""]


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_two_directories(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """From any directory to any other: the tree becomes equal, and then nothing is left to do."""
    names = st.sampled_from(["a", "b", "c", CATALOG_MARKER])
    paths = st.lists(names, min_size=1, max_size=3).map("/".join)
    content = st.sampled_from([None, b"", b"x", b"y" * 1500])
    folder = tmp_path_factory.mktemp("any")
    world = World(folder, data.draw(st.sampled_from(["", "/t"])))
    for _ in range(2):
        remove_tree(folder)
        folder.mkdir()
        for path, what in data.draw(st.lists(st.tuples(paths, content), max_size=8)):
            place = folder / path
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                if place.name == CATALOG_MARKER or what is not None:
                    place.write_bytes(what or b"")
                else:
                    place.mkdir(exist_ok=True)
            except OSError:
                continue
        markers = [Path(place) for place, directories, _ in os.walk(folder) if CATALOG_MARKER in directories]
        for place in markers:
            if (place / CATALOG_MARKER).exists():
                remove_tree(place / CATALOG_MARKER)
        world.publish()
