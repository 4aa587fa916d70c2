"""The conformance suite's scenarios with the deployed programs, each on an unprivileged server of its own."""

from __future__ import annotations

import pytest

from conformance import registry
from conformance.model import Case, Verdict
from conformance.runner import run
from tests.e2e.world import World

# test_leases.py restarts the server itself.
CASES = [case for case in registry.select(["programs"]) if case.id != "programs.restart"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id.partition(".")[2])
def test_programs(world: World, case: Case) -> None:
    repository = world.mkfs("programs.example.org")
    world.serve()
    (result,) = run(repository.target, [case], destructive=True).results
    assert result.verdict is Verdict.PASS, result.evidence
