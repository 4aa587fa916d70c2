"""Every fault of the catalogue is planted, found, named and placed; and the reference's check is asked as well."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cvmfs_gw.care.check import CheckOptions, CheckReport, check_repository
from cvmfs_gw.care.check_objects import Progress
from cvmfs_gw.care.faults import FaultKind, Repair, Severity
from cvmfs_gw.care.repair import repair
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.engine.repository import Repository
from cvmfs_objstore.hashes import Algorithm
from tests.care.damage import DAMAGES, Damage
from tests.care.damage_table import PAGE, page
from tests.care.harm import edit_catalogs, edit_history, edit_reflog, resign, whitelist
from tests.care.sample import NESTED, build
from tests.engine.repositories import FQRN, new_repository
from tests.engine.trees import NOW

PROGRAM = shutil.which("cvmfs_swissknife")
INTEGRITY = CheckOptions(integrity=True)


def check(repository: Repository, options: CheckOptions = INTEGRITY) -> CheckReport:
    # opened anew, so that nothing is remembered of what was there before
    return check_repository(Repository(FQRN, repository.paths, {}, durable=False), options, NOW)


def reference(repository: Repository, scratch: Path) -> bool | None:
    """Whether ``cvmfs_swissknife check`` has nothing to complain of; None if it is not there."""
    if PROGRAM is None:
        return None
    storage = repository.paths.repository_storage(FQRN)
    checksum = os.path.join(repository.paths.repository_spool(FQRN), "reflog.chksum")
    scratch.mkdir(exist_ok=True)
    command = [PROGRAM, "check", "-c", "-r", storage, "-t", str(scratch), "-R", checksum]
    return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0


@pytest.mark.parametrize("algorithm", Algorithm)
def test_good_repository(tmp_path: Path, keys: str, algorithm: Algorithm) -> None:
    repository = build(str(tmp_path / "root"), keys, algorithm)
    report = check(repository, CheckOptions(integrity=True, every_tag=True))
    assert [str(fault) for fault in report.faults] == []
    assert report.ok
    # three of the head's and the empty one of revision 1, which trunk-previous names
    assert (report.revision, report.catalogs, report.entries) == (2, 4, 18 + 1)
    assert report.objects == report.stored - report.unreferenced
    assert report.bytes_read > 0
    assert reference(repository, tmp_path / "tmp") in (True, None)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_damage_is_found(tmp_path: Path, keys: str, damage: Damage) -> None:
    repository = build(str(tmp_path / "root"), keys)
    assert not check(repository, CheckOptions(integrity=True)).faults
    damage.do(repository)
    report = check(repository, CheckOptions(integrity=damage.integrity))
    found = [fault for fault in report.faults if fault.kind is damage.kind and damage.place in fault.place]
    assert found, [str(fault) for fault in report.faults]
    assert all(fault.kind.remedy for fault in found)
    assert report.ok == (not report.faults.errors)
    found_by_reference = reference(repository, tmp_path / "tmp")
    assert found_by_reference in (not damage.reference, None), damage.name


@pytest.mark.parametrize(
    "nothing",
    [
        lambda r: edit_catalogs(r, {"": lambda c: None, NESTED: lambda c: None}),
        edit_history(lambda h: None),
        edit_reflog(lambda reflog: None),
        resign,
        whitelist,
    ],
    ids=["catalogs", "history", "reflog", "manifest", "whitelist"],
)
def test_tools_do_no_harm(tmp_path: Path, keys: str, nothing: Callable[[Repository], object]) -> None:
    """It is the damage that is found, and not the way in which it was done."""
    repository = build(str(tmp_path / "root"), keys)
    nothing(repository)
    assert [str(fault) for fault in check(repository, CheckOptions(integrity=True)).faults] == []
    assert reference(repository, tmp_path / "tmp") in (True, None)


REPAIRED = [damage for damage in DAMAGES if damage.kind.repair is not Repair.NONE]


@pytest.mark.parametrize("damage", REPAIRED, ids=lambda damage: damage.name)
def test_repair(tmp_path: Path, keys: str, damage: Damage) -> None:
    repository = build(str(tmp_path / "root"), keys)
    damage.do(repository)
    assert repair(repository, check(repository).faults, NOW + 5)
    assert [str(fault) for fault in check(repository).faults] == []
    assert reference(repository, tmp_path / "tmp") in (True, None)
    assert repair(repository, check(repository).faults, NOW + 6) == []


def test_every_kind_is_planted() -> None:
    planted = {damage.kind for damage in DAMAGES}
    assert {kind for kind in FaultKind if kind not in planted} == set()


def test_table_is_true() -> None:
    """What the page says is what the tests plant and find: ``python -m tests.care.damage_table`` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_catalogue() -> None:
    assert len(DAMAGES) >= 30
    assert len({damage.name for damage in DAMAGES}) == len(DAMAGES)
    assert len(FaultKind) == len(FaultKind.__members__), "two kinds with the same words"
    for kind in FaultKind:
        assert kind.code == kind.code.lower()
        assert kind.severity in Severity


def test_tag(tmp_path: Path, keys: str) -> None:
    repository = build(str(tmp_path / "root"), keys)
    DAMAGES[[damage.name for damage in DAMAGES].index("counter-own")].do(repository)
    assert not check(repository).ok
    assert check(repository, CheckOptions(tag="first")).ok
    assert not check(repository, CheckOptions(every_tag=True)).ok
    with pytest.raises(EngineError, match="no tag 'none'"):
        check(repository, CheckOptions(tag="none"))


def test_subtree(tmp_path: Path, keys: str) -> None:
    """What is at and below a nested catalog is looked at, and nothing else."""
    repository = build(str(tmp_path / "root"), keys)
    whole, subtree = check(repository), CheckOptions(integrity=True, subtree="/a/n/m")
    report = check(repository, subtree)
    assert (report.catalogs, report.entries) == (1, 3)
    assert check(repository, replace(subtree, subtree="/a/n")).catalogs == 2
    assert 0 < report.bytes_read < whole.bytes_read
    for name, ok in (("object-gone", True), ("object-corrupt", False)):
        DAMAGES[[damage.name for damage in DAMAGES].index(name)].do(repository)
        assert check(repository, subtree).ok is ok
    for nowhere in ("/a", "/a/n/m/bottom", "/none"):
        with pytest.raises(EngineError, match="no nested catalog"):
            check(repository, replace(subtree, subtree=nowhere))


def test_empty_repository(tmp_path: Path, keys: str) -> None:
    repository = new_repository(str(tmp_path), keys)
    assert [str(fault) for fault in check(repository).faults] == []


def test_progress(tmp_path: Path, keys: str) -> None:
    class Told(Progress):
        folders = objects = ended = 0

        def begin(self, total: int) -> None:
            self.folders = total

        def folder_done(self, objects: int, size: int) -> None:
            self.folders -= 1
            self.objects += objects

        def end(self) -> None:
            self.ended += 1

    repository = build(str(tmp_path), keys)
    told = Told()
    report = check_repository(repository, INTEGRITY, NOW, told)
    assert (told.folders, told.objects, told.ended) == (0, report.stored, 1)
