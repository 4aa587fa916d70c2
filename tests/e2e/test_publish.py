"""What the conformance suite leaves out, as it concerns the whole repository."""

from __future__ import annotations

from pathlib import Path

from conformance.machines import content
from conformance.machines.snapshot import loosened
from tests.e2e.world import World


def test_catalogs_by_rule(world: World) -> None:
    """``.cvmfsdirtab``, which lies in the top directory, makes nested catalogs."""
    repository = world.mkfs("publish.example.org")
    world.serve()
    publisher = world.publisher("alpha", repository)

    def by_rule(top: Path) -> None:
        content.put(top / ".cvmfsdirtab", "/top/*\n")
        content.put(top / "top/.cvmfscatalog", b"")
        for folder in ("a", "b/c"):
            content.put(top / "top" / folder / "file", folder)

    tree = publisher.publish(by_rule)
    for folder in ("top/a", "top/b"):
        tree[folder] = loosened(tree[folder])
        tree[f"{folder}/.cvmfscatalog"] = loosened(tree["top/.cvmfscatalog"])
    world.verify(repository, tree)
    assert world.nested_catalogs(repository) == {"/top", "/top/a", "/top/b"}
