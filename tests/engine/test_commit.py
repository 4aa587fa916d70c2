"""The gateway's commit, from a publisher's uploaded catalogs to the signed manifest."""

from __future__ import annotations

import errno
import logging
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.changes import Change, Nest, Put, Remove
from cvmfs_gw.engine.commit import Engine, set_root_properties
from cvmfs_gw.engine.commit_api import CommitOutcome, CommitRequest
from cvmfs_gw.engine.errors import (
    ConfigurationError,
    EngineError,
    MergeError,
    MissingObject,
    MissingReflog,
    PathViolation,
    SigningError,
    StorageError,
    TagError,
)
from cvmfs_gw.engine.newfiles import MANY
from cvmfs_gw.engine.phases import PHASES
from cvmfs_gw.engine.publish import Publication
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.compression import deflate
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.entry import Kind
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from tests.engine.repositories import (
    FQRN,
    catalogs,
    check_repository,
    everything,
    new_repository,
    publisher_root,
    put,
    puts,
    refs,
    tags,
)
from tests.engine.trees import NOW, Found, Item, Model

DIRECTORY = Item(Kind.DIRECTORY, 1)
FILE = Item(Kind.FILE, 1)
START: Model = {
    "": DIRECTORY,
    "/a": DIRECTORY,
    "/a/x": DIRECTORY,
    "/a/y": DIRECTORY,
    "/b": DIRECTORY,
    "/b/f": FILE,
    "/n": DIRECTORY,
    "/n/f": FILE,
}


class World:
    """A repository with something in it, its gateway's engine, and publishers."""

    def __init__(self, root: str, keys: str, algorithm: Algorithm = Algorithm.SHA1) -> None:
        self.repository: Repository = new_repository(root, keys, algorithm)
        self.now = float(NOW + 10)
        self.engine = Engine(self.repository.paths, {}, durable=False, clock=lambda: self.now)
        self.uploaded: frozenset[ContentHash] = frozenset()
        self.start = self.head
        self.commit(self.publish(self.head, [*puts(START), Nest("/n")]))
        self.base = self.head

    @property
    def head(self) -> ContentHash:
        return self.repository.head().root_hash

    def publish(self, base: ContentHash, changes: Iterable[Change]) -> ContentHash:
        """What a publisher uploads who had mounted *base*."""
        self.now += 1
        return publisher_root(self.repository, base, changes, int(self.now))

    def commit(
        self,
        new_root: ContentHash,
        lease: str = "",
        *,
        old_root: ContentHash | None = None,
        tag: str = "",
        create_ancestors: bool = False,
    ) -> CommitOutcome:
        """Commit as ``cvmfs_server publish`` does: with the head of the moment as the old root."""
        self.uploaded |= catalogs(self.repository)
        return self.engine.commit(
            CommitRequest(FQRN, lease, old_root or self.head, new_root, tag, create_ancestors=create_ancestors)
        )

    def check(self) -> Found:
        return check_repository(self.repository, self.now, self.uploaded - refs(self.repository))

    def refused(
        self, error: type[EngineError], match: str, new_root: ContentHash, lease: str = "", **options: object
    ) -> None:
        """Commit, be refused, and find the repository as it was."""
        before = everything(self.repository)
        with pytest.raises(error, match=match):
            self.commit(new_root, lease, **options)  # type: ignore[arg-type]
        assert everything(self.repository) == before


@pytest.fixture
def world(tmp_path: Path, keys: str) -> World:
    return World(str(tmp_path), keys)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_commit(tmp_path: Path, keys: str, algorithm: Algorithm) -> None:
    world = World(str(tmp_path), keys, algorithm)
    changes: list[Change] = [put("/a/x/new", Item(Kind.FILE, 2, 3)), put("/a/l", Item(Kind.SYMLINK, 3)), Remove("/b/f")]
    new_root = world.publish(world.base, changes)
    outcome = world.commit(new_root, tag="generic-")
    head = world.repository.head()
    assert outcome.final_revision == head.revision == 3
    assert outcome.root_hash == head.root_hash
    assert tags(world.repository)[outcome.tag_name].root_hash == head.root_hash
    assert outcome.tag_name.startswith("generic-20")
    found = world.check()
    expected = START | {"/a/x/new": Item(Kind.FILE, 2, 3), "/a/l": Item(Kind.SYMLINK, 3)}
    del expected["/b/f"]
    assert found.model == expected
    assert found.mountpoints == {"/n"}
    assert {new_root, world.base, head.root_hash} <= refs(world.repository)
    with world.repository.catalogs.load(head.root_hash) as catalog:
        assert catalog.revision == 3
        assert catalog.previous_revision == world.base
        assert catalog.property("last_modified") == str(int(world.now))


