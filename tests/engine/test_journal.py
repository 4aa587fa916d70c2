"""The journal of a publish: what was recorded is read again, whatever became of the process."""

from __future__ import annotations

from pathlib import Path

from cvmfs_gw.engine.journal import Journal
from cvmfs_objstore.hashes import ContentHash, Suffix

NAMES = [ContentHash.of(b"%d" % number, suffix=Suffix.CATALOG) for number in range(3)]


def test_names_until_it_is_cleared(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"))
    assert journal.names() == []
    for name in NAMES:
        journal.note(name)
    assert Journal(str(tmp_path / "journal")).names() == NAMES
    journal.clear()
    journal.clear()
    assert journal.names() == []


def test_what_is_cut_off_or_damaged_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    first, second, third = (f"{name}\n".encode() for name in NAMES)
    path.write_bytes(first + b"no name\n" + b"\xff\xfe\n" + second + third[:20])
    assert Journal(str(path)).names() == NAMES[:2]
    path.write_bytes(first + second[:-1])
    assert Journal(str(path)).names() == NAMES[:1]
