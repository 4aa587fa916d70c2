"""Files of a copy, where the file system has files without names, and where it has none."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cvmfs_gw.client import localtree
from cvmfs_gw.client.localtree import PREFIX, NewFile
from cvmfs_objstore.formats.entry import FLAG_FILE, Entry

ENTRY = Entry(1, None, 6, 0o100640, 1_700_000_000, 5, FLAG_FILE, "file", "", 0, 0, None)


@pytest.fixture(params=["unnamed", "named"])
def local(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "named":
        monkeypatch.setattr(localtree, "_UNNAMED", False)
    return str(tmp_path / "file")


@pytest.mark.parametrize("before", [False, True])
def test_complete(local: str, before: bool) -> None:
    if before:
        Path(local).write_bytes(b"before")
    new = NewFile(local, 6)
    new.at(3).write(b"def")
    new.at(0).write(b"abc")
    assert os.path.exists(local) == before
    assert new.finish(ENTRY, owners=False) == []
    status = os.stat(local)
    assert Path(local).read_bytes() == b"abcdef"
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o640, 1_700_000_000_000_000_005)
    assert status.st_nlink == 1
    assert os.listdir(os.path.dirname(local)) == ["file"]


def test_discarded(local: str) -> None:
    new = NewFile(local, 6)
    new.at(0).write(b"abc")
    new.discard()
    assert os.listdir(os.path.dirname(local)) == []


def test_killed(tmp_path: Path) -> None:
    """Nothing of it has a name, where that is possible."""
    try:
        os.close(os.open(tmp_path, os.O_WRONLY | os.O_TMPFILE))
        possible = True
    except OSError:
        possible = False
    new = NewFile(str(tmp_path / "file"), 6)
    names = os.listdir(tmp_path)
    assert names == [] if possible else names[0].startswith(PREFIX)
    new.discard()
