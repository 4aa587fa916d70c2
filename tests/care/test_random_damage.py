"""Values of catalogs and tag databases are changed at random: whatever the reference complains of, we do, too.

``CVMFS_GW_DAMAGES=1000`` makes more of them, ``CVMFS_GW_SEED`` others.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from cvmfs_gw.engine.repository import Repository
from tests.care.harm import edit_catalogs, edit_history
from tests.care.sample import NESTED, build
from tests.care.test_check import PROGRAM, check, reference

DAMAGES = int(os.environ.get("CVMFS_GW_DAMAGES", "12"))
SEED = int(os.environ.get("CVMFS_GW_SEED", "1"))
VALUES = ("NULL", "''", "'x'", "0", "1", "-1", "2", "4711", "1 << 32", "1 << 62", "x''", "x'00'", "zeroblob(20)")


def change(connection: sqlite3.Connection, chance: random.Random) -> str:
    """Change one value, or remove or double one row; returns the statement."""
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
    while True:
        table = chance.choice(tables)
        rows = [row for (row,) in connection.execute(f"SELECT rowid FROM {table} ORDER BY 1")]
        if not rows:
            continue
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        column, row = chance.choice(columns), chance.choice(rows)
        value = chance.choice((*VALUES, f"{column} + 1", f"{column} | {1 << chance.randrange(18)}", f"{column} || 'x'"))
        other = f"(SELECT {column} FROM {table} WHERE rowid = {chance.choice(rows)})"
        statement = f"UPDATE {table} SET {column} = {chance.choice((value, value, value, other))} WHERE rowid = {row}"
        if chance.random() < 0.1:
            statement = f"DELETE FROM {table} WHERE rowid = {row}"
        try:
            connection.execute(statement)
        except sqlite3.Error:
            continue  # two rows of one key, say
        return statement


@pytest.mark.parametrize("number", range(DAMAGES))
def test_reference_finds_nothing_that_we_do_not(tmp_path: Path, keys: str, number: int) -> None:
    if PROGRAM is None:
        pytest.skip("no cvmfs_swissknife")
    chance = random.Random(f"{SEED} {number}")
    repository: Repository = build(str(tmp_path / "root"), keys)
    done: list[str] = []
    place = chance.choice(("", NESTED, "/a/n/m", "tags"))
    if place == "tags":
        edit_history(lambda history: done.append(change(history.connection, chance)))(repository)
    else:
        edit_catalogs(repository, {place: lambda catalog: done.append(change(catalog.connection, chance))})
    ours = check(repository)
    theirs = reference(repository, tmp_path / "tmp")
    assert theirs or ours.faults, f"{place or '/'}: {done}"
    shutil.rmtree(tmp_path / "root")
