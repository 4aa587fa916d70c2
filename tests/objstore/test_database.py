"""What the three SQLite formats have in common."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_objstore.errors import DatabaseError
from cvmfs_objstore.formats import database as module
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.database import Database, attach, attach_empty, detach, serialize, to_bytes, to_str
from cvmfs_objstore.formats.history import History
from cvmfs_objstore.formats.reflog import Reflog
from cvmfs_objstore.hashes import ContentHash
from tests.objstore import reference_databases as reference

REAL: list[tuple[type[Database], bytes]] = [
    (Catalog, reference.ROOT_CATALOG),
    (Catalog, reference.NESTED_CATALOG),
    (Catalog, reference.HIDDEN_CATALOG),
    (History, reference.TAG_DATABASE),
    (Reflog, reference.REFLOG),
]
KINDS: list[type[Database]] = [Catalog, History, Reflog]


def raw(data: bytes) -> sqlite3.Connection:
    """The database as SQLite alone sees it."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(data)
    return connection


def edited(data: bytes, *statements: str) -> bytes:
    """A database after some SQL."""
    connection = raw(data)
    for statement in statements:
        connection.execute(statement)
    result = connection.serialize()
    connection.close()
    return result


def plain(stored: bytes) -> bytes:
    return zlib.decompress(stored)


def some(kind: type[Database]) -> bytes:
    """A real database of that kind."""
    return plain(next(stored for known, stored in REAL if known is kind))


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        (reference.ROOT_CATALOG, reference.ROOT_CATALOG_HASH),
        (reference.NESTED_CATALOG, reference.NESTED_CATALOG_HASH),
        (reference.HIDDEN_CATALOG, reference.HIDDEN_CATALOG_HASH),
        (reference.TAG_DATABASE, reference.TAG_DATABASE_HASH),
    ],
)
def test_references_are_what_they_are_called(stored: bytes, name: ContentHash) -> None:
    assert ContentHash.of(stored, suffix=name.suffix) == name


@pytest.mark.parametrize(("kind", "stored"), REAL)
def test_present_schema_comes_out_byte_by_byte(kind: type[Database], stored: bytes) -> None:
    with kind.load(plain(stored)) as database:
        assert database.dump() == plain(stored)


@pytest.mark.parametrize("kind", [Catalog, History])
def test_old_schema_is_upgraded_once(kind: type[Database]) -> None:
    with kind.load(edited(some(kind), "UPDATE properties SET value = '1' WHERE key = 'schema_revision'")) as database:
        assert database.property("schema") == f"{kind.SCHEMA:.1f}"
        assert database.property("schema_revision") == str(kind.SCHEMA_REVISION)
        upgraded = database.dump()
    with kind.load(upgraded) as database:
        assert database.dump() == upgraded
    assert raw(upgraded).execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("kind", KINDS)
