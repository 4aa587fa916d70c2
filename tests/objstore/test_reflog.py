"""Reflogs: a real one, and what goes in and out."""

from __future__ import annotations

import pytest

from cvmfs_objstore.errors import DatabaseError
from cvmfs_objstore.formats.reflog import Reflog, RefType
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from tests.objstore import reference_databases as reference
from tests.objstore.test_database import edited, plain, raw

KINDS = {
    RefType.CATALOG: Suffix.CATALOG,
    RefType.CERTIFICATE: Suffix.CERTIFICATE,
    RefType.HISTORY: Suffix.HISTORY,
    RefType.METAINFO: Suffix.METAINFO,
}


def test_types() -> None:
    assert {kind: kind.suffix for kind in RefType} == KINDS
    assert [int(kind) for kind in KINDS] == [0, 1, 2, 3]


def test_real_reflog() -> None:
    with Reflog.load(plain(reference.REFLOG)) as reflog:
        assert reflog.property("fqrn") == "fx.example.org"
        counts = {kind: len(list(reflog.refs(kind))) for kind in RefType}
        assert counts == {RefType.CATALOG: 3, RefType.CERTIFICATE: 1, RefType.HISTORY: 3, RefType.METAINFO: 1}
        assert reference.ROOT_CATALOG_HASH in reflog
        assert reference.TAG_DATABASE_HASH in reflog
        assert reference.NESTED_CATALOG_HASH not in reflog
        assert reference.ROOT_CATALOG_HASH.with_suffix(Suffix.HISTORY) not in reflog
        assert len(list(reflog.refs())) == 8


def test_refs_written_back_are_the_same() -> None:
    with Reflog.load(plain(reference.REFLOG)) as real, Reflog.create("fx.example.org") as reflog:
        for ref, timestamp in real.refs():
            assert reflog.add(ref, timestamp)
        again = raw(reflog.dump())
    for table in ("refs", "properties"):
        sql = f"SELECT * FROM {table} ORDER BY 1"
        assert raw(plain(reference.REFLOG)).execute(sql).fetchall() == again.execute(sql).fetchall()


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("kind", RefType)
def test_add_and_remove(kind: RefType, algorithm: Algorithm) -> None:
    one, other = (ContentHash.of(text, algorithm, kind.suffix) for text in (b"one", b"other"))
    with Reflog.create("test.example.org") as reflog:
        assert reflog.add(one, 20)
        assert reflog.add(other, 10)
        assert not reflog.add(one, 30)
        data = reflog.dump()
    with Reflog.load(data) as reflog:
        assert list(reflog.refs()) == list(reflog.refs(kind)) == [(other, 10), (one, 20)]
        assert one in reflog
        reflog.remove(one)
        reflog.remove(one)
        assert one not in reflog
        assert list(reflog.refs()) == [(other, 10)]
    rows = raw(data).execute("SELECT * FROM refs ORDER BY timestamp").fetchall()
    assert rows == [(other.bare, int(kind), 10), (one.bare, int(kind), 20)]


@pytest.mark.parametrize("suffix", [Suffix.NONE, Suffix.CHUNK, Suffix.MICRO_CATALOG])
def test_not_for_every_object(suffix: Suffix) -> None:
    with Reflog.create("test.example.org") as reflog:
        with pytest.raises(KeyError):
            reflog.add(ContentHash.of(b"", suffix=suffix), 1)
        assert list(reflog.refs()) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE refs SET hash = 'nonsense' WHERE type = 1",
        "UPDATE refs SET hash = NULL WHERE type = 1",
        "UPDATE refs SET type = 9 WHERE type = 1",
        "UPDATE refs SET type = NULL WHERE type = 1",
    ],
)
def test_refs_to_nothing(statement: str) -> None:
    """An unknown kind of reference cannot be passed over: a collector would remove what it names."""
    with Reflog.load(edited(plain(reference.REFLOG), statement)) as reflog, pytest.raises(DatabaseError):
        list(reflog.refs())
