"""The lease database ``gw.db``: the reference's tables, kept so that either gateway can take over from the other.

::

    SchemaVersion(VersionNumber, ValidFrom, ValidTo)                                               version 3
    Lease(Token, Repository, Path, KeyID, Expiration [ms], ProtocolVersion, Hostname)
    Repository(Name, Manifest, Enabled)

The reference reads them with ``select *`` by position, so that they get no column of ours, and ``Hostname`` is never
NULL. What only this gateway knows is in tables of its own, which the reference leaves alone::

    LeaseUpload(Token, GrantedMs, ...)        what a lease's object packs brought so far
    CommitOutcome(Token, hashes, ...)         each commit that was begun; FinalRevision stays NULL if it was cut off

**Numeric affinity.** The reference declares columns as ``string``, which SQLite takes for a numeric type: the text
``007`` becomes the number 7. A database made here says ``text``. In one made there, what could be taken for a number
is stored as a blob, which no affinity touches and the reference reads as text; what *it* stored as a number is
matched with the key ids and repository names that are configured.

**One statement for each change**, as most of the time goes into the calls. Triggers keep ``LeaseUpload`` in step with
``Lease``; they are this connection's (``temp``), so that the file has nothing of them.

**Journal.** While the file is open, changes go to a write-ahead log beside it, and :meth:`LeaseDatabase.sync` makes
everything durable that was changed so far: one flush for as many changes as there are, instead of the three or four for
each of a rollback journal. When it is closed the log is folded in and the file goes back to the mode in which the
reference opens it. After a crash the newest changes are in the log, where SQLite finds them, the reference's too; only
who copies ``gw.db`` without ``gw.db-wal`` then misses some. Where there can be no such log (network file systems), each
change is durable by itself.

Source: schema version 3 of the reference; version 2 (no ``Hostname``) is taken along as it does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from cvmfs_gw.engine.commit_api import CommitOutcome, UploadStatistics
from cvmfs_gw.gateway.errors import ConfigError, LeaseDatabaseError
from cvmfs_objstore.hashes import ContentHash

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 3
BUSY_TIMEOUT_S: Final = 10.0
"""How long a change waits for somebody who reads the file with another program, in seconds."""

_SCHEMA: Final = f"""
create table SchemaVersion (
    VersionNumber integer not null unique primary key,
    ValidFrom timestamp not null,
    ValidTo timestamp
);
insert into SchemaVersion (VersionNumber, ValidFrom) values ({SCHEMA_VERSION}, datetime('now'));
create table Lease (
    Token text not null unique primary key,
    Repository text not null,
    Path text not null,
    KeyID text not null,
    Expiration integer not null,
    ProtocolVersion integer not null,
    Hostname text
);
create index lease_repository_path_idx on Lease (Repository, Path);
create table Repository (
    Name text not null unique primary key,
    Manifest text,
    Enabled bool not null
);
"""

_OWN_SCHEMA: Final = """
create table if not exists LeaseUpload (
    Token text not null primary key,
    GrantedMs integer not null,
    ObjectsAdded integer not null default 0,
    ObjectsDuplicated integer not null default 0,
    CatalogsAdded integer not null default 0,
    BytesAdded integer not null default 0,
    CatalogBytesAdded integer not null default 0
) without rowid;
create table if not exists CommitOutcome (
    Token text not null,
    OldRootHash text not null,
    NewRootHash text not null,
    KeyID text not null,
    StartedMs integer not null,
    FinishedMs integer,
    FinalRevision integer,
    RootHash text,
    TagName text,
    MissingObjects integer,
    primary key (Token, OldRootHash, NewRootHash)
) without rowid;
"""

_TRIGGERS: Final = (
    "create temp view Granted as select *, 0 as GrantedMs from main.Lease",
    "create temp trigger granted instead of insert on Granted begin"
    " insert into Lease (Token, Repository, Path, KeyID, Expiration, ProtocolVersion, Hostname) values (new.Token,"
    " new.Repository, cast(new.Path as text), new.KeyID, new.Expiration, new.ProtocolVersion, new.Hostname);"
    " insert into LeaseUpload (Token, GrantedMs) values (new.Token, new.GrantedMs);"
    " end",
    "create temp trigger ended after delete on main.Lease begin delete from LeaseUpload where Token = old.Token; end",
)
_GRANT: Final = (
    "insert into Granted (Token, Repository, Path, KeyID, Expiration, ProtocolVersion, Hostname, GrantedMs)"
    " values (?, ?, ?, ?, ?, ?, ?, ?)"
)
_END: Final = "delete from Lease where Token = ?"
_EXTEND: Final = "update Lease set Expiration = ? where Token = ?"

# what SQLite's numeric affinity would turn into a number: a decimal literal with white space around it
_NUMBER: Final = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*")


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A row of ``Lease`` with its row of ``LeaseUpload``. ``path`` is as stored: ``/`` for the whole repository."""

    token: str
    fqrn: str
    path: str
    key_id: str
    expires_ms: int
    protocol: int
    hostname: str
    granted_ms: int
    uploads: UploadStatistics


