"""Tag databases: real ones, old ones, tags, the undo tags."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cvmfs_objstore.errors import DatabaseError
from cvmfs_objstore.formats.history import TRUNK, TRUNK_PREVIOUS, UNDO_TAGS, Branch, History, Tag
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from tests.objstore import reference_databases as reference
from tests.objstore.test_database import edited, plain, raw

FQRN = "test.example.org"


def tag(name: str, revision: int = 1, algorithm: Algorithm = Algorithm.SHA1) -> Tag:
    root = ContentHash.of(f"{name}{revision}".encode(), algorithm, Suffix.CATALOG)
    return Tag(name, root, revision, 1_700_000_000 + revision, f"about {name}", 4096, 0, "")


def test_real_tag_database() -> None:
    with History.load(plain(reference.TAG_DATABASE)) as history:
        assert history.property("fqrn") == "fx.example.org"
        assert history.property("previous_revision") == "180214b1ec382b5de9faec1864777c1d42a0c4b1"
        names = [found.name for found in history.tags()]
        assert names[:2] == [TRUNK, "v2"]
        assert set(names) == {TRUNK, TRUNK_PREVIOUS, "v1", "v2", "generic-2026-11-20T10:38:30.037Z"}
        v1, previous, trunk = (history.get(name) for name in ("v1", TRUNK_PREVIOUS, TRUNK))
        assert v1 is not None
        assert v1.root_hash == ContentHash.parse("16de1e2d76da97b811102d7556f68a31944ced58C")
        assert (v1.revision, v1.timestamp, v1.description, v1.size) == (2, 1795171110, "about v1", 57344)
        assert previous == replace(v1, name=TRUNK_PREVIOUS, description="default undo target")
        assert trunk is not None
        assert trunk.description == "current HEAD"


def test_tags_written_back_are_the_same() -> None:
    with History.load(plain(reference.TAG_DATABASE)) as history:
        for found in list(history.tags()):
            history.put(found)
        again = history.dump()
    one, other = raw(plain(reference.TAG_DATABASE)), raw(again)
    for table in ("tags", "branches", "recycle_bin", "properties"):
        sql = f"SELECT * FROM {table} ORDER BY 1"
        assert one.execute(sql).fetchall() == other.execute(sql).fetchall()


def test_undo_tags_move_as_the_reference_moves_them() -> None:
    """From the database of one publish to that of the next."""
    with History.load(plain(reference.TAG_DATABASE)) as history:
        trunk, before = history.get(TRUNK), history.get(TRUNK_PREVIOUS)
        assert trunk is not None
        assert before is not None
        head = tag("", 9)
        history.move_undo_tags(head)
        assert history.get(TRUNK) == replace(head, name=TRUNK, description="current HEAD")
        assert history.get(TRUNK_PREVIOUS) == replace(trunk, name=TRUNK_PREVIOUS, description="default undo target")


def test_first_undo_tag() -> None:
    with History.create(FQRN) as history:
        history.move_undo_tags(tag("named", 1))
        assert {found.name for found in history.tags()} == {TRUNK}
        history.move_undo_tags(tag("named", 2))
        history.move_undo_tags(tag("named", 3))
        assert [(found.name, found.revision) for found in history.tags()] == [(TRUNK, 3), (TRUNK_PREVIOUS, 2)]
    assert {TRUNK, TRUNK_PREVIOUS} == UNDO_TAGS


@pytest.mark.parametrize("algorithm", Algorithm)
def test_tags(algorithm: Algorithm) -> None:
    tags = [tag(name, revision, algorithm) for revision, name in enumerate(("a", "ä b", "\N{SNOWMAN}"), 1)]
    with History.create(FQRN) as history:
        for one in tags:
            history.put(one)
        history.put(replace(tags[0], description="new", channel=4))
        data = history.dump()
    with History.load(data) as history:
        assert list(history.tags()) == [tags[2], tags[1], replace(tags[0], description="new", channel=4)]
        assert history.get("missing") is None
        assert history.remove("a")
        assert not history.remove("a")
        assert history.get("a") is None
        assert history.get("A") is None
        stored = {row[0] for row in history.connection.execute("SELECT hash FROM tags")}
        assert stored == {one.root_hash.bare for one in tags[1:]}


def test_older_ones_go() -> None:
    with History.create(FQRN) as history:
        for name, revision in (("generic-1", 1), ("generic-2", 2), ("generic-3", 3), ("Generic-1", 1), ("other", 1)):
            history.put(tag(name, revision))
        history.connection.execute("UPDATE tags SET hash = 'xyz' WHERE name = 'generic-1'")
        history.remove_older("generic-", 1_700_000_003)
        assert {found.name for found in history.tags()} == {"generic-3", "Generic-1", "other"}


def with_branches(*branches: tuple[str, str], tags: tuple[str, ...]) -> History:
    history = History.create(FQRN)
    for name, parent in branches:
        history.connection.execute("INSERT INTO branches VALUES (?, ?, 2)", (name, parent))
    for name in tags:
        history.put(replace(tag(f"on-{name}"), branch=name))
    return history


@pytest.mark.parametrize(
    ("branches", "tags", "left"),
    [
        ((("a", ""), ("b", "a")), ("", "a", "b"), {"a": "", "b": "a"}),
        ((("a", ""), ("b", "a")), ("", "a"), {"a": ""}),
        ((("a", ""), ("b", "a"), ("c", "b"), ("d", "b")), ("", "c", "d"), {"c": "", "d": ""}),
        ((("a", ""), ("b", "a"), ("c", "b")), ("", "a", "c"), {"a": "", "c": "a"}),
        ((("a", ""),), (), {}),
        # what nobody makes by command
        ((("a", "b"), ("b", "a"), ("c", "a")), ("c",), {"c": ""}),
        ((("a", "gone"),), ("a",), {"a": ""}),
    ],
)
def test_branches_without_a_tag_go(
    branches: tuple[tuple[str, str], ...], tags: tuple[str, ...], left: dict[str, str]
) -> None:
    """Those that come from one that goes come from its parent then."""
    with with_branches(*branches, tags=tags) as history:
        history.prune_branches()
        assert list(history.branches()) == [Branch(name, parent, 2) for name, parent in sorted(left.items())]
        assert history.connection.execute("SELECT * FROM branches WHERE branch = ''").fetchall() == [("", None, 0)]
        data = history.dump()
    with History.load(data) as history:
        assert {branch.name for branch in history.branches()} == set(left)
        assert {found.branch for found in history.tags()} == set(tags)


@pytest.mark.parametrize("column", ["branch", "parent", "initial_revision"])
def test_branch_that_makes_no_sense(column: str) -> None:
    with with_branches(("a", ""), tags=("a",)) as history:
        history.connection.execute(f"UPDATE branches SET {column} = x'00' WHERE branch = 'a'")
        with pytest.raises(DatabaseError, match="branch"):
            list(history.branches())


def test_new_database() -> None:
    with History.create(FQRN) as history:
        assert history.property("fqrn") == FQRN
        assert list(history.tags()) == []
        assert history.connection.execute("SELECT * FROM branches").fetchall() == [("", None, 0)]


@pytest.mark.parametrize("raw_name", [b"tag\xff", b"\xe4"])
def test_names_that_are_not_utf8(raw_name: bytes) -> None:
    """Names and descriptions come from publishers as they are; nothing is lost and nothing crashes."""
    name = raw_name.decode("utf-8", "surrogateescape")
    with History.create(FQRN) as history:
        history.put(replace(tag("x"), name=name, description=name))
        data = history.dump()
    with History.load(data) as history:
        found = history.get(name)
        assert found is not None
        assert (found.name, found.description) == (name, name)
        assert history.remove(name)
    assert raw(data).execute("SELECT CAST(name AS BLOB), typeof(name) FROM tags").fetchall() == [(raw_name, "text")]


# -- old revisions


def aged(revision: int) -> bytes:
    """The real database as an older release would have it."""
    statements: list[str] = []
    if revision < 3:
        statements += [
            "CREATE TABLE old (name TEXT, hash TEXT, revision INTEGER, timestamp INTEGER, channel INTEGER,"
            " description TEXT, CONSTRAINT pk_tags PRIMARY KEY (name))",
            "INSERT INTO old SELECT name, hash, revision, timestamp, channel, description FROM tags",
            *(["ALTER TABLE old ADD size INTEGER", "UPDATE old SET size = 57344"] if revision >= 1 else []),
            "DROP TABLE tags",
            "ALTER TABLE old RENAME TO tags",
            "DROP TABLE branches",
            "INSERT INTO recycle_bin VALUES ('ab', 1)" if revision == 2 else "DROP TABLE recycle_bin",
        ]
    return edited(
        plain(reference.TAG_DATABASE),
        *statements,
        f"UPDATE properties SET value = '{revision}' WHERE key = 'schema_revision'"
        if revision
        else "DELETE FROM properties WHERE key = 'schema_revision'",
    )


@pytest.mark.parametrize("revision", range(4))
def test_old_revision(revision: int) -> None:
    with History.load(plain(reference.TAG_DATABASE)) as wanted, History.load(aged(revision)) as history:
        assert list(history.tags()) == [replace(one, size=one.size if revision else 0) for one in wanted.tags()]
        assert history.connection.execute("SELECT * FROM branches").fetchall() == [("", None, 0)]
        assert history.connection.execute("SELECT * FROM recycle_bin").fetchall() == []
        history.put(tag("new", 9))
        history.move_undo_tags(tag("new", 9))
        assert history.properties()["schema_revision"] == "3"
        data = history.dump()
    with History.load(data) as history:
        assert history.get("new") == tag("new", 9)
        # Every tag is on a branch that is there: ``check`` demands it.
        assert history.connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert {row[0] for row in history.connection.execute("SELECT branch FROM tags")} == {""}


@pytest.mark.parametrize(
    "statement",
    ["UPDATE tags SET hash = 'nonsense'", "UPDATE tags SET hash = NULL", "UPDATE tags SET hash = hash || 'X'"],
)
def test_tag_of_nothing(statement: str) -> None:
    with History.load(edited(plain(reference.TAG_DATABASE), statement)) as history:
        with pytest.raises(DatabaseError):
            list(history.tags())
        with pytest.raises(DatabaseError):
            history.get("v1")