def test_new_tables_are_those_of_the_reference(kind: type[Database]) -> None:
    """Columns in the same order, with the same types and keys: others read some of them by position."""

    def layout(connection: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f"PRAGMA table_info({name})").fetchall() for name in names}

    def indexes(connection: sqlite3.Connection) -> set[tuple[str, str]]:
        return set(connection.execute("SELECT name, tbl_name FROM sqlite_master WHERE type = 'index'"))

    with kind._new() as database:
        mine, theirs = raw(database.dump()), raw(some(kind))
    assert layout(mine) == layout(theirs)
    assert indexes(mine) == indexes(theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_unknown_stays(kind: type[Database]) -> None:
    table = {Catalog: "catalog", History: "tags", Reflog: "refs"}[kind]
    data = edited(
        some(kind),
        "CREATE TABLE invention (a TEXT, b BLOB)",
        "INSERT INTO invention VALUES ('x', x'00ff')",
        "INSERT INTO properties VALUES ('invented', 'yes')",
        f"ALTER TABLE {table} ADD invented TEXT DEFAULT 'd'",
    )
    with kind.load(data) as database:
        database.set_property("mine", "1")
        again = raw(database.dump())
    assert again.execute("SELECT * FROM invention").fetchall() == [("x", b"\x00\xff")]
    assert again.execute("SELECT value FROM properties WHERE key = 'invented'").fetchall() == [("yes",)]
    assert again.execute(f"SELECT DISTINCT invented FROM {table}").fetchall() == [("d",)]


@pytest.mark.parametrize("kind", KINDS)
def test_newer_revision_is_left_alone(kind: type[Database]) -> None:
    data = edited(some(kind), "UPDATE properties SET value = '99' WHERE key = 'schema_revision'")
    with kind.load(data) as database:
        assert database.property("schema_revision") == "99"
        assert database.dump() == data


@pytest.mark.parametrize("kind", KINDS)
def test_write_ahead_log_flag(kind: type[Database]) -> None:
    """A file that was left in WAL mode says so in its header; in memory there is no log to go with it."""
    data = bytearray(some(kind))
    data[18:20] = b"\x02\x02"
    with kind.load(bytes(data)) as database:
        database.set_property("touched", "1")
        dumped = database.dump()
    assert dumped[18:20] == b"\x01\x01"
    with kind.load(dumped) as database:
        assert database.property("touched") == "1"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SQLite format 3\x00",
        b"SQLite format 3\x00" + bytes(84),
        b"SQLite format 3\x00" + b"\xff" * 4096,
        bytes(4096),
        b"<html>404</html>" * 100,
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_garbage(kind: type[Database], data: bytes) -> None:
    with pytest.raises(DatabaseError):
        kind.load(data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE properties",
        "DELETE FROM properties WHERE key = 'schema'",
        "UPDATE properties SET value = 'two' WHERE key = 'schema'",
        "UPDATE properties SET value = 'nan' WHERE key = 'schema'",
        "UPDATE properties SET value = '3.0' WHERE key = 'schema'",
        "UPDATE properties SET value = '' WHERE key = 'schema'",
        "UPDATE properties SET value = 'x' WHERE key = 'schema_revision'",
        "CREATE TRIGGER gift AFTER INSERT ON properties BEGIN DELETE FROM properties; END",
        "CREATE VIEW more AS SELECT * FROM properties",
    ],
)
def test_schema_that_is_none(kind: type[Database], statement: str) -> None:
    with pytest.raises(DatabaseError, match=kind.KIND):
        kind.load(edited(some(kind), statement))


def test_ancient_catalog() -> None:
    with pytest.raises(DatabaseError, match=r"unknown schema 1\.2"):
        Catalog.load(edited(some(Catalog), "UPDATE properties SET value = '1.2' WHERE key = 'schema'"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [512, 1000, 1024, 4096, 5000])
def test_cut_off(kind: type[Database], keep: int) -> None:
    """A database that ends early is refused, at the latest when it is read; nothing else is raised."""
    try:
        with kind.load(some(kind)[:keep]) as database:
            database.connection.execute("SELECT * FROM sqlite_master").fetchall()
            assert database.connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]
    except (DatabaseError, sqlite3.DatabaseError):
        pass


@given(data=st.data())
def test_flipped_bytes_raise_database_errors_only(data: st.DataObject) -> None:
    """Whatever is wrong with a file, loading it ends in the one error or in a database."""
    mangled = bytearray(some(Reflog))
    for _ in range(data.draw(st.integers(1, 8))):
        mangled[data.draw(st.integers(16, 4095))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DatabaseError):
        Reflog.load(bytes(mangled)).close()