def test_publishers_one_after_the_other(world: World) -> None:
    for number in range(3):
        world.commit(world.publish(world.head, [put(f"/a/x/{number}", FILE)]), "/a/x")
    assert {"/a/x/0", "/a/x/1", "/a/x/2"} <= set(world.check().model)
    assert world.repository.head().revision == 5


def test_true_base_is_older_than_the_old_root(world: World) -> None:
    """Both mounted the same root; the second sends the head of the moment as its base, which it never saw."""
    first = world.publish(world.base, [put("/a/x/one", FILE), put("/n/one", FILE), Remove("/b/f")])
    second = world.publish(world.base, [put("/a/y/two", FILE), put("/n/two", FILE)])
    world.commit(first)
    world.commit(second, old_root=world.head)
    found = world.check()
    assert {"/a/x/one", "/n/one", "/a/y/two", "/n/two"} <= set(found.model)
    assert "/b/f" not in found.model
    assert found.mountpoints == {"/n"}


@pytest.mark.parametrize("value", [None, "0" * 40])
def test_old_root_counts_where_the_catalog_says_nothing(world: World, value: str | None) -> None:
    """A publisher whose root catalog has no note of its predecessor."""
    first = world.publish(world.base, [put("/a/x/one", FILE)])
    second = world.publish(world.base, [put("/a/y/two", FILE)])
    with world.repository.catalogs.load(second) as catalog:
        catalog.set_property("previous_revision", value)
        second = world.repository.catalogs.store(catalog, Algorithm.SHA1).hash
    world.commit(first)
    world.commit(second, old_root=world.base)
    assert {"/a/x/one", "/a/y/two"} <= set(world.check().model)


def test_base_of_long_ago(world: World) -> None:
    """From before anything was there: all that came later stays."""
    old = world.publish(world.start, [put("", DIRECTORY), put("/late", FILE)])
    world.commit(old)
    assert world.check().model == START | {"/late": FILE}


def test_same_commit_again(world: World) -> None:
    """Whoever did not hear the answer asks again and gets the same, and nothing happens."""
    new_root = world.publish(world.base, [put("/a/x/new", FILE)])
    outcome = world.commit(new_root, "/a/x", tag="v1", old_root=world.base)
    before = everything(world.repository)
    assert world.commit(new_root, "/a/x", tag="v1", old_root=world.base) == outcome
    fresh = Engine(world.repository.paths, {}, durable=False, clock=lambda: world.now)
    assert fresh.commit(CommitRequest(FQRN, "/a/x", world.base, new_root, "v1")) == outcome
    assert everything(world.repository) == before


def long_commits(world: World) -> Engine:
    """An engine that takes every commit for a long one."""
    return Engine(world.repository.paths, {}, durable=False, apart=0)


def test_a_long_commit_is_made_in_a_process(world: World, caplog: pytest.LogCaptureFixture) -> None:
    new_root = world.publish(world.base, [put("/a/x/new", FILE)])
    with caplog.at_level(logging.INFO):
        outcome = long_commits(world).commit(CommitRequest(FQRN, "/a/x", world.base, new_root, "v1"))
    head = world.repository.head()
    assert (outcome.final_revision, outcome.root_hash, outcome.tag_name) == (3, head.root_hash, "v1")
    assert set(outcome.phases) == set(PHASES)
    assert f"{FQRN}: revision 3 published at /a/x" in caplog.text
    # the engine goes on from there, whoever makes the next one
    assert world.commit(new_root, "/a/x", tag="v1", old_root=world.base) == outcome
    world.commit(world.publish(world.head, [put("/a/x/next", FILE)]))
    assert world.check().model == START | {"/a/x/new": FILE, "/a/x/next": FILE}


