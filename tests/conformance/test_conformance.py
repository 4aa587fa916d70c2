"""This gateway passes the conformance suite, each part on a gateway of its own.

The deployed programs are in ``tests/e2e/test_programs.py``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from conformance import registry
from conformance.model import Verdict
from conformance.report.files import read
from conformance.runner import run
from conformance.servers import may_be_alone, own
from conformance.session import SHIPPED

# About the same time each, so that they end together where tests run in parallel.
PARTS: Final = (
    ("leases", "authorisation", "tags", "admin", "errors", "replay"),
    ("payloads", "limits", "objectstore", "timing"),
    ("commits", "concurrency"),
    ("notifications", "faults"),
    ("restart",),
)
DEVIATING: Final = {"leases.reply.members", "leases.list.fields", "commits.reply.members"}


def test_the_parts_are_everything() -> None:
    assert sorted([*(group for part in PARTS for group in part), "programs"]) == sorted(registry.GROUPS)


@pytest.mark.parametrize("groups", PARTS, ids="-".join)
def test_conformance(groups: tuple[str, ...]) -> None:
    cases = registry.select(groups)
    with own(SHIPPED) as target:
        report = run(target, cases, destructive=True)
    assert not report.cut
    wrong = [f"{result.id}: {result.evidence}" for result in report.results if result.verdict is Verdict.FAIL]
    assert not wrong, "\n".join(wrong)
    # Disks are filled below.
    left_out = [result for result in report.results if not result.id.startswith("faults.disk.")]
    skipped = [f"{r.id}: {r.evidence}" for r in left_out if r.verdict is Verdict.NOT_APPLICABLE]
    assert not skipped, "\n".join(skipped)
    assert {r.id for r in report.results if r.verdict is Verdict.DEVIATES} <= DEVIATING


def test_full_disks(tmp_path: Path) -> None:
    """The suite mounts a small disk for its gateway, in a namespace of its own, and fills it."""
    if not may_be_alone():
        pytest.skip("needs root and a mount namespace, for a small disk")
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "conformance", "local", "faults.disk", "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = read(report)
    assert {result.verdict for result in found.results} == {Verdict.PASS}, done.stdout
