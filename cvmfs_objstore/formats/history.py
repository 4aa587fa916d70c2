"""The tag database ("history"): names for revisions.

Source: schema 1.0, revision 3; older revisions are upgraded when they are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from cvmfs_objstore.errors import DatabaseError
from cvmfs_objstore.formats.database import Database, to_bytes
from cvmfs_objstore.hashes import ContentHash, Suffix

TRUNK: Final = "trunk"
TRUNK_PREVIOUS: Final = "trunk-previous"
UNDO_TAGS: Final = frozenset((TRUNK, TRUNK_PREVIOUS))
"""Tags that every publish moves and that may not be set otherwise."""
_TRUNK_DESCRIPTION: Final = "current HEAD"
_TRUNK_PREVIOUS_DESCRIPTION: Final = "default undo target"

_BRANCHES: Final = (
    "CREATE TABLE branches (branch TEXT, parent TEXT, initial_revision INTEGER,"
    " CONSTRAINT pk_branch PRIMARY KEY (branch), FOREIGN KEY (parent) REFERENCES branches (branch),"
    " CHECK ((branch <> '') OR (parent IS NULL)), CHECK ((branch = '') OR (parent IS NOT NULL)))"
)
_RECYCLE_BIN: Final = "CREATE TABLE recycle_bin (hash TEXT, flags INTEGER, CONSTRAINT pk_hash PRIMARY KEY (hash))"
_TAGS: Final = (
    "CREATE TABLE tags (name TEXT, hash TEXT, revision INTEGER, timestamp INTEGER, channel INTEGER,"
    " description TEXT, size INTEGER, branch TEXT, CONSTRAINT pk_tags PRIMARY KEY (name),"
    " FOREIGN KEY (branch) REFERENCES branches (branch))"
)
# Names and descriptions come from publishers and need not be UTF-8.
_TEXT: Final = "CAST(? AS TEXT)"
_COLUMNS: Final = "name, hash, revision, timestamp, channel, description, size, branch"


@dataclass(frozen=True, slots=True)
class Tag:
    """A named revision: root catalog, revision number, time in seconds, size of the root catalog in bytes."""

    name: str
    root_hash: ContentHash
    revision: int
    timestamp: int
    description: str = ""
    size: int = 0
    channel: int = 0
    branch: str = ""


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch of revisions: its name (the default branch is ``""``), its parent branch, and its first revision."""

    name: str
    parent: str
    initial_revision: int


