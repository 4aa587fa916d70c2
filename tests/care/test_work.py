"""Marks of work under way: known to others while it lasts, and no longer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cvmfs_gw.care.work import WorkMark, oldest_work
from cvmfs_gw.engine.errors import StorageError
from cvmfs_gw.paths import SystemPaths

FQRN = "test.example.org"


@pytest.fixture
def paths(tmp_path: Path) -> SystemPaths:
    return SystemPaths(str(tmp_path))


def folder(paths: SystemPaths) -> Path:
    return Path(paths.repository_spool(FQRN), "work")


def test_the_oldest_counts(paths: SystemPaths) -> None:
    assert oldest_work(paths, FQRN) is None
    one, two = WorkMark(paths, FQRN), WorkMark(paths, FQRN)
    one.set(None)
    one.set(1_700_000_000.5)
    two.set(1_700_000_007.25)
    assert oldest_work(paths, FQRN) == 1_700_000_000.5
    assert oldest_work(paths, "other.example.org") is None
    one.set(1_700_000_009.0)
    assert oldest_work(paths, FQRN) == 1_700_000_007.25
    two.set(None)
    assert oldest_work(paths, FQRN) == 1_700_000_009.0
    one.set(None)
    assert (oldest_work(paths, FQRN), os.listdir(folder(paths))) == (None, [])


def test_work_ends_with_its_process(paths: SystemPaths) -> None:
    child = os.fork()
    if not child:
        WorkMark(paths, FQRN).set(1.0)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert len(os.listdir(folder(paths))) == 1
    assert oldest_work(paths, FQRN) is None
    assert os.listdir(folder(paths)) == []


def test_what_cannot_be_read(paths: SystemPaths) -> None:
    mark = WorkMark(paths, FQRN)
    mark.set(1.0)
    (path,) = folder(paths).iterdir()
    os.truncate(path, 0)
    with pytest.raises(StorageError, match="what is under way"):
        oldest_work(paths, FQRN)
    mark.set(None)