def test_a_long_commit_is_refused(world: World) -> None:
    world.engine = long_commits(world)
    world.refused(PathViolation, "not a directory", world.publish(world.base, []), "/b/f/x")
    world.refused(MissingObject, "catalog", ContentHash.of(b"nobody's", suffix=Suffix.CATALOG))


def test_a_long_commit_is_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    started: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()

    class Seen(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.put(self)

    monkeypatch.setattr(subprocess, "Popen", Seen)
    new_root = world.publish(world.base, [put("/a/x/new", FILE)])
    request = CommitRequest(FQRN, "/a/x", world.base, new_root)
    engine = long_commits(world)
    before = everything(world.repository)
    half_done = world.repository.objects.add(b"half done", Algorithm.SHA1, Suffix.CATALOG, deflate=deflate)
    world.repository.journal.note(half_done)
    with ThreadPoolExecutor(1) as pool:
        with world.repository.exclusive():
            commit = pool.submit(engine.commit, request)
            started.get(timeout=60).kill()
        with pytest.raises(StorageError, match=r"cut off.*status -9"):
            commit.result()
    assert everything(world.repository) == before
    assert engine.commit(request).final_revision == 3


def test_a_lease_where_nothing_can_be_published(world: World) -> None:
    for path in ("", "/a", "/a/x/new", "/none/of/these", "/n/new/new"):
        world.engine.check_lease(FQRN, path)
    for _ in range(2):
        for path in ("/b/f/x", "/n/f/x/y"):
            with pytest.raises(PathViolation, match=f"nothing can be published at {path}"):
                world.engine.check_lease(FQRN, path)
    # it is the present tree that counts
    world.commit(world.publish(world.base, [Remove("/b/f"), put("/a/x/new", FILE)]))
    world.engine.check_lease(FQRN, "/b/f/x")
    with pytest.raises(PathViolation):
        world.engine.check_lease(FQRN, "/a/x/new/y")


def test_nobody_waits_for_large_catalogs_to_get_a_lease(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that is polled costs one look, and one that large catalogs would have to be read for costs none."""
    read: list[ContentHash] = []
    plain = CatalogStore.plain

    def noted(store: CatalogStore, ref: ContentHash) -> bytes:
        read.append(ref)
        return plain(store, ref)

    monkeypatch.setattr(CatalogStore, "plain", noted)
    world.engine.check_lease(FQRN, "/a/x/new")
    assert read
    read.clear()
    world.engine.check_lease(FQRN, "/a/x/new")
    long_commits(world).check_lease(FQRN, "/b/f/x")
    assert not read


def test_long_catalogs_are_not_read_ahead(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not kept anyway."""
    read: list[ContentHash] = []
    new_root = world.publish(world.base, [])
    monkeypatch.setattr(CatalogStore, "plain", lambda self, ref: read.append(ref))
    long_commits(world).prepare(FQRN, (new_root,))
    assert not read
    world.engine.prepare(FQRN, (new_root,))
    assert read == [new_root]


def test_same_commit_again_after_many_others(world: World) -> None:
    """A commit that was cut off after it was published, and is asked again when others have published a lot."""
    new_root = world.publish(world.base, [put("/a/x/new", FILE)])
    outcome = world.commit(new_root, "/a/x", tag="v1", old_root=world.base)
    for _ in range(40):
        world.commit(world.publish(world.head, []), "/b")
    before = everything(world.repository)
    again = CommitRequest(FQRN, "/a/x", world.base, new_root, "v1", repeated=True)
    assert world.engine.commit(again) == outcome
    assert everything(world.repository) == before
    # One that was cut off before it was published is published now, of course.
    other = world.publish(world.head, [put("/a/x/other", FILE)])
    assert world.engine.commit(CommitRequest(FQRN, "/a/x", world.head, other, repeated=True)).final_revision == 44


def test_nothing_changed(world: World) -> None:
    outcome = world.commit(world.publish(world.base, []))
    assert outcome.final_revision == 3
    assert world.check().model == START


# -- the lease


@pytest.mark.parametrize(
    ("lease", "seen"),
    [
        ("", {"/a/x/1", "/a/1", "/ab", "/n/1", "/1"}),
        ("/a", {"/a/x/1", "/a/1"}),
        ("/a/x", {"/a/x/1"}),
        ("/n", {"/n/1"}),
        ("/a/x/1", {"/a/x/1"}),
        ("/ab", {"/ab"}),
        ("/b", set()),
        ("/a/nothing", set()),
    ],
)
def test_changes_outside_of_the_lease_are_ignored(world: World, lease: str, seen: set[str]) -> None:
    paths = ("/a/x/1", "/a/1", "/ab", "/n/1", "/1")
    new_root = world.publish(world.base, [*(put(path, FILE) for path in paths), put("/b", Item(Kind.DIRECTORY, 7))])
    world.commit(new_root, lease)
    found = world.check()
    assert set(found.model) == set(START) | seen
    assert found.model["/b"] == (Item(Kind.DIRECTORY, 7) if lease in ("", "/b") else DIRECTORY)


@pytest.mark.parametrize("lease", ["/b/f", "/n/f", "/n", "/b", "/a"])
def test_the_leased_path_itself_goes(world: World, lease: str) -> None:
    """A file, a directory, a nested catalog; its parent's link count changes outside of the lease."""
    world.commit(world.publish(world.base, [Remove(lease, recursive=True)]), lease)
    assert set(world.check().model) == {path for path in START if path != lease and not path.startswith(f"{lease}/")}


@pytest.mark.parametrize("lease", ["/new", "/a/x/new", "/n/new"])
@pytest.mark.parametrize("nested", [False, True])
def test_the_leased_path_itself_comes(world: World, lease: str, nested: bool) -> None:
    new = {lease: DIRECTORY, f"{lease}/d": DIRECTORY, f"{lease}/f": FILE}
    world.commit(world.publish(world.base, [*puts(new), *([Nest(lease)] if nested else [])]), lease)
    found = world.check()
    assert found.model == START | new
    assert found.mountpoints == {"/n"} | ({lease} if nested else set())


def test_missing_ancestor(world: World) -> None:
    new = {"/p": Item(Kind.DIRECTORY, 5), "/p/q": Item(Kind.DIRECTORY, 6), "/p/q/r": DIRECTORY, "/p/q/r/f": FILE}
    new_root = world.publish(world.base, [*puts(new), put("/p/other", FILE)])
    world.refused(PathViolation, "/p/q is not there|/p is not there", new_root, "/p/q/r")
    world.commit(new_root, "/p/q/r", create_ancestors=True)
    # Ancestors as the publisher has them, and nothing else from beside the lease.
    assert world.check().model == START | new


def test_missing_ancestor_that_the_publisher_does_not_have_either(world: World) -> None:
    """Nothing to publish, so nothing is missing; the other way round it is an error."""
    new_root = world.publish(world.base, [put("/a/f", FILE)])
    world.refused(PathViolation, "is not there", new_root, "/p/q/r")
    world.commit(new_root, "/p/q/r", create_ancestors=True)
    assert world.check().model == START


@pytest.mark.parametrize("create_ancestors", [False, True])
@pytest.mark.parametrize("lease", ["/b/f/x", "/b/f/x/y", "/n/f/x"])
def test_ancestor_that_is_a_file(world: World, lease: str, create_ancestors: bool) -> None:
    file = "/" + "/".join(lease.split("/")[1:3])
    new = {file: DIRECTORY, f"{file}/x": DIRECTORY, f"{file}/x/y": DIRECTORY, f"{file}/x/y/z": FILE}
    new_root = world.publish(world.base, [Remove(file), *puts(new)])
    world.refused(
        PathViolation,
        f"{file} is not a directory|{file}/x is not there",
        new_root,
        lease,
        create_ancestors=create_ancestors,
    )


def test_root_directory_is_published(world: World) -> None:
    """Its owner and mode, with a lease on the whole repository and with none other."""
    new_root = world.publish(world.base, [put("", Item(Kind.DIRECTORY, 9)), put("/a/f", FILE)])
    world.commit(new_root, "/a")
    assert world.check().model[""] == DIRECTORY
    world.commit(world.publish(world.head, [put("", Item(Kind.DIRECTORY, 9))]))
    assert world.check().model[""] == Item(Kind.DIRECTORY, 9)


# -- roots that are none


def test_new_root_is_not_there(world: World) -> None:
    missing = ContentHash.of(b"missing", suffix=Suffix.CATALOG)
    world.refused(MissingObject, str(missing), missing)


def test_base_is_not_there(world: World) -> None:
    new_root = world.publish(world.base, [put("/a/f", FILE)])
    missing = ContentHash.of(b"missing", suffix=Suffix.CATALOG)
    with world.repository.catalogs.load(new_root) as catalog:
        catalog.set_property("previous_revision", missing.bare)
        new_root = world.repository.catalogs.store(catalog, Algorithm.SHA1).hash
    world.refused(MissingObject, str(missing), new_root)


@pytest.mark.parametrize("content", [b"", b"no catalog", b"SQLite format 3\x00" + bytes(4096)])
def test_new_root_is_no_catalog(world: World, content: bytes) -> None:
    name = world.repository.objects.add(content, Algorithm.SHA1, Suffix.CATALOG, deflate=deflate)
    world.refused(MergeError, str(name), name)


@pytest.mark.parametrize("stored", [b"", b"not compressed", deflate(b"x" * 1000)[:-5]])
def test_new_root_does_not_unpack(world: World, stored: bytes) -> None:
    name = ContentHash.of(stored, suffix=Suffix.CATALOG)
    world.repository.objects.put(name, stored)
    world.refused(MergeError, str(name), name)


def test_new_root_is_corrupt(world: World) -> None:
    """Stored under a name that is not its hash."""
    new_root = world.publish(world.base, [put("/a/f", FILE)])
    stored = world.repository.objects.get(new_root)
    name = ContentHash.of(b"another", suffix=Suffix.CATALOG)
    world.repository.objects.put(name, stored)
    world.refused(MergeError, str(name), name)


def test_new_root_is_a_nested_catalog(world: World) -> None:
    new_root = world.publish(world.base, [put("/n/new", FILE)])
    with world.repository.catalogs.load(new_root) as catalog:
        nested = catalog.nested()["/n"].hash
    world.refused(MergeError, "belongs to /n, not to /", nested)


def edited(world: World, edit: Callable[[Catalog], object]) -> ContentHash:
    new_root = world.publish(world.base, [put("/a/x/new", FILE)])
    with world.repository.catalogs.load(new_root) as catalog:
        edit(catalog)
        return world.repository.catalogs.store(catalog, Algorithm.SHA1).hash


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE catalog",
        "DROP TABLE nested_catalogs",
        "DROP TABLE chunks",
        "DROP TABLE bind_mountpoints",
        "ALTER TABLE catalog DROP COLUMN uid",
        "DELETE FROM catalog",
        "DELETE FROM catalog WHERE name = 'x'",
        "UPDATE catalog SET name = NULL WHERE name = 'new'",
        "UPDATE catalog SET name = 5 WHERE name = 'new'",
        "UPDATE catalog SET name = x'00ff' WHERE name = 'new'",
        "UPDATE catalog SET symlink = NULL WHERE name = 'new'",
        "UPDATE catalog SET flags = NULL WHERE name = 'new'",
        "UPDATE catalog SET flags = 'many' WHERE name = 'new'",
        "UPDATE catalog SET flags = 4 | 7 << 8 WHERE name = 'new'",
        "UPDATE catalog SET hash = 'text' WHERE name = 'new'",
        "UPDATE catalog SET hash = x'00' WHERE name = 'new'",
        "UPDATE catalog SET size = 'large' WHERE name = 'new'",
        "UPDATE catalog SET hardlinks = NULL WHERE name = 'new'",
        "UPDATE catalog SET parent_1 = NULL WHERE name = 'new'",
        "UPDATE nested_catalogs SET sha1 = 'nonsense'",
        "UPDATE nested_catalogs SET sha1 = NULL",
        "UPDATE properties SET value = 'nonsense' WHERE key = 'previous_revision'",
        "UPDATE properties SET value = 'nonsense' WHERE key = 'revision'",
        "UPDATE statistics SET value = 'nonsense'",
    ],
)
def test_catalog_that_makes_no_sense(world: World, statement: str) -> None:
    """Whatever a publisher uploads: a merge error or a result that is right; never another error, nothing half done."""
    new_root = edited(world, lambda catalog: catalog.connection.execute(statement))
    before = everything(world.repository)
    try:
        world.commit(new_root)
    except MergeError:
        assert everything(world.repository) == before
        return
    world.check()


