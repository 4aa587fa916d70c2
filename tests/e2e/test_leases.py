"""Open transactions of the deployed publishers over a restart of the server."""

from __future__ import annotations

from pathlib import Path

from conformance.machines import content
from conformance.machines.publisher import BUSY
from conformance.machines.snapshot import grafted, snapshot
from tests.e2e.world import World

FQRN = "leases.example.org"


def _plant(top: Path) -> None:
    for folder in ("left", "right", "other"):
        content.put(top / folder / "file", f"in {folder}")
    content.put(top / "left/.cvmfscatalog", b"")


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
