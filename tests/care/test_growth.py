"""How a repository has grown: of its tags, from what root catalogs say, each read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvmfs_gw.care import growth
from cvmfs_gw.care.growth import Growth
from tests.care.collecting import HOUR, Past
from tests.engine.trees import NOW


@pytest.fixture
def past(tmp_path: Path, keys: str) -> Past:
    made = Past(str(tmp_path / "root"), keys)
    made.commit({"/f": b"12345"}, "one")
    made.commit({"/n": b"/", "/n/g": b"123"}, "two", nest=("/n",))
    made.commit({"/h": b"1"})
    return made


def test_points(past: Past) -> None:
    points = Growth().of(past.repository())
    # revision 4 has no tag but trunk
    assert [(p.tag, p.revision, p.entries, p.size, p.catalogs) for p in points] == [
        ("one", 2, 2, 5, 1), ("two", 3, 4, 8, 2), ("trunk", 4, 5, 9, 2),
    ]  # fmt: skip
    assert [p.moment for p in points] == [NOW + HOUR, NOW + 2 * HOUR, NOW + 3 * HOUR]


def test_roots_are_read_once(past: Past) -> None:
    known = Growth()
    before = known.of(past.repository())
    repository = past.repository()
    for root in {tag.root_hash for tag in past.tags()}:
        repository.objects.delete(root)
    assert known.of(repository) == before
    assert Growth().of(repository) == [], "what is not there is left out"


def test_of_many_some(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "MAX_POINTS", 2)
    assert [p.tag for p in Growth().of(past.repository())] == ["one", "trunk"]