@pytest.mark.parametrize("page", [1, 2, 3, 4, 5, 6, 7, 8])
def test_damaged_page(world: World, page: int) -> None:
    """The hash is right and the file is not: an error of the publisher's, not ours."""
    new_root = world.publish(world.base, [put("/a/x/new", FILE)])
    plain = bytearray(world.repository.catalogs.plain(new_root))
    size = int.from_bytes(plain[16:18], "big")
    start = (page - 1) * size + (200 if page == 1 else 0)
    if start >= len(plain):
        pytest.skip("the catalog has fewer pages")
    plain[start : start + 64] = b"\xff" * 64
    name = world.repository.objects.add(bytes(plain), Algorithm.SHA1, Suffix.CATALOG, deflate=deflate)
    before = everything(world.repository)
    try:
        world.commit(name)
    except MergeError:
        assert everything(world.repository) == before
        return
    world.check()


# -- other errors


def test_properties_come_from_the_present_root(world: World) -> None:
    """Never from the publisher's; those of ``server.conf`` win."""

    def edit(catalog: Catalog) -> None:
        for key, value in (
            ("TTL", "5"),
            ("voms_authz", "everyone"),
            ("volatile", "1"),
            ("revision", "900"),
            ("x", "y"),
        ):
            catalog.set_property(key, value)

    world.commit(edited(world, edit))
    head = world.repository.head()
    assert (head.ttl, head.revision) == (240, 3)
    with world.repository.catalogs.load(head.root_hash) as catalog:
        properties = catalog.properties()
    assert properties["TTL"] == "240"
    assert properties["revision"] == "3"
    assert not {"voms_authz", "volatile", "x"} & set(properties)
    path = world.repository.paths.server_conf(FQRN)
    Path(path).write_text(Path(path).read_text() + "CVMFS_REPOSITORY_TTL=77\n")
    world.commit(world.publish(world.head, [put("/a/f", FILE)]))
    assert world.repository.head().ttl == 77
    with world.repository.catalogs.load(world.head) as catalog:
        assert catalog.property("TTL") == "77"


