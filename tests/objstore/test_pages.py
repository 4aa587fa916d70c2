"""Comparing database files by pages: no changed row is missed, few others are named, and damage is no error."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfs_objstore.formats.pages import ChangedRows, changed_rows, root_pages

ROWS = 3000
PAGE = 1024


def database(statements: Iterable[str] = (), base: bytes | None = None, page: int = PAGE) -> bytes:
    """A file with a table and an index, or *base* after some statements."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        if base is not None:
            connection.deserialize(base)
        else:
            connection.execute(f"PRAGMA page_size = {page}")
            connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, value TEXT)")
            connection.execute("CREATE TABLE u (id INTEGER PRIMARY KEY, value TEXT)")
            connection.execute("CREATE INDEX t_value ON t (value)")
            rows = [(number, f"value {number:06}") for number in range(ROWS)]
            connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
            connection.executemany("INSERT INTO u VALUES (?, ?)", rows)
        for statement in statements:
            connection.execute(statement)
        return bytes(connection.serialize())


def roots(data: bytes) -> dict[str, int]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(data)
        return root_pages(connection)


def rows(data: bytes, table: str) -> dict[int, str]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(data)
        return dict(connection.execute(f"SELECT id, value FROM {table}"))


BASE = database()


def compare(old: bytes, new: bytes) -> dict[str, ChangedRows] | None:
    return changed_rows(old, new, roots(old), roots(new), ("t", "u"))


def test_equal_files() -> None:
    assert compare(BASE, BASE) == {"t": ChangedRows([], []), "u": ChangedRows([], [])}


def test_few_rows_are_named() -> None:
    found = compare(BASE, database(["UPDATE t SET value = 'other' WHERE id = 1234"], BASE))
    assert found is not None
    assert found["u"] == ChangedRows([], [])
    assert 1234 in found["t"].new
    assert 1234 in found["t"].old
    assert len(found["t"].new) < 100


@pytest.mark.parametrize("row_id", [-(1 << 63), -1, 127, 128, (1 << 35) + 5, (1 << 56) - 1, (1 << 63) - 1])
def test_row_ids_of_all_lengths(row_id: int) -> None:
    new = database([f"INSERT OR REPLACE INTO u VALUES ({row_id}, 'new')"], BASE)
    found = compare(BASE, new)
    assert found is not None
    assert row_id in found["u"].new


edits = st.one_of(
    st.builds("UPDATE t SET value = 'x{}' WHERE id = {}".format, st.integers(0, 99), st.integers(0, ROWS)),
    st.builds("DELETE FROM t WHERE id BETWEEN {} AND {}".format, st.integers(0, 400), st.integers(0, 600)),
    st.builds("INSERT OR REPLACE INTO u VALUES ({}, 'y')".format, st.integers(-5, 2 * ROWS)),
)


@given(st.lists(edits, min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_no_changed_row_is_missed(statements: list[str]) -> None:
    new = database(statements, BASE)
    found = compare(BASE, new)
    if found is None:
        return  # also right, and what test_few_rows_are_named is for
    for table, changed in found.items():
        before, after = rows(BASE, table), rows(new, table)
        assert set(after.items()) - set(before.items()) <= {(number, after[number]) for number in changed.new}
        assert set(before.items()) - set(after.items()) <= {(number, before[number]) for number in changed.old}


def test_overflow_pages_are_not_followed() -> None:
    old = database([f"INSERT INTO t VALUES ({ROWS}, '{'a' * 5000}')"], BASE)
    new = database([f"UPDATE t SET value = '{'a' * 3000}b{'a' * 1999}' WHERE id = {ROWS}"], old)
    assert compare(old, new) is None


def test_too_much_differs() -> None:
    assert compare(BASE, database(["UPDATE t SET value = 'all'"], BASE)) is None


def test_other_page_size() -> None:
    assert compare(BASE, database(page=2 * PAGE)) is None


def test_vacuum_pointer_maps_are_not_understood() -> None:
    new = database(["PRAGMA auto_vacuum = FULL", "VACUUM"], BASE)
    assert compare(BASE, new) is None
    assert compare(new, new) is None


@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0", BASE[:-1], BASE[: 40 * PAGE]])
def test_cut_off_files(data: bytes) -> None:
    found = roots(BASE)
    assert changed_rows(data, data, found, found, ("t", "u")) is None


def test_a_root_beyond_the_file() -> None:
    found = roots(BASE)
    assert changed_rows(BASE, BASE, found, found | {"t": 1 << 30}, ("t", "u")) is None
    assert changed_rows(BASE, BASE, found, found | {"t": 0}, ("t", "u")) is None


def test_a_table_without_a_root() -> None:
    found = roots(BASE)
    assert changed_rows(BASE, BASE, found, found, ("t", "no_such_table")) is None


@given(st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.integers(0, 255)), min_size=1, max_size=20))
@settings(max_examples=150, deadline=None)
def test_damage_is_no_error(changes: list[tuple[int, int]]) -> None:
    """Whatever the bytes are, the comparison ends, with an answer or without."""
    data, found = bytearray(BASE), roots(BASE)
    for at, value in changes:
        data[at] = value
    for old, new in ((BASE, bytes(data)), (bytes(data), BASE), (bytes(data), bytes(data))):
        answer = changed_rows(old, new, found, found, ("t", "u"))
        assert answer is None or set(answer) == {"t", "u"}