@dataclass(frozen=True, slots=True)
class RecordedCommit:
    """A commit that was begun. ``outcome`` is None if it was cut off before its end was recorded."""

    key_id: str
    outcome: CommitOutcome | None


class LeaseDatabase:
    """An open ``gw.db``. Each method is one transaction, durable after :meth:`sync`.

    Not thread-safe but for :meth:`sync`; usable from any one thread.
    """

    def __init__(self, path: str, *, key_ids: Collection[str] = (), fqrns: Collection[str] = ()) -> None:
        """Open or make the file at *path*; raises :exc:`ConfigError` if it is of another kind or version.

        *key_ids* and *fqrns* are the configured ones, to recognise what the reference stored as numbers.
        """
        self._key_ids = key_ids
        self._fqrns = fqrns
        try:
            if folder := os.path.dirname(path):
                os.makedirs(folder, exist_ok=True)
            # tokens are nobody's business but the gateway's
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"cannot open the lease database {path}: {error}") from error
        try:
            self._db.text_factory = _decode
            mode = self._choose_journal()
            self._db.execute(f"pragma synchronous = {'normal' if mode == 'wal' else 'full'}")
            with self._transaction():
                self._prepare()
            for statement in _TRIGGERS:
                self._db.execute(statement)
            self._log = os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC) if mode == "wal" else None
            self.sync()
        except (sqlite3.Error, OSError, LeaseDatabaseError) as error:
            self._db.close()
            raise ConfigError(f"cannot use the lease database {path}: {error}") from error
        except BaseException:
            self._db.close()
            raise

    def sync(self) -> None:
        """Make durable what was changed before this was called; raises ``OSError``."""
        if self._log is not None:
            os.fdatasync(self._log)

    def close(self) -> None:
        if self._log is not None:
            os.close(self._log)
            self._log = None
            # somebody else may have the file open: then it stays as it is, which is complete, too
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("pragma synchronous = full")
                self._db.execute("pragma journal_mode = delete").fetchall()
        self._db.close()

    # --- leases ------------------------------------------------------------------------------------------------

    def leases(self) -> Iterator[LeaseRow]:
        """Every row, expired ones too; those that live longest come first."""
        rows = self._db.execute(
            "select l.Token, l.Repository, l.Path, l.KeyID, l.Expiration, l.ProtocolVersion, l.Hostname,"
            " u.GrantedMs, u.ObjectsAdded, u.ObjectsDuplicated, u.CatalogsAdded, u.BytesAdded, u.CatalogBytesAdded"
            " from Lease l left join LeaseUpload u on u.Token = l.Token order by l.Expiration desc"
        ).fetchall()
        for token, fqrn, path, key_id, expires, protocol, hostname, granted, *counters in rows:
            yield LeaseRow(
                token=_text(token),
                fqrn=_text(fqrn, self._fqrns),
                path=_text(path),
                key_id=_text(key_id, self._key_ids),
                expires_ms=int(expires),
                protocol=int(protocol),
                hostname=_text(hostname),
                granted_ms=granted or 0,
                uploads=UploadStatistics(*(counter or 0 for counter in counters)),
            )

    def grant(self, row: LeaseRow, replaced: Sequence[str] = ()) -> None:
        """Add a lease, and remove those whose place it takes."""
        path, key_id, hostname = _encode(row.path), _bind(row.key_id), _bind(row.hostname)
        values = (row.token, row.fqrn, path, key_id, row.expires_ms, row.protocol, hostname, row.granted_ms)
        if not replaced:
            self._change(_GRANT, values)
            return
        with self._transaction():
            self._delete(replaced)
            self._db.execute(_GRANT, values)

    def remove(self, tokens: Sequence[str]) -> None:
        if len(tokens) == 1:
            self._change(_END, tokens)
            return
        with self._transaction():
            self._delete(tokens)

    def extend(self, token: str, expires_ms: int) -> None:
        self._change(_EXTEND, (expires_ms, token))

    def record_upload(self, token: str, total: UploadStatistics, granted_ms: int, expires_ms: int) -> None:
        """Store what the lease's packs have brought in all, and when the lease expires now."""
        with self._transaction():
            self._db.execute(
                "insert or replace into LeaseUpload values (?, ?, ?, ?, ?, ?, ?)",
                (
                    token,
                    granted_ms,
                    total.objects_added,
                    total.objects_duplicated,
                    total.catalogs_added,
                    total.bytes_added,
                    total.catalog_bytes_added,
                ),
            )
            self._db.execute(_EXTEND, (expires_ms, token))

    # --- commits -----------------------------------------------------------------------------------------------

    def commit(self, token: str, old_root: ContentHash, new_root: ContentHash) -> RecordedCommit | None:
        """What is known of a commit that was begun at some time."""
        row = self._db.execute(
            "select KeyID, FinalRevision, RootHash, TagName, MissingObjects from CommitOutcome"
            " where Token = ? and OldRootHash = ? and NewRootHash = ?",
            (token, str(old_root), str(new_root)),
        ).fetchone()
        if row is None:
            return None
        key_id, revision, root_hash, tag_name, missing = row
        outcome = None
        if revision is not None:
            outcome = CommitOutcome(revision, ContentHash.parse(root_hash), _text(tag_name), missing or 0)
        return RecordedCommit(_text(key_id), outcome)

    def interrupted(self) -> set[str]:
        """The tokens of leases whose commit was cut off, which :meth:`recover` has not been told yet."""
        rows = self._db.execute(
            "select Token from CommitOutcome where FinalRevision is null and FinishedMs is null"
        ).fetchall()
        return {_text(token) for (token,) in rows}

    def recover(self, expires_ms: Mapping[str, int], now: int) -> None:
        """Note that commits were cut off, and store when their leases expire now."""
        with self._transaction():
            self._db.execute("update CommitOutcome set FinishedMs = ? where FinishedMs is null", (now,))
            for token, expires in expires_ms.items():
                self._db.execute(_EXTEND, (expires, token))

    def begin_commit(self, token: str, key_id: str, old_root: ContentHash, new_root: ContentHash, now: int) -> None:
        self._change(
            "insert or replace into CommitOutcome (Token, OldRootHash, NewRootHash, KeyID, StartedMs)"
            " values (?, ?, ?, ?, ?)",
            (token, str(old_root), str(new_root), _bind(key_id), now),
        )

    def fail_commit(self, token: str, old_root: ContentHash, new_root: ContentHash, expires_ms: int) -> None:
        """Forget that the commit was begun, and store when the lease expires now."""
        with self._transaction():
            self._db.execute(
                "delete from CommitOutcome where Token = ? and OldRootHash = ? and NewRootHash = ?",
                (token, str(old_root), str(new_root)),
            )
            self._db.execute(_EXTEND, (expires_ms, token))

    def finish_commit(
        self, token: str, old_root: ContentHash, new_root: ContentHash, outcome: CommitOutcome, now: int
    ) -> None:
        """Record the outcome and end the lease."""
        with self._transaction():
            self._db.execute(
                "update CommitOutcome set FinishedMs = ?, FinalRevision = ?, RootHash = ?,"
                " TagName = cast(? as text), MissingObjects = ?"
                " where Token = ? and OldRootHash = ? and NewRootHash = ?",
                (
                    now,
                    outcome.final_revision,
                    str(outcome.root_hash),
                    _encode(outcome.tag_name),
                    outcome.missing_objects,
                    token,
                    str(old_root),
                    str(new_root),
                ),
            )
            self._delete([token])

    def forget_commits(self, before_ms: int) -> None:
        """Remove the outcomes of commits that began before *before_ms* and whose lease is gone."""
        self._change(
            "delete from CommitOutcome where StartedMs < ? and Token not in (select Token from Lease)", (before_ms,)
        )

    def probe(self) -> None:
        """Change nothing, but write that; raises ``sqlite3.Error``, also if the disk is full."""
        version = self._db.execute("pragma user_version").fetchone()[0]
        with self._transaction():
            self._db.execute(f"pragma user_version = {version}")

    # --- repositories ------------------------------------------------------------------------------------------

    def set_repositories(self, enabled: Mapping[str, bool]) -> None:
        """Make the table say exactly this."""
        with self._transaction():
            self._db.execute("delete from Repository")
            self._db.executemany(
                "insert into Repository (Name, Manifest, Enabled) values (?, '', ?)", list(enabled.items())
            )

    # --- inside ------------------------------------------------------------------------------------------------

    def _change(self, statement: str, values: Sequence[object]) -> None:
        """One statement, which is a transaction by itself."""
        try:
            self._db.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise _unwritable(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("begin immediate")
            yield
            self._db.execute("commit")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("rollback")
            if isinstance(error, sqlite3.OperationalError):
                raise _unwritable(error) from error
            raise

    def _delete(self, tokens: Iterable[str]) -> None:
        self._db.executemany(_END, ((token,) for token in tokens))

    def _choose_journal(self) -> str:
        """Have changes written ahead; what is in use then. On a full disk, what was in use before."""
        try:
            (mode,) = self._db.execute("pragma journal_mode = wal").fetchone()
        except sqlite3.OperationalError as error:
            log.error("the lease database stays as it is: %s", error)
            (mode,) = self._db.execute("pragma journal_mode").fetchone()
        return str(mode)

    def _prepare(self) -> None:
        """Make the tables of a new file, or bring an old one to the present version."""
        if self._db.execute("select count(*) from sqlite_master").fetchone()[0] == 0:
            self._run(_SCHEMA)
        row = self._db.execute("select max(VersionNumber) from SchemaVersion").fetchone()
        version = int(row[0] or 0)
        if version not in (2, SCHEMA_VERSION):
            raise ConfigError(f"lease database of unknown schema version {version} (known: {SCHEMA_VERSION})")
        if version == 2:
            self._db.execute("alter table Lease add column Hostname string")
            self._db.execute("update SchemaVersion set VersionNumber = 3, ValidFrom = datetime('now')")
        self._db.execute("update Lease set Hostname = '' where Hostname is null")
        self._run(_OWN_SCHEMA)
        self._db.execute("delete from LeaseUpload where Token not in (select Token from Lease)")

    def _run(self, script: str) -> None:
        # not executescript, which would end the transaction
        for statement in script.split(";"):
            if statement.strip():
                self._db.execute(statement)


def _unwritable(error: sqlite3.OperationalError) -> LeaseDatabaseError:
    """A full disk, another program's lock."""
    return LeaseDatabaseError(f"the lease database cannot be written: {error}")


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _bind(text: str) -> str | bytes:
    """*text* in the form that comes back as it is from a column of any affinity."""
    data = _encode(text)
    if _NUMBER.fullmatch(text) or not _is_utf8(data):
        return data
    return text


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text(value: Any, candidates: Collection[str] = ()) -> str:
    """The text that a column's value stands for; a number is looked for among *candidates* first."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return _decode(value)
    if isinstance(value, str):
        return value
    plain = str(value)
    if plain in candidates:
        return plain
    same: Callable[[str], bool] = lambda text: bool(_NUMBER.fullmatch(text)) and float(text) == value  # noqa: E731
    return next((text for text in sorted(candidates) if same(text)), plain)
