"""Our own publisher's work as the deployed client sees it, mixed with that of the deployed publishers."""

from __future__ import annotations

import os
from pathlib import Path

from conformance.machines import content
from conformance.machines.snapshot import grafted, loosened, snapshot
from tests.e2e.world import NOBODY, World

FQRN = "own.example.org"


def test_own_publisher(world: World) -> None:
    repository = world.mkfs(FQRN)
    world.serve()
    alpha = world.publisher("alpha", repository)
    source = world.folder / "source"
    source.mkdir()
    for kind in ("file", "empty", "emptydir", "dir", "symlink", "nested2"):
        content.KINDS[kind](source / kind)
    content.patchwork(source / "large", 40 << 20)
    for folder, _, files in os.walk(source):
        for name in (".", *files):
            os.chown(Path(folder, name), NOBODY, NOBODY, follow_symlinks=False)

    def publish(target: str) -> None:
        where = ("--gateway", repository.gateway, "--stratum0", repository.web)
        world.program("publish", *where, f"{FQRN}/{target}", str(source))

    publish("ours/one")
    mine = {f"ours/one/{path}".rstrip("/"): node for path, node in snapshot(source).items()}
    tree = alpha.publish(lambda top: content.put(top / "theirs/file", "theirs"))
    assert {path for path in tree if path.startswith("ours/one")} == set(mine)
    world.verify(repository, tree | mine)

    content.remove(source / "dir")
    content.put(source / "file", "changed by us", moment=3)
    os.chown(source / "file", NOBODY, NOBODY)
    publish("ours/one")
    mine = {f"ours/one/{path}".rstrip("/"): node for path, node in snapshot(source).items()}
    tree = grafted(tree, "ours/one", mine)
    tree["ours/one"] = loosened(tree["ours/one"])
    world.verify(repository, tree)
    world.verify(repository, alpha.publish(lambda top: content.remove(top / "ours/one/nested2"), "ours"))
