"""Many new files, put by queries over all of them: the same as one by one, and nothing of it taken on trust."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest

from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.changes import PutFiles
from cvmfs_gw.engine.commit_api import UploadedObjects
from cvmfs_gw.engine.diff import TreeDiff
from cvmfs_gw.engine.errors import LimitExceeded, MergeError, MissingObject
from cvmfs_gw.engine.newfiles import MANY
from cvmfs_gw.engine.rules import Rules
from cvmfs_gw.engine.statistics import PublishCounts
from cvmfs_gw.engine.transaction import Collision, Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.serverconf import ServerConf
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.database import to_bytes
from cvmfs_objstore.formats.entry import FLAG_EXTERNAL, FLAG_NESTED_ROOT, Kind, path_key
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from tests.engine.trees import NOW, Item, Model, make_entry, new_store, plant, read

DIRECTORY = Item(Kind.DIRECTORY, 1)
FILE = Item(Kind.FILE, 1)
BASE: Model = {"": DIRECTORY, "/a": DIRECTORY, "/a/old": FILE, "/b": DIRECTORY, "/b/f": FILE, "/b/g": FILE}
LINKS = [Item(Kind.SYMLINK, 2), Item(Kind.SPECIAL, 4)]


NAMES = [f"n{number}\udcff" for number in range(MANY + 30)]
NEW: Model = {
    **{f"/a/{name}": Item(Kind.FILE, number % 30) for number, name in enumerate(NAMES)},
    "/a/d": DIRECTORY,
    **{f"/a/d/{number}": LINKS[number % 2] for number in range(20)},
    "/a/d/chunked": Item(Kind.FILE, 5, 2),
    "/a/d/e": DIRECTORY,
    "/a/d/e/last": FILE,
}


class World:
    """A publisher's base and result, and what became of the result."""

    def __init__(self) -> None:
        self.store: CatalogStore = new_store()
        self.base = plant(self.store, BASE)
        self.result = plant(self.store, BASE | NEW)
        self.rules: Rules | None = None
        self.collisions: list[Collision] = []
        self.counts = PublishCounts()
        self.together = 0

    def edit(self, edit: Callable[[Catalog], object]) -> None:
        """Change the publisher's catalog as nobody should."""
        with self.store.load(self.result) as catalog:
            edit(catalog)
            self.result = self.store.store(catalog, Algorithm.SHA1).hash

    def run(self, *statements: str) -> None:
        """The same in SQL."""

        def edit(catalog: Catalog) -> None:
            for statement in statements:
                catalog.connection.execute(statement)

        self.edit(edit)

    def commit(self, present: ContentHash | None = None, scope: str = "/a") -> ContentHash:
        """Merge the result into *present*; returns the new root."""
        roots = self.base, self.result, present or self.base
        with ExitStack() as stack:
            base, result, tree = (stack.enter_context(closing(self.tree(root))) for root in roots)
            transaction = Transaction(tree, result.get)
            changes = stack.enter_context(closing(TreeDiff(base, result, tree, scope, self.rules).changes()))
            for change in changes:
                self.together += isinstance(change, PutFiles)
                transaction.apply([change])
            self.collisions, self.counts = transaction.collisions, transaction.counts
            return tree.store(NOW, Algorithm.SHA1)[0].hash

    def tree(self, root: ContentHash) -> CatalogTree:
        return CatalogTree(self.store, root)

    def refused(self, message: str, error: type[Exception] = MergeError) -> None:
        with pytest.raises(error, match=message):
            self.commit()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Warnings name files whose names are no UTF-8, which the workers of a parallel run cannot pass on."""
    caplog.set_level(logging.ERROR)


@pytest.fixture
def world() -> World:
    return World()


def test_all_kinds(world: World) -> None:
    assert read(world.store, world.commit()).model == BASE | NEW
    assert world.together == 1
    assert not world.collisions
    regular = [item for item in NEW.values() if item.kind is Kind.FILE]
    links = [item for item in NEW.values() if item.kind is Kind.SYMLINK]
    assert world.counts.files_added == len(regular) + 10
    assert world.counts.symlinks_added == len(links) == 10
    assert world.counts.directories_added == 2
    assert world.counts.bytes_added == sum(100 + item.seed for item in regular)


def test_few_are_put_one_by_one(world: World) -> None:
    few = {path: item for path, item in NEW.items() if not path.startswith("/a/n")}
    world.result = plant(world.store, BASE | few)
    assert read(world.store, world.commit()).model == BASE | few
    assert world.together == 0


def test_what_others_put_meanwhile(world: World) -> None:
    """The same names, a nested catalog on the way, a file in place of a directory, and something beside."""
    theirs: Model = {
        f"/a/{NAMES[0]}": Item(Kind.FILE, 7, 3),
        f"/a/{NAMES[1]}": NEW[f"/a/{NAMES[1]}"],
        f"/a/{NAMES[2]}": DIRECTORY,
        f"/a/{NAMES[2]}/below": FILE,
        "/a/d": FILE,
        "/a/theirs": FILE,
    }
    present = plant(world.store, BASE | theirs, frozenset({"/a"}))
    found = read(world.store, world.commit(present))
    assert found.model == BASE | {"/a/theirs": FILE} | NEW
    assert found.mountpoints == {"/a"}
    assert {collision.path for collision in world.collisions} == {f"/a/{NAMES[0]}", f"/a/{NAMES[2]}", "/a/d"}


def test_nothing_else_changes_in_a_nested_catalog(world: World) -> None:
    """It is stored for them alone."""
    files = {f"/a/{name}": NEW[f"/a/{name}"] for name in NAMES}
    world.result = plant(world.store, BASE | files)
    found = read(world.store, world.commit(plant(world.store, BASE, frozenset({"/a"}))))
    assert world.together == 1
    assert found.model == BASE | files
    assert found.mountpoints == {"/a"}


def test_into_several_catalogs(world: World) -> None:
    present = plant(world.store, BASE | {"/a/d": DIRECTORY, "/a/d/x": FILE, "/a/d/1": FILE}, frozenset({"/a/d"}))
    found = read(world.store, world.commit(present))
    assert found.model == BASE | {"/a/d/x": FILE} | NEW
    assert found.mountpoints == {"/a/d"}


def test_directory_that_others_removed_comes_back(world: World) -> None:
    present = plant(world.store, {path: item for path, item in BASE.items() if not path.startswith("/a")})
    model = read(world.store, world.commit(present)).model
    assert model == {path: item for path, item in (BASE | NEW).items() if path != "/a/old"}


def test_new_nested_catalogs(world: World) -> None:
    """One that is passed on as it is after a look at all of it, and one that is merged row by row."""
    marker = {"/a/d/.cvmfscatalog": FILE}
    world.result = plant(world.store, BASE | NEW | marker, frozenset({"/a/d"}))
    found = read(world.store, world.commit())
    assert found.model == BASE | NEW | marker
    assert found.mountpoints == {"/a/d"}

    many = {f"/a/d/{name}": FILE for name in NAMES}
    world.result = plant(world.store, BASE | NEW | marker | many, frozenset({"/a/d"}))
    assert read(world.store, world.commit()).model == BASE | NEW | marker | many
    present = plant(world.store, BASE | {"/a/d": DIRECTORY, "/a/d/theirs": FILE})
    found = read(world.store, world.commit(present))
    assert found.model == BASE | NEW | marker | many | {"/a/d/theirs": FILE}
    assert found.mountpoints == {"/a/d"}


def test_directory_that_becomes_a_nested_catalog(world: World) -> None:
    """Its files moved, and are not new."""
    present = plant(world.store, BASE | NEW | {"/a/theirs": FILE})
    world.base, world.result = (
        plant(world.store, BASE | NEW),
        plant(world.store, BASE | NEW | {"/a/.cvmfscatalog": FILE}, frozenset({"/a"})),
    )
    found = read(world.store, world.commit(present))
    assert found.model == BASE | NEW | {"/a/.cvmfscatalog": FILE, "/a/theirs": FILE}
    assert not world.collisions


@pytest.mark.parametrize("scope", ["/a", "/a/d", "/b", f"/a/{NAMES[3]}"])
def test_only_within_the_lease(world: World, scope: str) -> None:
    world.result = plant(world.store, BASE | NEW | {f"/b/{name}": FILE for name in NAMES})
    present = plant(world.store, BASE | {"/a/d": DIRECTORY})
    model = read(world.store, world.commit(present, scope)).model
    expected = {path: item for path, item in NEW.items() if path == scope or path.startswith(scope + "/")}
    if scope == "/b":
        expected = {f"/b/{name}": FILE for name in NAMES}
    assert model == BASE | {"/a/d": DIRECTORY} | expected


# -- what the repository demands of its content


def rules(world: World, *, strict: bool = False, uploaded: UploadedObjects | None = None, **values: str) -> Rules:
    return Rules(ServerConf(values), world.store.objects, uploaded, strict_objects=strict)


def test_missing_objects_are_counted(world: World) -> None:
    world.rules = rules(world)
    world.commit()
    regular = [item for item in NEW.values() if item.kind is Kind.FILE]
    assert world.rules.missing == sum(item.chunks or 1 for item in regular)
    # Those that are there, or need not be, do not count.
    for seed in range(15):
        digest = ContentHash.of(b"%d" % seed)
        world.store.objects.put(digest, b"%d" % seed)
    world.run(f"UPDATE catalog SET flags = flags | {FLAG_EXTERNAL} WHERE mtimens = 20 AND flags & 63 = 4")
    world.rules = rules(world)
    world.commit()
    left = [item for item in regular if not item.chunks and item.seed >= 15 and item.seed != 20]
    assert world.rules.missing == len(left) + 2


def test_uploaded_objects_are_not_looked_for(world: World) -> None:
    uploaded = UploadedObjects(10)
    for seed in range(4):
        uploaded.add(ContentHash.of(b"%d" % seed))
        uploaded.add(ContentHash.of(b"5/%d" % seed, suffix=Suffix.CHUNK))
    uploaded.add(ContentHash.of(b"20", Algorithm.RMD160))  # another object
    world.rules = rules(world, uploaded=uploaded)
    world.commit()
    assert world.rules.missing == sum(1 for item in NEW.values() if item.kind is Kind.FILE and item.seed >= 4) - 1
    for number in range(100):
        uploaded.add(ContentHash.of(b"another %d" % number))
    assert len(uploaded) == 10


def test_missing_objects_are_an_error_where_they_are_to_be(world: World) -> None:
    world.rules = rules(world, strict=True)
    world.refused("not in the storage: .*, which /a/", MissingObject)


def test_limits(world: World) -> None:
    world.run(f"UPDATE catalog SET size = {1 << 20} WHERE CAST(name AS BLOB) = x'{to_bytes(NAMES[5]).hex()}'")
    world.rules = rules(world, CVMFS_FILE_MBYTE_LIMIT="1", CVMFS_ENFORCE_LIMITS="true")
    world.commit()
    world.run("UPDATE catalog SET size = size + 1")
    world.rules = rules(world, CVMFS_FILE_MBYTE_LIMIT="1", CVMFS_ENFORCE_LIMITS="true")
    world.refused("/a/n5.* has 1048577 bytes", LimitExceeded)


# -- publishers that are up to something

SOME = "WHERE name LIKE 'n1%'"
ONE = f"WHERE rowid = (SELECT max(rowid) FROM catalog {SOME})"
FILE_KEY = "UPDATE catalog SET parent_1 = {}, parent_2 = {} ".format(*path_key("/b/f")) + ONE


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (f"UPDATE catalog SET name = 'other' {ONE}", "/a/other' is not where its name belongs"),
        (f"UPDATE catalog SET name = '' {ONE}", "not where its name belongs"),
        (f"UPDATE catalog SET md5path_1 = md5path_1 + 1 {ONE}", "not where its name belongs"),
        (f"UPDATE catalog SET parent_1 = 17 {ONE}", "parent is missing or no directory"),
        (FILE_KEY, "parent is missing or no directory"),
        (f"UPDATE catalog SET size = 'much' {ONE}", "is invalid"),
        (f"UPDATE catalog SET mode = NULL {ONE}", "is invalid"),
        (f"UPDATE catalog SET name = CAST(name AS BLOB) {ONE}", "is invalid"),
        (f"UPDATE catalog SET symlink = NULL {ONE}", "is invalid"),
        (f"UPDATE catalog SET hash = x'00' {ONE}", "is invalid"),
        (f"UPDATE catalog SET hash = 'text' {ONE}", "is invalid"),
        (f"UPDATE catalog SET xattr = 'text' {ONE}", "is invalid"),
        (f"UPDATE catalog SET mtimens = 0.5 {ONE}", "is invalid"),
    ],
)
def test_rows_that_make_no_sense(world: World, statement: str, message: str) -> None:
    world.run(statement)
    world.refused(message)


def test_unknown_algorithm(world: World) -> None:
    world.run(f"UPDATE catalog SET flags = flags | 7 << 8 {ONE}")
    world.rules = rules(world)
    world.refused("unknown hash algorithm")


@pytest.mark.parametrize("name", [".", "..", "x/y", "../b/f", "x\0y"])
def test_names_that_lead_elsewhere(world: World, name: str) -> None:
    """Also where the key is that of the path that comes out."""
    key = path_key(f"/a/{name}")
    world.edit(
        lambda catalog: catalog.connection.execute(
            f"UPDATE catalog SET name = CAST(? AS TEXT), md5path_1 = ?, md5path_2 = ? {ONE}", (name.encode(), *key)
        )
    )
    world.refused("is not where its name belongs")


def test_what_is_ours_to_say(world: World) -> None:
    """Nesting flags and link counts that files cannot have."""
    world.run(f"UPDATE catalog SET flags = flags | {FLAG_NESTED_ROOT | 2}, hardlinks = 9 {SOME}")
    assert read(world.store, world.commit()).model == BASE | NEW


def test_link_counts_in_a_new_nested_catalog(world: World) -> None:
    """It is not passed on with wrong ones, but merged."""
    inside = {"/a/m": DIRECTORY, "/a/m/.cvmfscatalog": FILE} | {f"/a/m/{name}": FILE for name in NAMES}
    world.result = plant(world.store, BASE | inside, frozenset({"/a/m"}))
    with world.store.load(world.result) as root, world.store.load(root.nested()["/a/m"].hash) as nested:
        nested.connection.execute(f"UPDATE catalog SET hardlinks = 3 {SOME}")
        ref = world.store.store(nested, Algorithm.SHA1)
        root.set_nested("/a/m", ref)
        world.result = world.store.store(root, Algorithm.SHA1).hash
    found = read(world.store, world.commit())
    assert found.model == BASE | inside
    assert found.mountpoints == {"/a/m"}


def test_the_same_row_twice(world: World) -> None:
    world.run(
        "CREATE TABLE other AS SELECT * FROM catalog",
        "DROP TABLE catalog",
        "ALTER TABLE other RENAME TO catalog",
        f"INSERT INTO catalog SELECT * FROM catalog {ONE}",
    )
    with pytest.raises((MergeError, sqlite3.IntegrityError)):
        world.commit()


def test_index_that_hides_rows(world: World) -> None:
    """Rows that it pretends are gone are removed within the lease at most; a parent that it hides is missing."""
    world.edit(hide_rows)
    world.refused("parent is missing or no directory")
    at_top: Model = {f"/{name}": FILE for name in NAMES}
    world.result = plant(world.store, BASE | at_top)
    world.edit(hide_rows)
    model = read(world.store, world.commit(scope=f"/{NAMES[0]}")).model
    assert model == BASE | {f"/{NAMES[0]}": FILE}
    with pytest.raises(MergeError, match="the root cannot be removed"):
        world.commit(scope="")


def hide_rows(catalog: Catalog) -> None:
    connection = catalog.connection
    connection.execute("CREATE TABLE empty (md5path_1, md5path_2)")
    connection.execute("CREATE INDEX void ON empty (md5path_1, md5path_2)")
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute(
        "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'void')"
        " WHERE name = 'sqlite_autoindex_catalog_1'"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER gift AFTER INSERT ON catalog BEGIN DELETE FROM catalog; END",
        "CREATE VIEW more AS SELECT * FROM catalog",
    ],
)
def test_schema_that_does_something(world: World, statement: str) -> None:
    world.run(statement)
    world.refused("a catalog has no (trigger|view)")


def test_failure_while_files_are_on_their_way(world: World) -> None:
    """The tree that they were put into is closed all the same, and nothing was stored."""
    world.run(f"UPDATE catalog SET name = 'other' {ONE}")
    before = set(world.store.objects.list())
    world.refused("not where its name belongs")
    assert set(world.store.objects.list()) == before


def test_hard_links_and_attributes_go_along(world: World) -> None:
    """Rows that are put one by one beside the many."""
    group = {f"/a/l{number}": Item(Kind.FILE, 3, 0, 4) for number in range(3)}
    world.result = plant(world.store, BASE | NEW | group)
    found = read(world.store, world.commit())
    assert found.model == BASE | NEW | {path: replace(item, group=0) for path, item in group.items()}
    assert frozenset(group) in found.groups.values()
    with closing(world.tree(world.commit())) as tree:
        assert tree.get(f"/a/{NAMES[6]}") == make_entry(f"/a/{NAMES[6]}", NEW[f"/a/{NAMES[6]}"])[0]
