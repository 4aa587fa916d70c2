"""What leases mean to the deployed publishers: busy, given up, side by side, over a restart of the server."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.e2e import content
from tests.e2e.machines import Finished
from tests.e2e.snapshot import grafted, snapshot
from tests.e2e.world import World

FQRN = "leases.example.org"
BUSY = 16
"""``EBUSY``: how ``cvmfs_server transaction`` ends where somebody else holds the lease."""


def _plant(top: Path) -> None:
    for folder in ("left", "right", "other"):
        content.put(top / folder / "file", f"in {folder}")
    content.put(top / "left/.cvmfscatalog", b"")


def test_leases(world: World) -> None:
    repository = world.mkfs(FQRN)
    world.serve()
    alpha = world.publisher("alpha", repository)
    beta = world.publisher("beta", repository)
    tree = alpha.publish(_plant)
    world.verify(repository, tree)

    # An aborted transaction leaves no trace, and its lease is free again.
    alpha.begin("left")
    content.put(alpha.top / "left/never", "to be seen")
    assert beta.begin("left/deeper", expect=None).code == BUSY
    assert beta.begin(expect=None).code == BUSY
    alpha.abort()
    world.verify(repository, tree)
    assert repository.revision == 2

    # Both at once, on separate paths, with a third party refused meanwhile.
    alpha.begin("left")
    beta.begin("right")
    content.put(alpha.top / "left/new", "by alpha", moment=1)
    content.put(beta.top / "right/new", "by beta", moment=2)
    content.put(beta.top / "right/inner/.cvmfscatalog", b"")
    left, right = snapshot(alpha.top), snapshot(beta.top)
    results: dict[str, Finished] = {}
    threads = [
        threading.Thread(target=lambda who: results.__setitem__(who.machine.name, who.commit(expect=None)), args=(who,))
        for who in (alpha, beta)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: result.code for name, result in results.items()} == {"alpha": 0, "beta": 0}, results
    tree = grafted(grafted(tree, "left", left), "right", right)
    world.verify(repository, tree)
    assert repository.revision == 4

    # In turn in the same place: each works on what it mounted, and nobody's change is lost.
    for turn in range(3):
        for who in (alpha, beta):
            name = f"{who.machine.name}-{turn}"
            who.begin("left")
            content.put(who.top / "left" / name, name, moment=turn)
            content.stamp(who.top / "left", turn)
            mine = {path: node for path, node in snapshot(who.top).items() if path in ("left", f"left/{name}")}
            who.commit()
            tree = tree | mine
    world.verify(repository, tree)

    # What a publisher changes outside of its lease is passed over.
    def trespass(top: Path) -> None:
        content.put(top / "other/file", "not leased", moment=3)
        content.put(top / "right/rightful", "leased", moment=3)

    tree = grafted(tree, "right", alpha.publish(trespass, "right"))
    world.verify(repository, tree)

    # A lease on a path that does not exist yet.
    new = alpha.publish(lambda top: content.put(top / "brand-new/file", "x"), "brand-new")
    world.verify(repository, grafted(tree, "brand-new", new))


def test_the_server_is_restarted(world: World) -> None:
    """An open transaction survives a restart of the server, and a server that was killed."""
    repository = world.mkfs(FQRN)
    world.serve()
    alpha = world.publisher("alpha", repository)
    beta = world.publisher("beta", repository)
    alpha.publish(_plant)
    alpha.begin()
    content.put(alpha.top / "right/late", "after a restart")
    tree = snapshot(alpha.top)
    world.stop()
    world.serve()
    assert beta.begin("left", expect=None).code == BUSY
    alpha.commit()
    world.verify(repository, tree)
    beta.begin("other")
    content.put(beta.top / "other/later", "after a kill")
    tree = grafted(tree, "other", snapshot(beta.top))
    world.kill()
    world.serve()
    beta.commit()
    world.verify(repository, tree)
