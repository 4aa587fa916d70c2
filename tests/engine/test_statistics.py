"""``stats.db``: what was published and collected, for ``cvmfs_server print-stats``."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from cvmfs_gw.engine.statistics import GcCounts, PublishCounts, record_gc, record_publish

FQRN = "test.example.org"


def rows(path: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return count


def test_publishes_and_collections(tmp_path: Path) -> None:
    path = tmp_path / "stats.db"
    record_publish(str(path), FQRN, 1.0, 2.0, 7, PublishCounts())
    record_gc(str(path), FQRN, 3.0, 4.0, GcCounts(), success=True)
    assert (rows(path, "publish_statistics"), rows(path, "gc_statistics"), rows(path, "properties")) == (1, 1, 3)


def test_a_file_that_never_got_its_tables(tmp_path: Path) -> None:
    """The disk was full when it was made."""
    path = tmp_path / "stats.db"
    path.touch()
    record_gc(str(path), FQRN, 3.0, 4.0, GcCounts(), success=True)
    record_publish(str(path), FQRN, 1.0, 2.0, 7, PublishCounts())
    assert (rows(path, "publish_statistics"), rows(path, "gc_statistics")) == (1, 1)
