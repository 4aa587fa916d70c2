"""Catalogs: reading real ones, upgrading old ones, changing rows, moving content between two."""

from __future__ import annotations

import zlib
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfs_objstore.errors import DatabaseError
from cvmfs_objstore.formats.catalog import Catalog, NestedRef, NestingTable
from cvmfs_objstore.formats.entry import (
    COUNTER_NAMES,
    FLAG_BIND_MOUNTPOINT,
    FLAG_CHUNKED,
    FLAG_DIRECTORY,
    FLAG_FILE,
    FLAG_HIDDEN,
    FLAG_LINK,
    FLAG_MOUNTPOINT,
    FLAG_NESTED_ROOT,
    FLAG_SPECIAL,
    Chunk,
    Chunks,
    Counters,
    Entry,
    Kind,
    path_key,
)
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from tests.objstore import reference_databases as reference
from tests.objstore.test_database import edited, plain, raw

NESTING_TABLES: Final[tuple[NestingTable, ...]] = ("nested_catalogs", "bind_mountpoints")
DIRECTORY: Final = Entry(2, None, 4096, 0o40755, 1_700_000_000, None, FLAG_DIRECTORY, "", "", 1, 2, None)


def name(text: str) -> bytes:
    return ContentHash.of(text.encode()).digest


def ref(text: str, algorithm: Algorithm = Algorithm.SHA1, size: int = 4096) -> NestedRef:
    return NestedRef(ContentHash.of(text.encode(), algorithm, Suffix.CATALOG), size)


def directory(path: str, flags: int = 0) -> Entry:
    return DIRECTORY._replace(name=path.rpartition("/")[2], flags=FLAG_DIRECTORY | flags)


def file(path: str, *, hardlinks: int = 1, flags: int = 0, size: int = 10) -> Entry:
    digest = None if flags & FLAG_CHUNKED else name(path)
    return Entry(
        hardlinks, digest, size, 0o100644, 5, 6, FLAG_FILE | flags, path.rpartition("/")[2], "", 3, 4, b"\x01\x00"
    )


def new(mountpoint: str = "") -> Catalog:
    return Catalog.create(mountpoint, directory(mountpoint))


# -- real catalogs


def test_real_root_catalog() -> None:
    with Catalog.load(plain(reference.ROOT_CATALOG)) as catalog:
        assert catalog.mountpoint == ""
        assert catalog.revision == 4
        assert catalog.previous_revision == ContentHash.parse("d1faa0c32bcaef4d9a53d2c8b567fcc50c014efaC")
        assert catalog.int_property("TTL", 0) == 240
        entries = dict(catalog.walk(""))
        kinds = {path: entry.kind for path, entry in entries.items() if path.startswith("/dir/")}
        assert kinds == {
            "/dir/sub": Kind.DIRECTORY,
            "/dir/sub/two": Kind.FILE,
            "/dir/symlink": Kind.SYMLINK,
            "/dir/fifo": Kind.SPECIAL,
            "/dir/null": Kind.SPECIAL,
            "/dir/file": Kind.FILE,
            "/dir/big": Kind.FILE,
            "/dir/ü": Kind.FILE,
            "/dir/n\udcff\udcfe": Kind.FILE,
        }
        assert entries["/dir/symlink"].symlink == "../dir/file"
        assert entries["/dir/symlink"].size == len("../dir/file")
        assert entries["/dir/null"].size == 0x103
        assert entries["/dir/null"].mode == 0o20644
        two = entries["/dir/sub/two"]
        assert (two.uid, two.gid, two.mode) == (1000, 1001, 0o104755)
        assert two.content_hash == ContentHash.of(zlib.compress(b"two\n"))
        groups = {path: (entry.hardlink_group, entry.linkcount) for path, entry in entries.items()}
        assert groups["/links/a"] == groups["/links/b"] == groups["/links/c"] == (1, 3)
        assert groups["/links/x"] == groups["/links/y"] == (2, 2)
        assert catalog.max_hardlink_group() == 2
        big = entries["/dir/big"]
        assert big.is_chunked
        assert big.hash is None
        chunks = catalog.chunks("/dir/big")
        assert [chunk.offset for chunk in chunks] == [0, *(sum(c.size for c in chunks[:n]) for n in (1, 2))]
        assert sum(chunk.size for chunk in chunks) == big.size == 100_000
        assert set(catalog.nested()) == {"/nested", "/.cvmfs"}
        assert catalog.nested()["/nested"] == NestedRef(reference.NESTED_CATALOG_HASH, 16384)
        assert catalog.nested("bind_mountpoints") == {}
        assert entries["/nested"].flags == FLAG_DIRECTORY | FLAG_MOUNTPOINT
        assert entries["/.cvmfs"].flags == FLAG_DIRECTORY | FLAG_MOUNTPOINT | FLAG_HIDDEN
        own, below = catalog.counters()
        assert own == catalog.count_rows()
        assert own.entries == len(entries) + 1
        for nested in (reference.NESTED_CATALOG, reference.HIDDEN_CATALOG):
            with Catalog.load(plain(nested)) as child:
                for counters in child.counters():
                    below.add(counters, -1)
        assert not below


