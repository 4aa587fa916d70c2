"""What does not fit into memory comes back as it was, and nobody sees a difference."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfs_gw.ingest import plan as plan_module
from cvmfs_gw.ingest.contents import Contents
from cvmfs_gw.ingest.errors import IngestError
from cvmfs_gw.ingest.gather import GatherOptions, gather
from cvmfs_gw.ingest.items import Item, Whiteout
from cvmfs_gw.ingest.nodes import Node
from cvmfs_gw.ingest.overlay import Replace
from cvmfs_gw.ingest.spill import LongList, SpillFile, spill
from cvmfs_objstore.memory import MemoryStorage
from tests.engine.trees import NOW
from tests.ingest.support import OPTIONS
from tests.ingest.test_plan import World


class Members:
    """A source of what it is given."""

    trust_times = False

    def __init__(self, *members: Item | Whiteout) -> None:
        self._members = members

    def items(self) -> Iterator[Item | Whiteout]:
        yield from self._members


def file(path: str, content: bytes = b"x", xattrs: bytes | None = None) -> Item:
    return Item(path, stat.S_IFREG | 0o640, 1, 2, NOW * 10**9 + 3, len(content), content, xattrs=xattrs)


def _seen(path: str, node: Node, groups: dict[object, int]) -> Iterator[tuple[object, ...]]:
    stored = node.stored
    content = stored and (stored.size, stored.flags, stored.hash, stored.chunks)
    group = node.group and groups.setdefault(node.group, len(groups))
    yield path, node.item, content, node.opaque, node.is_default, node.is_directory, group
    if node.is_directory:
        for name, child in sorted(node.look().items()):
            yield from _seen(f"{path}/{name}", child, groups)


def _gathered(members: list[Item | Whiteout], at_hand: int) -> object:
    options = GatherOptions(at_hand=at_hand)
    with Contents(MemoryStorage(), OPTIONS, threads=1) as contents:
        try:
            found = gather(Members(*members), contents, options)
        except IngestError as error:
            return type(error), str(error)
        return [*_seen("", found.root, {})], found.entries, found.files, found.bytes


NAMES = st.sampled_from(["/a", "/b", "/a/1", "/a/2", "/b/1", "/a/d", "/a/d/1", "/a/d/2", "/c/1", "/c/d/e"])
ITEMS = st.one_of(
    st.builds(file, NAMES, st.sampled_from([b"", b"x", b"y" * 3000]), st.sampled_from([None, b"\1\0"])),
    NAMES.map(lambda path: Item(path, stat.S_IFDIR | 0o755, 1, 2, 3)),
    NAMES.map(lambda path: Item(path, stat.S_IFLNK | 0o777, 1, 2, 3, symlink="t\udcff")),
    NAMES.map(lambda path: Item(path, stat.S_IFIFO | 0o600, 1, 2, 3)),
    st.tuples(NAMES, NAMES).map(lambda two: Item(two[0], stat.S_IFREG | 0o600, 1, 2, 3, link=two[1])),
    st.builds(Whiteout, NAMES, st.booleans()),
)


@settings(max_examples=300, deadline=None)
@given(members=st.lists(ITEMS, max_size=14), at_hand=st.integers(0, 3))
def test_any_source(members: list[Item | Whiteout], at_hand: int) -> None:
    assert _gathered(members, at_hand) == _gathered(members, 1000)


def test_directories_that_are_done_are_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those that nothing was put into for longest; and nothing is left behind, nor anything seen of it."""
    written: list[str] = []

    def noting(target: SpillFile, path: str, nodes: dict[str, Node]) -> object:
        written.append(path)
        assert os.listdir(tmp_path) == []
        return spill(target, path, nodes)

    monkeypatch.setattr("cvmfs_gw.ingest.directories.spill", noting)
    members = [file(f"/{at // 10:02}/{at % 10}") for at in range(100)]
    with Contents(MemoryStorage(), OPTIONS, threads=1) as contents:
        options = GatherOptions(at_hand=40, spill_folder=str(tmp_path))
        found = gather(Members(*members, file("/00/more"), file("/03/more")), contents, options)
    assert written[:7] == [f"/{at:02}" for at in range(7)]
    top = found.root.look()
    assert [len(top[f"{at:02}"].look()) for at in range(10)] == [11, 10, 10, 11, *[10] * 6]
    assert sum(len(node.at_hand or ()) for node in top.values()) <= 40


def test_one_large_directory() -> None:
    """It stays at hand as long as it grows, and that costs no more than other directories."""
    with Contents(MemoryStorage(), OPTIONS, threads=1) as contents:
        found = gather(Members(*(file(f"/d/{at}") for at in range(2000))), contents, GatherOptions(at_hand=10))
    assert len(found.root.look()["d"].look()) == 2000


def test_long_list(tmp_path: Path) -> None:
    numbers: LongList[int] = LongList(10, str(tmp_path))
    for at in range(3000):
        numbers.append(at)
        assert len(numbers) == at + 1
    assert [*numbers] == [*numbers] == [*range(3000)]
    assert 2999 in numbers
    assert 3000 not in numbers
    assert os.listdir(tmp_path) == []


def test_many_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan is the same, and can be applied."""
    world = World({})
    members: dict[str, bytes | str | None] = {f"/{at % 7}/{at}": b"%d" % at for at in range(50)}
    expected = world.plan(Replace(world.gathered(members), "/t"))
    monkeypatch.setattr(plan_module, "AT_HAND", 5)
    found = world.gathered(members)
    assert world.plan(Replace(found, "/t")) == expected
    assert len(expected) == 58
    world.apply(Replace(found, "/t"))
    assert world.plan(Replace(found, "/t")) == []
