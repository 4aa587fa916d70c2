"""Rows that differ: found page by page, they are those that a comparison of everything finds."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvmfs_gw.engine import rowdiff
from cvmfs_gw.engine.errors import MergeError
from cvmfs_gw.engine.rowdiff import CatalogDiff, linked_rows
from cvmfs_gw.engine.rowpaths import RowPaths
from cvmfs_gw.engine.rows import Row
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.entry import Chunk, Entry, Kind, path_key
from cvmfs_objstore.hashes import ContentHash
from tests.engine.trees import Item, make_entry

ROOT = make_entry("", Item(Kind.DIRECTORY, 1))[0]


@dataclass
class Found:
    """What a comparison finds."""

    removed: set[Row]
    added: set[Row]
    modified: set[tuple[Row, Entry]]


def all_rows(catalog: Catalog) -> list[Row]:
    """All rows of a catalog: everything is new where there is no older version."""
    with closing(CatalogDiff(None, catalog, many=sys.maxsize)) as diff:
        return [row for directories in (True, False) for row in diff.added(directories=directories)]


def compare(base: bytes, result: bytes, *, pages: bool) -> Found:
    """Compare two files, by pages or all rows; by pages with all of the older one, and with a few of its rows."""
    if not pages:
        return _compare(base, result, pages=False)
    whole = _compare(base, result, pages=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rowdiff, "_SMALL", 0)
        assert _compare(base, result, pages=True) == whole
    return whole


def _compare(base: bytes, result: bytes, *, pages: bool) -> Found:
    with Catalog.load(base) as one, Catalog.load(result) as other:
        files = (base, result) if pages else None
        with closing(CatalogDiff(one, other, files)) as diff:
            both = (True, False)
            removed = set(diff.removed())
            added = {row for directories in both for row in diff.added(directories=directories)}
            assert {row.key for row in added} == set(diff.added_keys())
            modified = {pair for directories in both for pair in diff.modified(directories=directories)}
        # Nothing is left behind.
        assert [row[1] for row in other.connection.execute("PRAGMA database_list")] in (["main"], ["main", "temp"])
    return Found(removed, added, modified)


def plain(base: bytes, result: bytes) -> Found:
    """The same on plain dicts."""

    def rows(data: bytes) -> dict[tuple[int, int], tuple[Row, tuple[Chunk, ...]]]:
        with Catalog.load(data) as catalog:
            return {row.key: (row, catalog.chunks_of_key(row.key)) for row in all_rows(catalog)}

    old, new = rows(base), rows(result)
    return Found(
        {row for key, (row, _) in old.items() if key not in new},
        {row for key, (row, _) in new.items() if key not in old},
        {
            (row, old[key][0].entry)
            for key, (row, chunks) in new.items()
            if key in old and (row.entry, chunks) != (old[key][0].entry, old[key][1])
        },
    )


def entry(path: str, seed: int, chunks: int = 0, long: int = 0) -> tuple[Entry, tuple[Chunk, ...]]:
    """A file, or with *long* a symbolic link whose target needs several pages."""
    if long:
        found = make_entry(path, Item(Kind.SYMLINK, seed))[0]
        return found._replace(symlink=f"{seed}" * long, size=len(f"{seed}" * long)), ()
    found, parts = make_entry(path, Item(Kind.FILE, seed, chunks))
    return found, parts


edits = st.tuples(
    st.sampled_from(("put", "remove", "chunks", "recreate")),
    st.integers(0, 400),
    st.integers(0, 50),
    st.sampled_from((0, 0, 0, 1, 3, 40)),
    st.sampled_from((0, 0, 0, 0, 3000)),
)


@given(
    size=st.integers(0, 300),
    batches=st.lists(st.lists(edits, max_size=12), min_size=1, max_size=3),
    vacuum=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_pages_find_what_rows_find(
    size: int, batches: list[list[tuple[str, int, int, int, int]]], vacuum: bool
) -> None:
    """Whatever was done to a copy of a catalog, in one session or in several."""
    with Catalog.create("", ROOT) as catalog:
        for number in range(size):
            catalog.put(f"/f{number}", *entry(f"/f{number}", number % 40, chunks=number % 7 if number % 3 == 0 else 0))
        catalog.set_counters(catalog.count_rows(), catalog.counters()[1])
        base = catalog.dump()
    result = base
    for batch in batches:
        with Catalog.load(result) as catalog:
            for action, number, seed, chunks, long in batch:
                path = f"/f{number}"
                if action == "remove":
                    catalog.remove(path)
                elif action == "chunks" and (old := catalog.get(path)) is not None and old.is_chunked:
                    parts = tuple(Chunk(i * 5, 5, ContentHash.of(b"%d" % (seed + i)).digest) for i in range(chunks))
                    catalog.put(path, old, parts)
                elif action != "chunks":
                    if action == "recreate":
                        catalog.remove(path)
                    catalog.put(path, *entry(path, seed, chunks, long))
            catalog.set_counters(catalog.count_rows(), catalog.counters()[1])
            catalog.set_property("revision", catalog.revision + 1)
            if vacuum:
                catalog.connection.execute("VACUUM")
            result = catalog.dump()
    expected = plain(base, result)
    assert compare(base, result, pages=False) == expected
    assert compare(base, result, pages=True) == expected


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
def test_other_page_sizes(page_size: int) -> None:
    """Old releases had pages of 1 KiB; a catalog of one size and its successor of another have nothing in common."""
    with Catalog.create("", ROOT) as catalog:
        for number in range(200):
            catalog.put(f"/f{number}", *entry(f"/f{number}", number))
        base = catalog.dump()
        catalog.connection.execute(f"PRAGMA page_size={page_size}")
        catalog.connection.execute("VACUUM")
        same = catalog.dump()
        catalog.put("/new", *entry("/new", 5))
        catalog.remove("/f7")
        catalog.put("/f8", *entry("/f8", 9, 4))
        result = catalog.dump()
    for one in (base, same):
        expected = plain(one, result)
        assert len(expected.added) == len(expected.removed) == len(expected.modified) == 1
        assert compare(one, result, pages=True) == expected
        assert compare(result, one, pages=True) == plain(result, one)


def test_unrelated_catalogs() -> None:
    datas = []
    for seed in (1, 2):
        with Catalog.create("", ROOT) as catalog:
            for number in range(300):
                catalog.put(f"/{number * seed}", *entry(f"/{number * seed}", number % 40))
            datas.append(catalog.dump())
    assert compare(datas[0], datas[1], pages=True) == plain(datas[0], datas[1])


def test_rows_that_only_moved() -> None:
    """The same rows in another order of row ids: nothing differs."""
    datas = []
    for order in (1, -1):
        with Catalog.create("", ROOT) as catalog:
            for number in list(range(300))[::order]:
                catalog.put(f"/{number}", *entry(f"/{number}", number % 40, chunks=2))
            datas.append(catalog.dump())
    assert compare(datas[0], datas[1], pages=True) == Found(set(), set(), set())


def test_linked_rows() -> None:
    with Catalog.create("", ROOT) as catalog:
        catalog.put("/d", make_entry("/d", Item(Kind.DIRECTORY, 1))[0]._replace(hardlinks=1 << 32 | 2))
        for path, group in (("/a", 1), ("/b", 1), ("/c", 2), ("/e", 0)):
            catalog.put(path, entry(path, 1)[0].with_links(2, group))
        assert {row.entry.name for row in linked_rows(catalog, path_key(""), 1)} == {"a", "b"}
        assert list(linked_rows(catalog, path_key("/d"), 1)) == []


def test_paths() -> None:
    paths = ["/d", "/d/e", "/d/e/f\udcff", "/d/e/f\udcff/g", "/x"]
    with Catalog.create("", ROOT) as catalog:
        for path in paths:
            catalog.put(path, make_entry(path, Item(Kind.DIRECTORY, 1))[0])
        rows = {row.key: row for row in all_rows(catalog)}
        for order in (paths, paths[::-1]):
            known = RowPaths(catalog, "")
            for path in order:
                row = rows[path_key(path)]
                assert known.child(row.key, row.parent, row.entry.name) == path
        with pytest.raises(MergeError):
            RowPaths(catalog, "").child(path_key("/y"), path_key(""), "x")
        with pytest.raises(MergeError):
            RowPaths(catalog, "").child(path_key("/y/z"), path_key("/y"), "z")


@pytest.mark.parametrize("path", ["/d" * 5000])
def test_too_deep(path: str) -> None:
    with Catalog.create("", ROOT) as catalog:
        at = ""
        rows = []
        for _ in range(5000):
            at += "/d"
            rows.append(Catalog.row(at, make_entry(at, Item(Kind.DIRECTORY, 1))[0]))
        catalog.put_new_rows(rows)
        with pytest.raises(MergeError):
            RowPaths(catalog, "").child(path_key(path), path_key(path[:-2]), "d")