def test_real_nested_catalogs() -> None:
    with Catalog.load(plain(reference.NESTED_CATALOG)) as catalog, Catalog.load(plain(reference.ROOT_CATALOG)) as top:
        assert catalog.mountpoint == "/nested"
        assert catalog.previous_revision is None
        inside, outside = catalog.get("/nested"), top.get("/nested")
        assert inside is not None
        assert outside is not None
        assert inside.flags == FLAG_DIRECTORY | FLAG_NESTED_ROOT
        assert inside._replace(flags=0) == outside._replace(flags=0)
        assert catalog.count_rows() == catalog.counters()[0]
    with Catalog.load(plain(reference.HIDDEN_CATALOG)) as catalog:
        snapshots = {entry.name: entry for entry in catalog.children("/.cvmfs/snapshots")}
        binds = catalog.nested("bind_mountpoints")
        assert set(binds) == {f"/.cvmfs/snapshots/{tag}" for tag in snapshots}
        assert {"v1", "v2"} < set(snapshots)
        assert all(entry.flags == FLAG_DIRECTORY | FLAG_BIND_MOUNTPOINT for entry in snapshots.values())
        assert catalog.nested() == {}
        assert catalog.count_rows() == catalog.counters()[0]


def test_rows_written_back_are_the_same() -> None:
    """Every row of a real catalog, put by us, is that row: nothing is lost or changed on the way through Python."""
    data = plain(reference.ROOT_CATALOG)
    with Catalog.load(data) as catalog:
        for path, entry in [("", catalog.get("")), *catalog.walk("")]:
            assert entry is not None
            catalog.put(path, entry, catalog.chunks(path))
        for table in NESTING_TABLES:
            for path, nested in catalog.nested(table).items():
                catalog.set_nested(path, nested, table)
        catalog.set_counters(*catalog.counters())
        again = catalog.dump()
    for name_of_table in ("catalog", "chunks", "nested_catalogs", "statistics", "properties"):
        one, other = (raw(database) for database in (data, again))
        for connection in (one, other):
            connection.text_factory = bytes
        assert sorted(map(repr, one.execute(f"SELECT * FROM {name_of_table}"))) == sorted(
            map(repr, other.execute(f"SELECT * FROM {name_of_table}"))
        )


# -- old revisions

# What brings a catalog of revision 7 back to an older one, by what each newer revision had added.
_UNDO: Final = (
    (7, ("ALTER TABLE catalog DROP COLUMN mtimens",)),
    (5, ("DELETE FROM statistics WHERE counter LIKE '%\\_special' ESCAPE '\\'",)),
    (4, ("DROP TABLE bind_mountpoints",)),
    (3, ("DELETE FROM statistics WHERE counter LIKE '%\\_external%' ESCAPE '\\'",)),
    (
        2,
        (
            "ALTER TABLE catalog DROP COLUMN xattr",
            "DELETE FROM statistics WHERE counter LIKE '%\\_xattr' ESCAPE '\\'",
        ),
    ),
    (1, ("ALTER TABLE nested_catalogs DROP COLUMN size", "DELETE FROM properties WHERE key = 'schema_revision'")),
)


