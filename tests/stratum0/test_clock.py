from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cvmfs_gw.stratum0.clock import SteadyClock, running
from tests.stratum0.support import FakeTime


def clock(path: Path, time: FakeTime, boot: str = "one") -> SteadyClock:
    return SteadyClock(str(path / "clock.json"), wall=time.wall, running=time.running, boot=boot)


@pytest.mark.parametrize("seconds", [-86_400, 86_400])
def test_a_jump_changes_nothing(tmp_path: Path, seconds: float) -> None:
    time = FakeTime()
    steady = clock(tmp_path, time)
    before = steady()
    assert before == time.wall_s
    time.jump(seconds)
    assert steady() == before
    assert steady.step == seconds
    time.advance(10)
    assert steady() == before + 10
    # nor does a restart
    again = clock(tmp_path, time)
    time.advance(5)
    assert again() == before + 15


@pytest.mark.parametrize(("seconds", "counts"), [(3600, 3600), (-3600, 0)])
def test_after_a_reboot_the_wall_counts_but_never_goes_back(tmp_path: Path, seconds: float, counts: float) -> None:
    time = FakeTime()
    steady = clock(tmp_path, time)
    time.advance(100)
    steady.save()
    before = steady()
    time.running_s = 3.0
    time.jump(seconds)
    assert clock(tmp_path, time, "two")() == before + counts


def test_a_file_that_is_broken_is_none(tmp_path: Path) -> None:
    (tmp_path / "clock.json").write_text("{")
    time = FakeTime()
    assert clock(tmp_path, time)() == time.wall_s
    assert clock(tmp_path, time)() == time.wall_s


def test_the_machine_runs() -> None:
    assert 0 < running() <= running()


@pytest.mark.parametrize(("number", "starts"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False)])
def test_a_disk_that_is_full_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, starts: bool
) -> None:
    """The server starts, as reading needs no room; a folder that is not ours is another matter."""

    def refused(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("cvmfs_gw.stratum0.clock.replace_file", refused)
    time = FakeTime()
    if starts:
        assert clock(tmp_path, time)() == time.wall_s
    else:
        with pytest.raises(OSError, match="Permission"):
            clock(tmp_path, time)
