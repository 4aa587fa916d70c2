"""Our own publisher through the reference's gateway, as a user without any rights, checked by the deployed programs.

A program for :mod:`tests.e2e.test_own_sources`, which gives it a network of its own: ``FILES SIZE``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.bench.publish import served
from tests.bench.servers import FQRN, reference
from tests.e2e import content
from tests.e2e.snapshot import Tree, snapshot
from tests.e2e.world import NOBODY, Repository, World


def main(files: int, size: int) -> None:
    """Publish twice, change, remove; after each a mounted client sees what is in the folder."""
    with World() as world, reference(memory=False, own_network=False) as server, served(server) as web:
        server.root.chmod(0o755)
        world.root = server.root
        repository = Repository(FQRN, web, f"http://127.0.0.1:{server.port}/api/v1", server.root)
        keys = []
        for kind in ("gw", "pub"):
            path = world.folder / f"key.{kind}"
            path.write_bytes(repository.key(kind))
            path.chmod(0o644)
            keys += ["--key" if kind == "gw" else "--pub", str(path)]
        source = world.folder / "source"

        def publish(*options: str) -> str:
            where = ("--gateway", repository.gateway, "--stratum0", web, "--owner", f"{NOBODY}:{NOBODY}", *keys)
            return world.program("publish", *where, *options, f"{FQRN}/deep/tree", str(source), timeout=1200).output

        for number in range(files):
            content.put(source / f"d{number // 100}/f{number}", f"file {number}", moment=number)
        content.patchwork(source / "large", size)
        content.put(source / "nested/.cvmfscatalog", "")
        content.put(source / "nested/file", "in a nested catalog")
        print(publish())
        _verify(world, repository, source)
        assert "nothing has changed" in publish()
        content.put(source / "d0/f0", "changed", moment=files + 1)
        content.remove(source / "nested")
        content.put(source / "new/file", "new")
        print(publish("--tag", "second", "--delete", "d0/f1"))
        times = (source / "d0").stat()
        (source / "d0/f1").unlink()
        os.utime(source / "d0", ns=(times.st_mtime_ns, times.st_mtime_ns))
        _verify(world, repository, source)
    print("as published")


def _verify(world: World, repository: Repository, source: Path) -> None:
    tree: Tree = {
        f"deep/tree/{path}".rstrip("/"): node.owned_by(NOBODY, NOBODY) for path, node in snapshot(source).items()
    }
    seen = world.mounted(repository)
    for path in seen:
        if path not in tree:
            assert path in ("", "deep", "new_repository"), path
            tree[path] = seen[path]
    tree["deep/tree"] = seen["deep/tree"]
    world.verify(repository, tree)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