def aged(data: bytes, revision: int, schema: str = "2.5") -> bytes:
    """*data* (of revision 7) as it would be at an older revision."""
    statements = [statement for since, undo in _UNDO if revision < since for statement in undo]
    return edited(
        data,
        *statements,
        f"UPDATE properties SET value = '{revision}' WHERE key = 'schema_revision'",
        f"UPDATE properties SET value = '{schema}' WHERE key = 'schema'",
    )


@pytest.mark.parametrize(
    ("revision", "schema"), [*((revision, "2.5") for revision in range(7)), (0, "2.4"), (0, "2.40000009537")]
)
def test_old_revision(revision: int, schema: str) -> None:
    data = plain(reference.ROOT_CATALOG)
    old = aged(data, revision, schema)
    with Catalog.load(data) as wanted, Catalog.load(old) as catalog:

        def without(entry: Entry) -> Entry:
            return entry._replace(mtimens=None, xattr=entry.xattr if revision >= 2 else None)

        assert dict(catalog.walk("")) == {path: without(entry) for path, entry in wanted.walk("")}
        assert catalog.chunks("/dir/big") == wanted.chunks("/dir/big")
        nested = {
            path: NestedRef(found.hash, found.size if revision >= 1 else 0) for path, found in wanted.nested().items()
        }
        assert catalog.nested() == nested
        assert catalog.nested("bind_mountpoints") == {}
        for have, want in zip(catalog.counters(), wanted.counters(), strict=True):
            missing = {"special"} if revision < 5 else set()
            missing |= {"external", "external_file_size"} if revision < 3 else set()
            missing |= {"xattr"} if revision < 2 else set()
            for counter in COUNTER_NAMES:
                assert getattr(have, counter) == (0 if counter in missing else getattr(want, counter)), counter
        assert catalog.connection.execute("SELECT count(*) FROM statistics").fetchone() == (24,)
        # It takes all that a new one takes.
        catalog.put("/dir/new", file("/dir/new"), (Chunk(0, 1, name("c")),))
        catalog.set_nested("/.cvmfs/x", ref("x"), "bind_mountpoints")
        assert catalog.get("/dir/new") == file("/dir/new")
        upgraded = catalog.dump()
    with Catalog.load(upgraded) as catalog:
        assert catalog.get("/dir/new") == file("/dir/new")
        assert catalog.properties()["schema"] == "2.5"
        assert catalog.properties()["schema_revision"] == "7"


def test_half_migrated_catalog() -> None:
    """The revision says less than what is there: others stopped between adding a column and saying so."""
    data = edited(plain(reference.ROOT_CATALOG), "UPDATE properties SET value = '1' WHERE key = 'schema_revision'")
    with Catalog.load(data) as catalog, Catalog.load(plain(reference.ROOT_CATALOG)) as wanted:
        assert dict(catalog.walk("")) == dict(wanted.walk(""))
        assert catalog.counters() == wanted.counters()


def test_no_previous_revision_in_64_digits() -> None:
    """Release 2.1 wrote as many zeros as the longest hash that anybody thought of."""
    statement = f"UPDATE properties SET value = '{'0' * 64}' WHERE key = 'previous_revision'"
    with Catalog.load(edited(plain(reference.ROOT_CATALOG), statement)) as catalog:
        assert catalog.property("previous_revision") == "0" * 64
        assert catalog.previous_revision is None


# -- writing


