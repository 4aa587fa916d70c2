from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from cvmfs_gw.engine.commit_api import CommitOutcome, UploadStatistics
from cvmfs_gw.gateway.errors import ConfigError, LeaseDatabaseError
from cvmfs_gw.gateway.leasedb import LeaseDatabase, LeaseRow
from cvmfs_gw.paths import SystemPaths
from tests.gateway.support import FQRN, NEW, OLD, catalog

REFERENCE_SCHEMA = """
create table SchemaVersion (
    VersionNumber integer not null unique primary key, ValidFrom timestamp not null, ValidTo timestamp);
insert into SchemaVersion (VersionNumber, ValidFrom) values (3, datetime('now'));
create table Lease (Token string not null unique primary key, Repository string not null, Path string not null,
    KeyID string not null, Expiration integer not null, ProtocolVersion integer not null, Hostname string);
create index lease_repository_path_idx on Lease(Repository, Path);
create table Repository (Name string not null unique primary key, Manifest string, Enabled bool not null);
"""


@pytest.fixture
def path(paths: SystemPaths) -> str:
    return os.path.join(paths.work_dir, "gw.db")


@pytest.fixture(params=["ours", "theirs"])
def database(request: pytest.FixtureRequest, path: str) -> Iterator[LeaseDatabase]:
    if request.param == "theirs":
        make(path, REFERENCE_SCHEMA)
    database = LeaseDatabase(path)
    yield database
    database.close()


def make(path: str, script: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)


