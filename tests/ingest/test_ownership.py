"""Maps of owners."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvmfs_gw.ingest.errors import BadConfiguration
from cvmfs_gw.ingest.ownership import SAME, IdMap

TEXT = """
# everything of the build user becomes cvmfs
1000  500
1001\t501   # and its group
0 0

* 65534
"""


def test_map() -> None:
    found = IdMap.parse(TEXT.splitlines())
    assert [found(number) for number in (1000, 1001, 0, 7)] == [500, 501, 0, 65534]


def test_without_a_star_the_rest_stays() -> None:
    found = IdMap.parse(["1 2"])
    assert [found(number) for number in (1, 2, 3)] == [2, 2, 3]
    assert [SAME(number) for number in (0, 5)] == [0, 5]
    assert [IdMap.to(9)(number) for number in (0, 5)] == [9, 9]


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "uid.map"
    path.write_text("5 6\n")
    assert IdMap.load(str(path))(5) == 6
    path.write_text("5 6\nfive six\n")
    with pytest.raises(BadConfiguration, match=r"uid\.map, line 2"):
        IdMap.load(str(path))
    path.write_bytes(b"\xff")
    for broken in (path, tmp_path / "missing"):
        with pytest.raises(BadConfiguration, match="cannot read"):
            IdMap.load(str(broken))


@pytest.mark.parametrize("line", ["1", "1 2 3", "a 1", "1 *", "-1 2", "1 -2", "1 4294967296", "٣ 1"])
def test_lines_that_make_no_sense(line: str) -> None:
    with pytest.raises(BadConfiguration):
        IdMap.parse([line])