@pytest.mark.parametrize("mountpoint", ["", "/a", "/a/b\udcff"])
def test_create(mountpoint: str) -> None:
    with Catalog.create(mountpoint, directory(mountpoint, FLAG_MOUNTPOINT)) as catalog:
        assert catalog.mountpoint == mountpoint
        root = catalog.get(mountpoint)
        assert root is not None
        assert root.flags == FLAG_DIRECTORY | (FLAG_NESTED_ROOT if mountpoint else 0)
        assert catalog.counters() == (Counters(dir=1), Counters())
        assert catalog.count_rows() == Counters(dir=1)
        assert catalog.revision == 0
        assert catalog.previous_revision is None
        parents = catalog.connection.execute("SELECT parent_1, parent_2 FROM catalog").fetchall()
        assert parents == [path_key(mountpoint.rpartition("/")[0]) if mountpoint else (0, 0)]
        data = catalog.dump()
    with Catalog.load(data) as catalog:
        assert catalog.mountpoint == mountpoint
        assert catalog.get(mountpoint) == root


names = st.binary(min_size=1, max_size=20).filter(lambda raw: b"/" not in raw and b"\0" not in raw)
integers = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=60)
@given(
    raw_name=names,
    target=st.binary(max_size=30).filter(lambda raw: b"\0" not in raw),
    hardlinks=st.integers(1, 2**63 - 1),
    size=integers,
    mtime=integers,
    mtimens=st.none() | st.integers(0, 999_999_999),
    xattr=st.none() | st.binary(min_size=1),
    digest=st.none() | st.binary(min_size=20, max_size=20),
    chunks=st.lists(st.tuples(st.integers(0, 2**40), st.integers(1, 2**30)), unique_by=lambda c: c[0], max_size=4),
)
def test_any_entry_survives(
    raw_name: bytes,
    target: bytes,
    hardlinks: int,
    size: int,
    mtime: int,
    mtimens: int | None,
    xattr: bytes | None,
    digest: bytes | None,
    chunks: list[tuple[int, int]],
) -> None:
    text, link = (raw.decode("utf-8", "surrogateescape") for raw in (raw_name, target))
    path = f"/d/{text}"
    entry = Entry(hardlinks, digest, size, 0o104755, mtime, mtimens, FLAG_FILE, text, link, 2**32 - 2, 0, xattr)
    parts: Chunks = tuple(Chunk(offset, length, name(str(offset))) for offset, length in sorted(chunks))
    with new() as catalog:
        catalog.put("/d", directory("/d"))
        catalog.put(path, entry, parts)
        data = catalog.dump()
    with Catalog.load(data) as catalog:
        assert catalog.get(path) == entry
        assert catalog.get_key(path_key(path)) == entry
        assert catalog.chunks(path) == parts
        assert list(catalog.children("/d")) == [entry]
    columns = "CAST(name AS BLOB), typeof(name), CAST(symlink AS BLOB), typeof(symlink)"
    stored = raw(data).execute(f"SELECT {columns} FROM catalog WHERE size IS ?", (size,)).fetchall()
    assert (raw_name, "text", target, "text") in stored


def test_put_and_remove() -> None:
    with new() as catalog:
        chunked = file("/f", flags=FLAG_CHUNKED)
        catalog.put("/f", chunked, (Chunk(0, 5, name("1")), Chunk(5, 5, name("2"))))
        catalog.put("/g", file("/g"), (Chunk(0, 5, name("1")),))
        catalog.put("/f", file("/f"))
        assert catalog.get("/f") == file("/f")
        assert catalog.chunks("/f") == ()
        assert catalog.has_children("")
        assert not catalog.has_children("/f")
        catalog.remove("/g")
        catalog.remove("/g")
        assert catalog.get("/g") is None
        assert catalog.connection.execute("SELECT count(*) FROM chunks").fetchone() == (0,)
        catalog.set_links("/f", 7)
        assert catalog.get("/f") == file("/f", hardlinks=7)
        assert catalog.get("/nothing") is None
        assert catalog.chunks("/nothing") == ()
        assert list(catalog.children("/nothing")) == []


def test_rows_in_bulk() -> None:
    with new() as catalog:
        paths = [f"/d{number}/f{number}" for number in range(100)]
        catalog.put_new_rows(Catalog.row(path, file(path)) for path in paths)
        assert [catalog.get(path) for path in paths] == [file(path) for path in paths]
        assert list(catalog.children("/d7")) == [file("/d7/f7")]