def query(path: str, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def row(token: str = "TOKEN====", **changes: object) -> LeaseRow:
    fields: dict[str, object] = {
        "token": token,
        "fqrn": FQRN,
        "path": "/a/b",
        "key_id": "key1",
        "expires_ms": 2_000,
        "protocol": 3,
        "hostname": "host",
        "granted_ms": 1_000,
        "uploads": UploadStatistics(),
    }
    return LeaseRow(**{**fields, **changes})  # type: ignore[arg-type]


def test_what_the_reference_reads(database: LeaseDatabase, path: str) -> None:
    database.grant(row())
    database.set_repositories({"a.org": True, "b.org": False})
    assert query(path, "select * from Lease") == [("TOKEN====", FQRN, "/a/b", "key1", 2_000, 3, "host")]
    assert query(path, "select VersionNumber from SchemaVersion") == [(3,)]
    assert query(path, "select * from Repository order by Name") == [("a.org", "", 1), ("b.org", "", 0)]
    assert query(path, f"select Token from Lease where Repository = '{FQRN}' and Path like '/a%'")
    assert query(path, "pragma journal_mode") == [("wal",)]
    database.sync()
    database.close()
    assert query(path, "pragma journal_mode") == [("delete",)]
    assert query(path, "select Token from Lease") == [("TOKEN====",)]


@pytest.mark.parametrize(
    "text", ["key", "007", "7", "1e5", "-0", " 7 ", ".5", "5.", "0x10", "", "a\udcffb", "ü", "inf", "nan"]
)
def test_what_looks_like_a_number_survives(database: LeaseDatabase, text: str) -> None:
    database.grant(row(key_id=text, hostname=text, path=f"/{text}"))
    (found,) = database.leases()
    assert (found.key_id, found.hostname, found.path) == (text, text, f"/{text}")


@pytest.mark.parametrize(
    ("text", "known", "expected"),
    [
        ("007", ["key", "007"], "007"),
        ("007", ["07", "7"], "7"),
        ("007", ["seven"], "7"),
        ("1e5", ["1e5"], "1e5"),
        ("1.50", ["1.50"], "1.50"),
        ("key", ["007"], "key"),
    ],
)
def test_what_the_reference_made_a_number_of(path: str, text: str, known: list[str], expected: str) -> None:
    make(path, REFERENCE_SCHEMA)
    make(path, f"insert into Lease values ('T', '1.50', '/a', '{text}', 5, 3, '0123')")
    with closing(LeaseDatabase(path, key_ids=known, fqrns=["1.50"])) as database:
        (found,) = database.leases()
    assert (found.fqrn, found.key_id, found.hostname) == ("1.50", expected, "123")


def test_rows_live(database: LeaseDatabase) -> None:
    database.grant(row("A"))
    database.grant(row("B", path="/", expires_ms=9_000), replaced=["A", "unknown"])
    database.extend("B", 10_000)
    total = UploadStatistics(1, 2, 3, 4, 5)
    database.record_upload("B", total, 1_000, 11_000)
    assert list(database.leases()) == [row("B", path="/", expires_ms=11_000, uploads=total)]
    database.remove(["B"])
    assert list(database.leases()) == []


def test_what_the_packs_brought_goes_with_the_lease(database: LeaseDatabase, path: str) -> None:
    for token in "ABCD":
        database.grant(row(token))
    assert query(path, "select Token, GrantedMs from LeaseUpload order by Token") == [(t, 1_000) for t in "ABCD"]
    database.remove(["A"])
    database.remove(["B", "C"])
    database.begin_commit("D", "key", OLD, NEW, 1)
    assert query(path, "select Token from LeaseUpload") == [("D",)]
    database.finish_commit("D", OLD, NEW, CommitOutcome(1, NEW), 2)
    assert query(path, "select Token from LeaseUpload") == []
    # the reference finds nothing in the file that it would run
    assert query(path, "select name from sqlite_master where type in ('trigger', 'view')") == []


def test_commits(database: LeaseDatabase, path: str) -> None:
    database.grant(row("A"))
    assert database.commit("A", OLD, NEW) is None
    database.begin_commit("A", "007", OLD, NEW, 1)
    begun = database.commit("A", OLD, NEW)
    assert begun is not None
    assert (begun.key_id, begun.outcome) == ("007", None)
    assert database.interrupted() == {"A"}
    database.recover({"A": 4_000}, 3)
    assert database.interrupted() == set()
    assert database.commit("A", OLD, NEW) == begun
    assert next(database.leases()).expires_ms == 4_000
    database.begin_commit("A", "007", OLD, NEW, 1)
    assert database.interrupted() == {"A"}

    database.fail_commit("A", OLD, NEW, 5_000)
    assert database.commit("A", OLD, NEW) is None
    assert next(database.leases()).expires_ms == 5_000

    outcome = CommitOutcome(2**40, catalog("root"), "tag \udcff")
    database.begin_commit("A", "007", OLD, NEW, 1)
    database.finish_commit("A", OLD, NEW, outcome, 2)
    done = database.commit("A", OLD, NEW)
    assert done is not None
    assert done.outcome == outcome
    assert database.commit("A", OLD, catalog("other")) is None
    assert list(database.leases()) == []
    assert database.interrupted() == set()

    database.forget_commits(1)
    assert database.commit("A", OLD, NEW) is not None
    database.forget_commits(2)
    assert database.commit("A", OLD, NEW) is None


def test_reopening(path: str) -> None:
    with closing(LeaseDatabase(path)) as database:
        database.grant(row("A"))
    assert os.stat(path).st_mode & 0o777 == 0o600
    with closing(LeaseDatabase(path)) as database:
        assert [found.token for found in database.leases()] == ["A"]


def test_version_2(path: str) -> None:
    make(path, REFERENCE_SCHEMA.replace(", Hostname string", "").replace("values (3,", "values (2,"))
    make(path, "insert into Lease values ('T', 'a.org', '/a', 'key', 5, 3)")
    with closing(LeaseDatabase(path)) as database:
        assert next(database.leases()).hostname == ""
    assert query(path, "select * from Lease") == [("T", "a.org", "/a", "key", 5, 3, "")]
    assert query(path, "select VersionNumber from SchemaVersion") == [(3,)]


def test_leases_that_went_while_the_reference_was_at_it(path: str) -> None:
    with closing(LeaseDatabase(path)) as database:
        database.grant(row("A"))
        database.record_upload("A", UploadStatistics(1, 1, 1, 1, 1), 1_000, 2_000)
    make(path, "delete from Lease")
    with closing(LeaseDatabase(path)):
        assert query(path, "select count(*) from LeaseUpload") == [(0,)]


@pytest.mark.parametrize("version", [1, 4])
def test_unknown_versions(path: str, version: int) -> None:
    make(path, REFERENCE_SCHEMA.replace("values (3,", f"values ({version},"))
    with pytest.raises(ConfigError, match=f"unknown schema version {version}"):
        LeaseDatabase(path)


def test_other_files(path: str, paths: SystemPaths) -> None:
    make(path, "create table x (y)")
    with pytest.raises(ConfigError):
        LeaseDatabase(path)
    with open(path, "wb") as file:
        file.write(b"not a database" * 100)
    with pytest.raises(ConfigError):
        LeaseDatabase(path)
    with pytest.raises(ConfigError):
        LeaseDatabase(os.path.join(path, "below-a-file", "gw.db"))


def test_a_failed_change_changes_nothing(database: LeaseDatabase) -> None:
    database.grant(row("A"))
    with pytest.raises(sqlite3.IntegrityError):
        database.grant(row("B", expires_ms=None), replaced=["A"])
    assert [found.token for found in database.leases()] == ["A"]
    with pytest.raises(sqlite3.IntegrityError):
        database.grant(row("A", path="/other"))
    assert list(database.leases()) == [row("A")]
    database.grant(row("B"))


def test_a_full_disk(database: LeaseDatabase, path: str) -> None:
    database.grant(row())
    pages = database._db.execute("pragma page_count").fetchone()[0]
    database._db.execute(f"pragma max_page_count = {pages}")
    with pytest.raises(LeaseDatabaseError, match="cannot be written: database or disk is full"):
        database.grant(row("OTHER====", hostname="x" * 10_000))
    assert query(path, "select Token from Lease") == [("TOKEN====",)]
    database.remove(["TOKEN===="])
    assert query(path, "select Token from Lease") == []


def test_a_probe_writes(database: LeaseDatabase, path: str) -> None:
    """Whether a change could be made is known once one was: a full disk lets anybody begin."""
    database.grant(row())
    before = os.path.getsize(f"{path}-wal")
    database.probe()
    assert os.path.getsize(f"{path}-wal") > before
    assert [found.token for found in database.leases()] == ["TOKEN===="]


def test_a_disk_that_is_full_at_the_start(database: LeaseDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for the log: what there was goes on being used, and the file can be read."""

    class Full:
        def execute(self, statement: str) -> sqlite3.Cursor:
            if "=" in statement:
                raise sqlite3.OperationalError("database or disk is full")
            return memory.execute("select 'delete'")

    with closing(sqlite3.connect(":memory:")) as memory, monkeypatch.context() as patch:
        patch.setattr(database, "_db", Full())
        assert database._choose_journal() == "delete"