class History(Database):
    """A tag database in memory."""

    KIND: ClassVar[str] = "tag database"
    SCHEMA: ClassVar[float] = 1.0
    SCHEMA_REVISION: ClassVar[int] = 3
    READABLE: ClassVar[tuple[float, ...]] = (1.0,)

    @classmethod
    def create(cls, fqrn: str) -> History:
        """An empty tag database of a repository."""
        history = cls._new()
        history.set_property("fqrn", fqrn)
        return history

    def _create_tables(self) -> None:
        self.connection.execute(_BRANCHES)
        self.connection.execute("INSERT INTO branches VALUES ('', NULL, 0)")
        self.connection.execute(_TAGS)
        self.connection.execute(_RECYCLE_BIN)

    def _upgrade(self, version: float, revision: int) -> None:
        have = self.columns("tags")
        if not self.columns("branches"):
            self.connection.execute(_BRANCHES)
            self.connection.execute("INSERT INTO branches VALUES ('', NULL, 0)")
        if "size" not in have:
            self.connection.execute("ALTER TABLE tags ADD size INTEGER")
        if "branch" not in have:
            self.connection.execute("ALTER TABLE tags ADD branch TEXT REFERENCES branches (branch)")
            self.connection.execute("UPDATE tags SET branch = ''")
        if not self.columns("recycle_bin"):
            self.connection.execute(_RECYCLE_BIN)
        # Revision 3 abandoned the bin: what it names is garbage-collected like everything else.
        self.connection.execute("DELETE FROM recycle_bin")

    def get(self, name: str) -> Tag | None:
        """The tag of that name, or None."""
        row = self.connection.execute(f"SELECT {_COLUMNS} FROM tags WHERE name = {_TEXT}", (to_bytes(name),)).fetchone()
        return None if row is None else _tag(row)

    def tags(self) -> Iterator[Tag]:
        """All tags, newest revision first."""
        rows = self.connection.execute(f"SELECT {_COLUMNS} FROM tags ORDER BY revision DESC, timestamp DESC, name")
        return map(_tag, rows)

    def put(self, tag: Tag) -> None:
        """Add a tag, or replace the one of that name."""
        self.connection.execute(
            f"INSERT OR REPLACE INTO tags ({_COLUMNS}) VALUES ({_TEXT}, ?, ?, ?, ?, {_TEXT}, ?, ?)",
            (
                to_bytes(tag.name),
                tag.root_hash.bare,
                tag.revision,
                tag.timestamp,
                tag.channel,
                to_bytes(tag.description),
                tag.size,
                tag.branch,
            ),
        )

    def remove(self, name: str) -> bool:
        """Remove a tag; returns whether it was there."""
        return self.connection.execute(f"DELETE FROM tags WHERE name = {_TEXT}", (to_bytes(name),)).rowcount > 0

    def remove_older(self, prefix: str, moment: int) -> None:
        """Remove tags whose names begin with *prefix* and that are older than *moment*, in seconds since the epoch."""
        self.connection.execute(
            f"DELETE FROM tags WHERE substr(name, 1, ?) = {_TEXT} AND timestamp < ?",
            (len(prefix), to_bytes(prefix), moment),
        )

    def branches(self) -> Iterator[Branch]:
        """All branches but the default one, by name; raises :exc:`DatabaseError` for an invalid row."""
        sql = "SELECT branch, parent, initial_revision FROM branches WHERE branch <> '' ORDER BY branch"
        for name, parent, initial in self.connection.execute(sql):
            if not (isinstance(name, str) and isinstance(parent or "", str) and isinstance(initial or 0, int)):
                raise DatabaseError(f"tag database: branch {name!r}")
            yield Branch(name, parent or "", initial or 0)

    def prune_branches(self) -> None:
        """Remove branches that have no tag; their child branches are attached to their parents.

        Source: ``cvmfs_server tag -r``; a branch without a tag is an error for ``cvmfs_server check``.
        """
        used = {name for (name,) in self.connection.execute("SELECT DISTINCT branch FROM tags")} | {""}
        parents = {branch.name: branch.parent for branch in self.branches()}
        for name in used & parents.keys():
            parent, passed = parents[name], {name}
            while parent not in used:
                # in a damaged database, a parent may be unknown or its own ancestor
                passed.add(parent)
                parent = parents.get(parent, "")
                if parent in passed:
                    parent = ""
            if parent != parents[name]:
                self.connection.execute("UPDATE branches SET parent = ? WHERE branch = ?", (parent, name))
        self.connection.executemany(
            "DELETE FROM branches WHERE branch = ?", [(name,) for name in parents.keys() - used]
        )

    def move_undo_tags(self, head: Tag) -> None:
        """Let ``trunk`` name *head* and ``trunk-previous`` what ``trunk`` named before."""
        current = self.get(TRUNK)
        self.remove(TRUNK_PREVIOUS)
        if current is not None:
            self.put(replace(current, name=TRUNK_PREVIOUS, description=_TRUNK_PREVIOUS_DESCRIPTION))
        self.put(trunk_tag(head))


def trunk_tag(head: Tag) -> Tag:
    """The tag ``trunk`` for *head*."""
    return replace(head, name=TRUNK, description=_TRUNK_DESCRIPTION)


def _tag(row: tuple[str, str, int, int, int | None, str | None, int | None, str | None]) -> Tag:
    name, text, revision, timestamp, channel, description, size, branch = row
    try:
        root_hash = ContentHash.parse(text, Suffix.CATALOG)
    except (TypeError, ValueError) as error:
        raise DatabaseError(f"tag database: tag {name!r}: {error}") from error
    return Tag(name, root_hash, revision, timestamp, description or "", size or 0, channel or 0, branch or "")