def test_walk_gives_parents_first() -> None:
    with Catalog.load(plain(reference.ROOT_CATALOG)) as catalog:
        seen = {""}
        for path, entry in catalog.walk(""):
            assert path.rpartition("/")[0] in seen
            assert path.rpartition("/")[2] == entry.name
            seen.add(path)
        assert {path for path, _ in catalog.walk("/dir/sub")} == {"/dir/sub/two"}
        assert list(catalog.walk("/nested")) == []


def test_tables_with_columns_of_a_later_release() -> None:
    """Columns are named wherever rows are written, so that one more does no harm."""
    tables = ("catalog", "chunks", "nested_catalogs", "bind_mountpoints", "statistics", "properties")
    data = edited(plain(reference.ROOT_CATALOG), *(f"ALTER TABLE {table} ADD later TEXT" for table in tables))
    with Catalog.load(data) as catalog, new("/dir") as target:
        catalog.put("/c", file("/c", flags=FLAG_CHUNKED), (Chunk(0, 10, name("c")),))
        catalog.set_property("TTL", 60)
        catalog.set_counters(*catalog.counters())
        catalog.set_nested("/n", ref("n"))
        catalog.set_nested("/b", ref("b"), "bind_mountpoints")
        assert catalog.chunks("/c") == (Chunk(0, 10, name("c")),)
        chunks = catalog.chunks("/dir/big")
        catalog.move_below("/dir", target)
        assert target.chunks("/dir/big") == chunks
        target.move_below("/dir", catalog)
        assert catalog.chunks("/dir/big") == chunks


# -- nested catalogs


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("table", NESTING_TABLES)
def test_registrations(algorithm: Algorithm, table: NestingTable) -> None:
    with new() as catalog:
        catalog.set_nested("/a", ref("1", algorithm), table)
        catalog.set_nested("/\udcff", ref("2", algorithm, 0), table)
        catalog.set_nested("/a", ref("3", algorithm), table)
        data = catalog.dump()
    with Catalog.load(data) as catalog:
        assert catalog.nested(table) == {"/a": ref("3", algorithm), "/\udcff": ref("2", algorithm, 0)}
        stored = {row[0] for row in catalog.connection.execute(f"SELECT sha1 FROM {table}")}
        assert stored == {ref(text, algorithm).hash.bare for text in "23"}
        assert all(not text.endswith("C") for text in stored)
        catalog.remove_nested("/\udcff", table)
        catalog.remove_nested("/b", table)
        assert set(catalog.nested(table)) == {"/a"}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE nested_catalogs SET sha1 = 'nonsense'",
        "UPDATE nested_catalogs SET sha1 = NULL",
        "UPDATE nested_catalogs SET path = NULL WHERE path = '/nested'",
        "UPDATE nested_catalogs SET size = 'much'",
    ],
)
def test_broken_registration(statement: str) -> None:
    with Catalog.load(edited(plain(reference.ROOT_CATALOG), statement)) as catalog, pytest.raises(DatabaseError):
        catalog.nested()


@pytest.mark.parametrize("value", ["nonsense", "12", "d1faa0c32bcaef4d9a53d2c8b567fcc50c014efaX"])
def test_broken_previous_revision(value: str) -> None:
    statement = f"UPDATE properties SET value = '{value}' WHERE key = 'previous_revision'"
    with Catalog.load(edited(plain(reference.ROOT_CATALOG), statement)) as catalog, pytest.raises(DatabaseError):
        assert catalog.previous_revision


@pytest.mark.parametrize("tag", ["-rmd160", "-shake128", ""])
def test_previous_revision(tag: str) -> None:
    with new() as catalog:
        catalog.set_property("previous_revision", "ab" * 20 + tag)
        assert catalog.previous_revision == ContentHash.parse("ab" * 20 + tag + "C")
        catalog.set_property("previous_revision", "0" * 40 + tag)
        assert catalog.previous_revision is None


