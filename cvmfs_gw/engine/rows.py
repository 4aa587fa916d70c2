"""Typed rows of catalogs.

SQLite accepts any value in any column, so a publisher's catalog may hold values of unexpected types. Rows from outside
therefore go through a STRICT table, which rejects them: what is read from there has the declared types.

Source: schema 2.5 of deployed catalogs; SQLite's "STRICT tables".
"""

from __future__ import annotations

from typing import Final, NamedTuple

from cvmfs_objstore.formats.catalog import ENTRY_COLUMNS
from cvmfs_objstore.formats.entry import Entry, PathKey

KEY_COLUMNS: Final = ("md5path_1", "md5path_2", "parent_1", "parent_2")
COLUMNS: Final = (*KEY_COLUMNS, *ENTRY_COLUMNS)
COLUMN_LIST: Final = ", ".join(COLUMNS)
_TYPES: Final = {
    "hash": "BLOB CHECK (length(hash) = 20)",
    "mtimens": "INTEGER",
    "name": "TEXT NOT NULL",
    "symlink": "TEXT NOT NULL",
    "xattr": "BLOB",
}
TYPED_COLUMNS: Final = ", ".join(f"{column} {_TYPES.get(column, 'INTEGER NOT NULL')}" for column in COLUMNS)
"""Columns of a table of rows, to be made ``STRICT``."""


class Row(NamedTuple):
    """A row of a catalog with its keys."""

    key: PathKey
    parent: PathKey
    entry: Entry


def make_row(found: tuple[int, ...]) -> Row:
    """The row in a result of a query for :data:`COLUMNS`."""
    return Row(found[:2], found[2:4], Entry._make(found[4:]))  # type: ignore[arg-type]


def columns_of(table: str) -> str:
    """:data:`COLUMNS`, qualified with the name of a table in a query."""
    return ", ".join(f"{table}.{column}" for column in COLUMNS)