@pytest.mark.parametrize(
    "lost", ["etc/cvmfs/keys/test.example.org.key", "var/spool/cvmfs/test.example.org/reflog.chksum"]
)
def test_lost_file(world: World, tmp_path: Path, lost: str) -> None:
    """The commit fails and changes nothing; with the file back the same commit works."""
    new_root = world.publish(world.base, [put("/a/f", FILE)])
    content = (tmp_path / lost).read_bytes()
    (tmp_path / lost).unlink()
    world.refused(SigningError if lost.endswith("key") else MissingReflog, lost.rpartition("/")[2], new_root)
    (tmp_path / lost).write_bytes(content)
    assert world.commit(new_root).final_revision == 3
    assert "/a/f" in world.check().model


def test_tag_that_is_taken(world: World) -> None:
    world.commit(world.publish(world.base, []), tag="v1")
    new_root = world.publish(world.head, [put("/a/f", FILE)])
    world.refused(TagError, "v1", new_root, tag="v1")
    world.commit(new_root, tag="v2")
    assert {"v1", "v2"} <= set(tags(world.repository))
    world.check()


def test_unknown_repository(world: World) -> None:
    with pytest.raises(ConfigurationError):
        world.engine.commit(CommitRequest("other.example.org", "", world.base, world.base))