# -- entries with extended attributes


def test_paths_of_entries_with_xattrs() -> None:
    with new("/top") as catalog:
        for path in ("/top/d", "/top/d/e"):
            catalog.put(path, directory(path))
        for path in ("/top/a", "/top/d/e/b", "/top/d/e/c"):
            catalog.put(path, file(path))
        catalog.put("/top/plain", file("/top/plain")._replace(xattr=None))
        catalog.put("/top/d", directory("/top/d")._replace(xattr=b"\x01\x00"))
        found = dict(catalog.with_xattrs())
        assert set(found) == {"/top/a", "/top/d", "/top/d/e/b", "/top/d/e/c"}
        assert found["/top/d/e/b"] == catalog.get("/top/d/e/b")


def test_a_root_with_xattrs() -> None:
    with Catalog.create("", directory("")._replace(xattr=b"\x01\x00")) as catalog:
        assert [path for path, _ in catalog.with_xattrs()] == [""]


def test_xattrs_of_rows_without_a_way_to_the_root() -> None:
    with new() as catalog:
        catalog.put("/lost/below", file("/lost/below"))
        catalog.put("/x", directory("/x"))
        catalog.put("/x/f", file("/x/f"))
        # a directory that is its own parent
        catalog.connection.execute("UPDATE catalog SET parent_1 = md5path_1, parent_2 = md5path_2 WHERE name = 'x'")
        catalog.put("/there", file("/there"))
        assert [path for path, _ in catalog.with_xattrs()] == ["/there"]


# -- hard links


def test_renumbering_a_group() -> None:
    with new() as catalog:
        for top in ("/d", "/e"):
            catalog.put(top, directory(top))
        for path, group in (("/d/1", 1), ("/d/2", 1), ("/d/3", 1), ("/d/x", 2), ("/e/1", 1), ("/d/single", 9)):
            catalog.put(path, file(path, hardlinks=group << 32 | 99))
        catalog.renumber_hardlink_group("/d", 1)
        catalog.renumber_hardlink_group("/d", 2)
        catalog.renumber_hardlink_group("/d", 5)
        links = {path: entry.hardlinks for path, entry in catalog.walk("")}
        assert links == {
            "/d": 2,
            "/e": 2,
            "/d/1": 1 << 32 | 3,
            "/d/2": 1 << 32 | 3,
            "/d/3": 1 << 32 | 3,
            "/d/x": 1,
            "/e/1": 1 << 32 | 99,
            "/d/single": 9 << 32 | 99,
        }
        assert catalog.max_hardlink_group() == 9


def test_directories_are_no_hard_links() -> None:
    with new() as catalog:
        catalog.put("/d", directory("/d")._replace(hardlinks=7 << 32 | 2))
        assert catalog.max_hardlink_group() == 0
        catalog.renumber_hardlink_group("", 7)
        assert catalog.get("/d") == directory("/d")._replace(hardlinks=7 << 32 | 2)


# -- moving


