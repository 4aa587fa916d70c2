"""The deployed programs at work: publishers on machines of their own, mounted clients, a replica, random histories.

Machines are made of namespaces; where that cannot be, or the programs are not installed, none of this is applicable.
Each case has a directory of its own, and works at and below it.
"""

from __future__ import annotations

from pathlib import Path

from conformance.machines import content
from conformance.machines.site import same
from conformance.machines.snapshot import snapshot
from conformance.machines.stage import machines
from conformance.outcomes import equal, expect
from conformance.probe import Probe
from conformance.registry import PROGRAMS, case


def _few(number: int) -> content.Change:
    def plant(top: Path) -> None:
        content.put(top / "file", f"number {number}", moment=number)
        content.put(top / f"only-{number}", f"only {number}", moment=number)
        content.put(top / "nested/.cvmfscatalog", b"")
        content.put(top / "nested/file", f"nested {number}", moment=number)

    return plant


@case("programs.mounted", "a client that stays mounted goes from revision to revision", PROGRAMS)
def mounted(probe: Probe) -> None:
    with machines(probe) as site:
        alpha = site.publisher("alpha")
        alpha.publish(_few(0))
        with site.client.mount(probe.target) as top:
            for number in range(1, 4):
                tree = alpha.publish(_few(number))
                site.client.remount(probe.fqrn)
                new = top / site.base / f"only-{number}"
                probe.until("the mounted client goes to the new revision", new.exists)
                same(tree, snapshot(top / site.base), "the mounted client sees", nanoseconds=False)


@case("programs.replica", "a Stratum 1 takes a snapshot, then the next one, and clients of it see the same", PROGRAMS)
def replica(probe: Probe) -> None:
    with machines(probe) as site:
        alpha = site.publisher("alpha")
        alpha.publish(_few(0))
        copy = site.replica()
        for change in (content.ordinary, _few(1), content.ordinary_again):
            tree = alpha.publish(change)
            copy.snapshot()
            site.client.check(copy.served, copy.checksum())
            same(tree, site.client.mounted(copy.served, site.base), "a client of the replica sees", nanoseconds=False)


@case(
    "programs.tag",
    "a tag given with cvmfs_server publish -a is there, and a second one of that name is refused",
    PROGRAMS,
)
def tag(probe: Probe) -> None:
    with machines(probe) as site:
        alpha = site.publisher("alpha")
        name = probe.name()
        tree = alpha.publish(_few(0), "", "-a", name, "-m", "described")
        found = probe.repository.tags().get(name, {})
        equal(found.get("description"), "described", "description")
        equal(found.get("revision"), site.revision, "revision of the tag")
        before = site.revision
        alpha.begin()
        content.put(alpha.top / "never", "to be seen")
        expect(alpha.commit("-a", name, expect=None).code != 0, "the second publish does not fail")
        equal(site.revision, before, "revision")
        site.verify(tree)