def test_clock_that_goes_back(world: World) -> None:
    published = world.repository.head().published
    new_root = world.publish(world.base, [put("/a/f", FILE)])
    world.now = NOW - 5000
    world.commit(new_root)
    assert world.repository.head().published == published
    check_repository(world.repository)


def test_work_of_others_with_cvmfs_server(world: World, tmp_path: Path, keys: str) -> None:
    """Somebody else publishes to the same storage: the next commit starts from what is there."""
    other = Engine(world.repository.paths, {}, durable=False, clock=lambda: world.now)
    root = world.publish(world.base, [put("/b/other", FILE)])
    other.commit(CommitRequest(FQRN, "", world.base, root))
    world.commit(world.publish(world.base, [put("/a/mine", FILE)]), old_root=world.base)
    assert {"/b/other", "/a/mine"} <= set(world.check().model)


def test_only_changed_attributes(world: World) -> None:
    """Owner and mode alone, of a directory, a mountpoint and a file."""
    with closing(CatalogTree(world.repository.catalogs, world.base)) as tree:
        entries = {path: tree.get(path) for path in ("/a", "/n", "/n/f")}
    changes = [Put(path, entry._replace(uid=4242)) for path, entry in entries.items() if entry is not None]
    world.commit(world.publish(world.base, changes))
    with closing(CatalogTree(world.repository.catalogs, world.head)) as tree:
        for path, entry in entries.items():
            assert entry is not None
            found = tree.get(path)
            assert found == entry._replace(uid=4242)
        inside = tree.node_of("/n").catalog.get("/n")
        assert inside is not None
        assert inside.uid == 4242


