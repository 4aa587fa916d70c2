"""What leases mean to the deployed publishers: busy, given up, side by side, over a restart of the gateway."""

from __future__ import annotations

from pathlib import Path

from conformance.machines import content
from conformance.machines.publisher import BUSY
from conformance.machines.snapshot import grafted, snapshot
from conformance.machines.stage import machines
from conformance.outcomes import equal, expect
from conformance.probe import Probe
from conformance.registry import PROGRAMS, case, issue


def _plant(top: Path) -> None:
    for folder in ("left", "right", "other"):
        content.put(top / folder / "file", f"in {folder}")
    content.put(top / "left/.cvmfscatalog", b"")


@case("programs.abort", "an aborted transaction leaves no trace, and its path is free again", PROGRAMS)
def abort(probe: Probe) -> None:
    with machines(probe) as site:
        alpha = site.publisher("alpha")
        tree = alpha.publish(_plant)
        before = site.revision
        alpha.begin("left")
        content.put(alpha.top / "left/never", "to be seen")
        alpha.abort()
        site.verify(tree)
        equal(site.revision, before, "revision")
        probe.acquire(f"/{site.base}/left")


@case("programs.busy", "a transaction on a leased path ends with exit code 16, above and below it, too", PROGRAMS)
def busy(probe: Probe) -> None:
    with machines(probe) as site:
        alpha, beta = site.publisher("alpha"), site.publisher("beta")
        alpha.publish(_plant)
        alpha.begin("left")
        for path in ("left", "left/deeper", ""):
            refusal = beta.begin(path, expect=None)
            equal(refusal.code, BUSY, f"exit code of a transaction on {path!r} ({refusal})")
        alpha.abort()
        beta.begin("left")
        beta.abort()


@case("programs.parallel", "two publishers commit on separate paths at the same moment: both are published", PROGRAMS)
def parallel(probe: Probe) -> None:
    with machines(probe) as site:
        alpha, beta = site.publisher("alpha"), site.publisher("beta")
        tree = alpha.publish(_plant)
        before = site.revision
        alpha.begin("left")
        beta.begin("right")
        content.put(alpha.top / "left/new", "by alpha", moment=1)
        content.put(beta.top / "right/new", "by beta", moment=2)
        content.put(beta.top / "right/inner/.cvmfscatalog", b"")
        left, right = snapshot(alpha.top), snapshot(beta.top)
        probe.together(alpha.commit, beta.commit)
        site.verify(grafted(grafted(tree, "left", left), "right", right))
        equal(site.revision, before + 2, "revision")


@case(
    "programs.same-base",
    "two who began on the same revision commit one after the other in nested catalogs, and no change is lost",
    PROGRAMS,
)
def same_base(probe: Probe) -> None:
    def plant(top: Path) -> None:
        for folder in ("outer/left", "outer/right"):
            content.put(top / folder / "file", f"in {folder}")
        content.put(top / "outer/.cvmfscatalog", b"")

    with machines(probe) as site:
        alpha, beta = site.publisher("alpha"), site.publisher("beta")
        tree = alpha.publish(plant)
        alpha.begin("outer/left")
        beta.begin("outer/right")
        content.put(alpha.top / "outer/left/new", "by alpha", moment=1)
        content.put(beta.top / "outer/right/new", "by beta", moment=2)
        left, right = snapshot(alpha.top), snapshot(beta.top)
        alpha.commit()
        beta.commit()
        site.verify(grafted(grafted(tree, "outer/left", left), "outer/right", right))


@case("programs.turns", "two publishers in turn in one directory, each on its own mount, lose nothing", PROGRAMS)
def turns(probe: Probe) -> None:
    with machines(probe) as site:
        alpha, beta = site.publisher("alpha"), site.publisher("beta")
        tree = alpha.publish(_plant)
        for turn in range(3):
            for who in (alpha, beta):
                name = f"{who.name}-{turn}"
                who.begin("left")
                content.put(who.top / "left" / name, name, moment=turn)
                content.stamp(who.top / "left", turn)
                tree |= {path: node for path, node in snapshot(who.top).items() if path in ("left", f"left/{name}")}
                who.commit()
        site.verify(tree)


@case("programs.trespass", "what a publisher changes outside of its lease is not published", PROGRAMS)
def trespass(probe: Probe) -> None:
    def change(top: Path) -> None:
        content.put(top / "other/file", "not leased", moment=3)
        content.put(top / "right/rightful", "leased", moment=3)

    with machines(probe) as site:
        alpha = site.publisher("alpha")
        tree = alpha.publish(_plant)
        site.verify(grafted(tree, "right", alpha.publish(change, "right")))


@case("programs.new-path", "a transaction on a path that does not exist yet", PROGRAMS)
def new_path(probe: Probe) -> None:
    with machines(probe) as site:
        alpha = site.publisher("alpha")
        tree = alpha.publish(_plant)
        made = alpha.publish(lambda top: content.put(top / "brand-new/file", "x"), "brand-new")
        site.verify(grafted(tree, "brand-new", made))


@case("programs.restart", "a transaction that is open while the gateway is killed and started again", issue(3128))
def restart(probe: Probe) -> None:
    probe.need(probe.target.restart_command, "--restart-command")
    with machines(probe) as site:
        alpha, beta = site.publisher("alpha"), site.publisher("beta")
        alpha.publish(_plant)
        alpha.begin()
        content.put(alpha.top / "right/late", "after a restart")
        tree = snapshot(alpha.top)
        probe.restart()
        expect(beta.begin("left", expect=None).code == BUSY, "the path is not busy after the restart")
        alpha.commit()
        site.verify(tree)
