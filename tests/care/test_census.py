"""What a look inside finds, beside a plain walk through the whole tree."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_gw.care import census
from cvmfs_gw.care.census import Census
from cvmfs_gw.engine.errors import TagError
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.compression import deflate
from cvmfs_objstore.formats.entry import Entry, Kind, is_below
from cvmfs_objstore.hashes import ContentHash, Suffix
from tests.care.collecting import Past

FILES: dict[str, bytes | None] = {
    "/a": b"/", "/a/b": b"/", "/a/b/c": b"/", "/a/b/c/deep": b"12345", "/a/b/same": b"shared", "/a/one": b"1",
    "/ab": b"/", "/ab/file": b"four", "/n": b"/", "/n/m": b"/", "/n/m/o": b"/", "/n/m/o/p": b"x" * 300,
    "/n/m/chunked": b"first\nsecond", "/n/same": b"shared", "/top": b"x" * 200, "/empty": b"/",
}  # fmt: skip
NESTED = ("/a/b", "/n", "/n/m", "/n/m/o")


@pytest.fixture
def past(tmp_path: Path, keys: str) -> Past:
    made = Past(str(tmp_path / "root"), keys)
    made.commit(FILES, "tagged", nest=NESTED)
    return made


@pytest.fixture
def inside(past: Past) -> Census:
    return Census(past.repository(), past.repository().head().root_hash)


def walk(past: Past) -> dict[str, Entry]:
    """Everything, the slow way."""
    found: dict[str, Entry] = {}
    with closing(CatalogTree(past.repository().catalogs, past.repository().head().root_hash)) as tree:
        waiting = [""]
        while waiting:
            path = waiting.pop()
            entry = tree.get(path)
            assert entry is not None
            found[path] = entry
            if entry.is_directory:
                waiting.extend(f"{path}/{below.name}" for below in tree.entries(path))
    return found


@pytest.mark.parametrize("depth", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("top", ["", "/a", "/a/b", "/n", "/n/m/o", "/n/m/o/p", "/top", "/empty"])
def test_tree(past: Past, inside: Census, top: str, depth: int | None) -> None:
    wanted = {
        path
        for path in walk(past)
        if is_below(path, top) and (depth is None or path.count("/") - top.count("/") <= depth)
    }
    found = [path for path, _ in inside.tree(top, depth)]
    assert len(found) == len(set(found))
    assert set(found) == wanted


@pytest.mark.parametrize("top", ["/none", "/top/none", "/n/none", "/a/b/c/deep/x"])
def test_nothing_there(inside: Census, top: str) -> None:
    with pytest.raises(TagError):
        list(inside.tree(top))


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 9])
@pytest.mark.parametrize("top", ["", "/a", "/a/b", "/n", "/n/m/o", "/empty"])
def test_sizes(past: Past, inside: Census, top: str, depth: int) -> None:
    everything = walk(past)
    wanted = {
        path: (
            sum(is_below(other, path) and other != path for other in everything),
            sum(e.size for other, e in everything.items() if is_below(other, path) and e.kind is Kind.FILE),
        )
        for path, entry in everything.items()
        if entry.is_directory and is_below(path, top) and path.count("/") - top.count("/") <= depth
    }
    found = inside.sizes(top, depth)
    assert {each.path: (each.entries, each.size) for each in found} == wanted
    assert [each.size for each in found] == sorted((each.size for each in found), reverse=True)


def test_sums_need_no_catalogs_below(past: Past) -> None:
    opened: list[str] = []
    Census(past.repository(), past.repository().head().root_hash, opened.append).sizes("", 1)
    assert sorted(opened) == ["", "/a/b", "/n"]


def test_largest(inside: Census) -> None:
    assert inside.largest(number=3) == [("/n/m/o/p", 300), ("/top", 200), ("/n/m/chunked", 11)]
    assert inside.largest("/a", 2) == [("/a/b/same", 6), ("/a/b/c/deep", 5)]
    assert inside.largest("/ab") == [("/ab/file", 4)]


def test_catalogs(past: Past, inside: Census, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inside.catalogs_total() == 5
    shapes = {shape.mountpoint: shape for shape in inside.catalogs()}
    assert set(shapes) == {"", *NESTED}
    assert [shapes[path].depth for path in ("", *NESTED)] == [0, 1, 1, 2, 3]
    assert shapes["/n/m/o"].entries == shapes["/n/m/o"].subtree == 2
    assert shapes["/n/m"].subtree == shapes["/n/m"].entries + 2
    assert not any(shape.split for shape in shapes.values())
    past.commit({"/big": b"/", "/big/half": b"/", **{f"/big/half/{n}": b"x" for n in range(40)}})
    past.commit({"/big/more": b"/", **{f"/big/more/{n}": b"x" for n in range(25)}})
    monkeypatch.setattr(census, "SPLIT_FROM", 50)
    root = next(Census(past.repository(), past.repository().head().root_hash).catalogs())
    assert root.split[0] == ("/big/half", 40)
    assert dict(root.split)["/big"] == 67


def test_owners(past: Past, inside: Census) -> None:
    shared = ContentHash.of(deflate(b"shared"))
    assert sorted(inside.owners(shared)) == ["content of /a/b/same", "content of /n/same"]
    chunk = ContentHash.of(deflate(b"second"), suffix=Suffix.CHUNK)
    assert list(inside.owners(chunk)) == ["chunk of /n/m/chunked, 6 bytes at 5"]
    head = past.repository().head()
    assert head.history is not None
    assert list(inside.owners(head.history)) == ["tag database of the head", f"in the reflog as {head.history}"]
    assert set(inside.owners(head.root_hash)) == {
        "root catalog of tag tagged", "root catalog of tag trunk", f"in the reflog as {head.root_hash}", "catalog of /",
    }  # fmt: skip
    nested = next(shape for shape in inside.catalogs() if shape.mountpoint == "/n/m")
    assert list(inside.owners(nested.ref)) == ["catalog of /n/m"]
    assert list(inside.owners(ContentHash.of(b"none"))) == []


def test_duplicates(past: Past, inside: Census) -> None:
    found = inside.duplicates()
    total = sum(entry.size for entry in walk(past).values() if entry.kind is Kind.FILE)
    # the chunked file has two chunks
    assert (found.references, found.size) == (9, total)
    assert (found.objects, found.unique) == (8, total - len("shared"))
    assert found.ratio == pytest.approx(total / (total - 6))