def test_the_very_same_is_uploaded_while_a_commit_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a failed commit takes back is its own, never what a publisher made of the same in the same second."""
    objects = world.repository.objects
    configuration = world.repository.configuration()
    with closing(CatalogTree(world.repository.catalogs, world.base)) as tree:
        ref, _ = tree.store(int(world.now), Algorithm.SHA1, lambda root: set_root_properties(root, configuration))
    new_root, stored = ref.hash, objects.get(ref.hash)
    world.engine.prepare(FQRN, (new_root,))
    objects.delete(new_root)
    taken_back: list[ContentHash] = []

    def fail(self: Publication, *arguments: object) -> None:
        taken_back.extend(world.repository.journal.names())
        objects.put(new_root, stored)
        raise OSError(errno.EIO, "disk trouble")

    with monkeypatch.context() as patch:
        patch.setattr(Publication, "publish", fail)
        with pytest.raises(StorageError):
            world.commit(new_root)
    assert taken_back
    assert not any(map(objects.has, taken_back))
    assert objects.get(new_root) == stored
    world.commit(new_root)
    assert world.repository.catalogs.plain(world.head) == world.repository.catalogs.plain(new_root)
    assert world.head != new_root
    assert world.check().model == START


@pytest.mark.parametrize("few", [1, 3, 10_000])
def test_fresh_base_of_few_and_many_changes(world: World, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """The base is opened once where the changes are few, and twice where they are applied while they are found."""
    monkeypatch.setattr("cvmfs_gw.engine.merge._FEW", few)
    changed: Model = {
        "/a/x": Item(Kind.DIRECTORY, 5),
        "/a/x/new": Item(Kind.FILE, 2, 2),
        "/b/f": Item(Kind.SYMLINK, 3),
        "/n/f": Item(Kind.FILE, 7),
        "/n/g": FILE,
    }
    world.commit(world.publish(world.base, [Remove("/a/y"), *puts(changed)]))
    expected = {path: item for path, item in (START | changed).items() if path != "/a/y"}
    assert world.check().model == expected
    many = {f"/a/{number}": Item(Kind.FILE, number % 30) for number in range(MANY)}
    world.commit(world.publish(world.head, [Remove("/n/g"), *puts(many)]), "/a")
    world.commit(world.publish(world.head, [Remove("/n/g"), put("/b/new", FILE)]))
    del expected["/n/g"]
    found = world.check()
    assert found.model == expected | many | {"/b/new": FILE}
    assert found.mountpoints == {"/n"}