def test_properties() -> None:
    with Reflog.create("test.example.org") as reflog:
        assert reflog.property("nothing") is None
        assert reflog.int_property("nothing", 7) == 7
        reflog.set_property("number", 12)
        assert reflog.property("number") == "12"
        assert reflog.int_property("number", 0) == 12
        reflog.set_property("number", None)
        reflog.set_property("number", None)
        assert reflog.property("number") is None
        reflog.set_property("text", "caf\udce9 ä")
        assert reflog.property("text") == "caf\udce9 ä"
        with pytest.raises(DatabaseError, match="property text is not a number"):
            reflog.int_property("text", 0)
        expected = {"schema": "1.0", "schema_revision": "0", "fqrn": "test.example.org", "text": "caf\udce9 ä"}
        assert reflog.properties() == expected
        assert reflog.columns("refs") == {"hash", "type", "timestamp"}
        assert reflog.columns("no_such_table") == set()
        data = reflog.dump()
    kept = raw(data).execute("SELECT CAST(value AS BLOB), typeof(value) FROM properties WHERE key = 'text'").fetchone()
    assert kept == (b"caf\xe9 \xc3\xa4", "text")


@given(name=st.binary(max_size=40))
def test_names_are_bytes(name: bytes) -> None:
    assert to_bytes(to_str(name)) == name


def test_dump_gives_back_space() -> None:
    with Reflog.create("test.example.org") as reflog:
        reflog.connection.execute("CREATE TABLE big (b BLOB)")
        reflog.connection.executemany("INSERT INTO big VALUES (?)", ((bytes(1000),) for _ in range(500)))
        large = len(reflog.dump())
        reflog.connection.execute("DROP TABLE big")
        small = reflog.dump()
    assert len(small) < large // 10
    Reflog.load(small).close()


def test_usable_from_another_thread() -> None:
    found: list[str | None] = []
    with Reflog.load(some(Reflog)) as reflog:
        thread = threading.Thread(target=lambda: found.append(reflog.property("fqrn")))
        thread.start()
        thread.join()
    assert found == ["fx.example.org"]


def test_loaded_databases_are_private() -> None:
    data = some(Reflog)
    copy = bytes(bytearray(data))
    with Reflog.load(data) as one, Reflog.load(data) as other:
        one.set_property("fqrn", "changed")
        assert other.property("fqrn") == "fx.example.org"
    assert data == copy


def test_attach_and_detach() -> None:
    with Reflog.create("one.example.org") as reflog:
        attach(reflog.connection, "other", some(Reflog))
        sql = "SELECT value FROM other.properties WHERE key = 'fqrn'"
        assert reflog.connection.execute(sql).fetchone() == ("fx.example.org",)
        with pytest.raises(DatabaseError):
            attach(reflog.connection, "third", b"nothing")
        detach(reflog.connection, "other")
        detach(reflog.connection, "other")
        with pytest.raises(sqlite3.OperationalError):
            reflog.connection.execute(sql)
        attach(reflog.connection, "other", some(History))
        detach(reflog.connection, "other")
        Reflog.load(reflog.dump()).close()


@pytest.mark.parametrize("close", [Database.close, lambda database: (database.close(), database.close())])
def test_close(close: Callable[[Database], object]) -> None:
    reflog = Reflog.create("test.example.org")
    close(reflog)
    with pytest.raises(sqlite3.ProgrammingError):
        reflog.property("fqrn")


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_database_is_copied_through_a_file(
    kind: type[Database], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with kind.load(some(kind)) as database:
        database.set_property("colour", "green")
        at_once = database.dump()
        monkeypatch.setattr(module, "_LARGE", 0)
        through_file = database.dump()
    assert list(tmp_path.iterdir()) == []
    assert through_file != at_once  # in the counters of changes, which are in the file's header
    assert through_file[100:] == at_once[100:]
    with kind.load(through_file) as again:
        assert again.property("colour") == "green"


def test_a_schema_beside_the_main_one_is_copied_through_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGE", 0)
    with contextlib.closing(raw(some(Catalog))) as connection:
        attach_empty(connection, "other")
        connection.execute("CREATE TABLE other.numbers (n)")
        connection.execute("INSERT INTO other.numbers VALUES (7)")
        with contextlib.closing(raw(serialize(connection, "other"))) as found:
            assert found.execute("SELECT n FROM numbers").fetchall() == [(7,)]


def test_without_room_for_a_file_it_is_copied_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGE", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with Catalog.load(some(Catalog)) as catalog:
        assert catalog.dump() == catalog.connection.serialize()
