"""Random histories; ``--seed`` and ``--publishes`` say which and how long."""

from __future__ import annotations

from conformance.machines.history import RandomHistory
from conformance.machines.stage import machines
from conformance.probe import Probe
from conformance.registry import PROGRAMS, case


@case("programs.history.plain", "a random history of two publishers in turns: plain entries, present mounts", PROGRAMS)
def history_plain(probe: Probe) -> None:
    with machines(probe) as site:
        RandomHistory(site, probe.target.seed, plain=True).run(probe.target.publishes)


@case(
    "programs.history.any",
    "a random history of two publishers: old mounts, both at once, archives, leases that ended, every kind of entry",
    PROGRAMS,
    destructive=True,
)
def history(probe: Probe) -> None:
    with machines(probe) as site:
        RandomHistory(site, probe.target.seed).run(probe.target.publishes)