def test_move_below() -> None:
    with new() as catalog, new("/m") as target:
        rows: dict[str, tuple[Entry, Chunks]] = {
            "/m": (directory("/m"), ()),
            "/m/d": (directory("/m/d"), ()),
            "/m/d/deep": (directory("/m/d/deep"), ()),
            "/m/d/deep/f": (file("/m/d/deep/f"), ()),
            "/m/link": (file("/m/link", flags=FLAG_LINK)._replace(symlink="\udcfe", hash=None), ()),
            "/m/fifo": (file("/m/fifo", flags=FLAG_SPECIAL)._replace(hash=None), ()),
            "/m/big": (file("/m/big", flags=FLAG_CHUNKED), (Chunk(0, 5, name("1")), Chunk(5, 5, name("2")))),
            "/m/h1": (file("/m/h1", hardlinks=3 << 32 | 2), ()),
            "/m/h2": (file("/m/h2", hardlinks=3 << 32 | 2), ()),
            "/m/n": (directory("/m/n", FLAG_MOUNTPOINT), ()),
            "/m/b": (directory("/m/b", FLAG_BIND_MOUNTPOINT), ()),
            "/mm": (directory("/mm"), ()),
            "/mm/f": (file("/mm/f", flags=FLAG_CHUNKED), (Chunk(0, 10, name("3")),)),
            "/mm/n": (directory("/mm/n", FLAG_MOUNTPOINT), ()),
        }
        for path, (entry, chunks) in rows.items():
            catalog.put(path, entry, chunks)
        for path in ("/m/n", "/mm/n"):
            catalog.set_nested(path, ref(path))
        catalog.set_nested("/m/b", ref("b"), "bind_mountpoints")
        before = catalog.count_rows()

        moved = catalog.move_below("/m", target, 10)

        stayed, gone = catalog.count_rows(), target.count_rows()
        assert {path for path, _ in catalog.walk("")} == {"/m", "/mm", "/mm/f", "/mm/n"}
        assert catalog.chunks("/mm/f") == rows["/mm/f"][1]
        assert catalog.connection.execute("SELECT count(*) FROM chunks").fetchone() == (1,)
        for path in rows:
            if path.startswith("/m/"):
                entry, chunks = rows[path]
                group = 13 if entry.hardlink_group else 0
                assert target.get(path) == entry.with_links(entry.linkcount, group), path
                assert target.chunks(path) == chunks
                assert catalog.get(path) is None
                assert catalog.chunks(path) == ()
        assert set(catalog.nested()) == {"/mm/n"}
        assert target.nested() == {"/m/n": ref("/m/n")}
        assert catalog.nested("bind_mountpoints") == {}
        assert target.nested("bind_mountpoints") == {"/m/b": ref("b")}
        # The counters say what was moved: what is missing here, and what is there besides its own root.
        gone.dir -= 1
        assert moved == gone
        assert moved.nested == 1
        stayed.add(moved)
        assert stayed == before

        target.move_below("/m", catalog)
        assert catalog.count_rows() == before
        assert target.count_rows() == Counters(dir=1)
        assert target.nested() == target.nested("bind_mountpoints") == {}


def test_move_below_of_nothing() -> None:
    with new() as catalog, new("/m") as target:
        catalog.put("/m", directory("/m"))
        assert catalog.move_below("/m", target) == Counters()
        assert catalog.get("/m") == directory("/m")


# -- counters


def test_counters_both_ways() -> None:
    own = Counters(**{counter: number for number, counter in enumerate(COUNTER_NAMES)})
    below = Counters(**{counter: 1000 + number for number, counter in enumerate(COUNTER_NAMES)})
    with new() as catalog:
        catalog.set_counters(own, below)
        catalog.connection.execute("INSERT INTO statistics VALUES ('self_later', 5)")
        data = catalog.dump()
    with Catalog.load(data) as catalog:
        assert catalog.counters() == (own, below)
        catalog.set_counters(below, own)
        assert catalog.counters() == (below, own)
    stored = dict(raw(data).execute("SELECT counter, value FROM statistics"))
    assert stored["self_later"] == 5
    assert len(stored) == 25


@pytest.mark.parametrize("value", ["'many'", "NULL", "x'00'"])
def test_counter_that_is_no_number(value: str) -> None:
    statement = f"UPDATE statistics SET value = {value} WHERE counter = 'subtree_dir'"
    with Catalog.load(edited(plain(reference.ROOT_CATALOG), statement)) as catalog, pytest.raises(DatabaseError):
        catalog.counters()


def test_missing_counter_is_zero() -> None:
    data = edited(plain(reference.ROOT_CATALOG), "DELETE FROM statistics WHERE counter = 'self_regular'")
    with Catalog.load(data) as catalog:
        assert catalog.counters()[0].regular == 0


def test_without_statistics_table() -> None:
    data = aged(plain(reference.ROOT_CATALOG), 6)
    with pytest.raises(DatabaseError):
        Catalog.load(edited(data, "DROP TABLE statistics"))
