"""``cvmfs_server transaction`` and ``publish`` through the gateway, seen by a mounted client."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

from tests.e2e import content
from tests.e2e.snapshot import Tree, grafted, loosened
from tests.e2e.world import World

FQRN = "publish.example.org"


def test_every_kind_of_change(world: World) -> None:
    """New, changed, removed entries of every kind; then every kind replaced by every other."""
    repository = world.mkfs(FQRN)
    world.serve()
    publisher = world.publisher("alpha", repository, settings="CVMFS_ENABLE_MTIME_NS=true\n")
    world.verify(repository, publisher.publish(content.varied), nanoseconds=True)
    world.verify(repository, publisher.publish(content.varied_again), nanoseconds=True)

    pairs = list(itertools.permutations(content.KINDS, 2))

    def plant(top: Path) -> None:
        (top / "swap").mkdir()
        for old, new in pairs:
            content.KINDS[old](top / f"swap/{old}-{new}")

    def replace(top: Path) -> None:
        for old, new in pairs:
            path = top / f"swap/{old}-{new}"
            content.remove(path)
            content.KINDS[new](path)

    world.verify(repository, publisher.publish(plant, "swap"))
    world.verify(repository, publisher.publish(replace, "swap"))
    world.verify(repository, publisher.publish(lambda top: shutil.rmtree(top / "swap")))
    assert repository.revision == 6


def test_nested_catalogs(world: World) -> None:
    """``.cvmfscatalog`` made and removed, alone and inside of one another, and directories that move with them."""
    repository = world.mkfs(FQRN)
    world.serve()
    publisher = world.publisher("alpha", repository)

    tree: Tree = {}

    def step(change: content.Change, *catalogs: str, subpath: str = "") -> None:
        # The directory above the lease's path gets another time on the publisher's side, but nobody leased that.
        nonlocal tree
        tree = grafted(tree, subpath, publisher.publish(change, subpath))
        world.verify(repository, tree)
        assert world.nested_catalogs(repository) == set(catalogs)

    def plant(top: Path) -> None:
        for number, folder in enumerate(("a", "a/b", "a/b/c", "a/b/c/d", "e", "e/f")):
            content.put(top / folder / "file", f"in {folder}", moment=number)
            (top / folder / "link").symlink_to("file")
        for folder in ("a", "a/b/c"):
            content.put(top / folder / ".cvmfscatalog", b"")

    def mark(*folders: str) -> content.Change:
        return content.each(folders, lambda folder: content.put(folder / ".cvmfscatalog", b""))

    def unmark(*folders: str) -> content.Change:
        return content.each(folders, lambda folder: (folder / ".cvmfscatalog").unlink())

    def move(top: Path) -> None:
        content.move(top / "a", top / "moved")

    step(plant, "/a", "/a/b/c")
    step(mark("a/b", "a/b/c/d", "e/f"), "/a", "/a/b", "/a/b/c", "/a/b/c/d", "/e/f")
    step(lambda top: content.put(top / "a/b/c/d/file", "changed"), "/a", "/a/b", "/a/b/c", "/a/b/c/d", "/e/f")
    step(unmark("a/b"), "/a", "/a/b/c", "/a/b/c/d", "/e/f", subpath="a")
    step(unmark("a", "a/b/c"), "/a/b/c/d", "/e/f")
    step(mark("a", "e"), "/a", "/a/b/c/d", "/e", "/e/f")
    step(lambda top: shutil.rmtree(top / "e/f"), "/a", "/a/b/c/d", "/e", subpath="e/f")
    step(move, "/e", "/moved", "/moved/b/c/d")
    step(lambda top: content.put(top / "e/.cvmfscatalog", b"", moment=9), "/e", "/moved", "/moved/b/c/d")

    def by_rule(top: Path) -> None:
        content.put(top / ".cvmfsdirtab", "/moved/*\n")
        content.put(top / "moved/x/file", "x")

    tree = publisher.publish(by_rule)
    for folder in ("moved/b", "moved/x"):
        tree[folder] = loosened(tree[folder])
        tree[f"{folder}/.cvmfscatalog"] = loosened(tree["moved/.cvmfscatalog"])
    world.verify(repository, tree)
    assert world.nested_catalogs(repository) == {"/e", "/moved", "/moved/b", "/moved/b/c/d", "/moved/x"}
    step(content.each(("moved", "e"), shutil.rmtree))


def test_lease_on_the_entry_itself(world: World) -> None:
    """What is at the lease's own path becomes something else, or nothing."""
    repository = world.mkfs(FQRN)
    world.serve()
    publisher = world.publisher("alpha", repository)
    tree = publisher.publish(lambda top: content.put(top / "spot/beside", "stays"))
    kinds = "file dir nested file symlink nested2 dir symlink emptydir file - nested2 - dir - nested nested2 emptydir"
    for kind in kinds.split():

        def replace(top: Path, kind: str = kind) -> None:
            spot = top / "spot/entry"
            if os.path.lexists(spot):
                content.remove(spot)
            if kind in content.KINDS:
                content.KINDS[kind](spot)

        tree = grafted(tree, "spot/entry", publisher.publish(replace, "spot/entry"))
        world.verify(repository, tree)


def test_large_file(world: World) -> None:
    """A file of 300 MiB in chunks: made, changed in the middle, grown, and replaced by a small one."""
    repository = world.mkfs(FQRN)
    world.serve()
    publisher = world.publisher("alpha", repository)

    def large(top: Path) -> None:
        content.patchwork(top / "large", 300 << 20)

    def edit(top: Path) -> None:
        with (top / "large").open("r+b") as file:
            file.seek(100 << 20)
            file.write(b"something else")
        content.stamp(top / "large", 77)
        content.patchwork(top / "second", 17 << 20, seed=5)

    def shrink(top: Path) -> None:
        content.put(top / "large", "small", moment=78)
        (top / "second").rename(top / "renamed")

    world.verify(repository, publisher.publish(large))
    chunks = world.objects(repository, "P")
    assert 300 // 16 <= chunks <= 300 // 4
    world.verify(repository, publisher.publish(edit))
    assert world.objects(repository, "P") - chunks <= 3 + 5, "only the chunks around a change are new"
    world.verify(repository, publisher.publish(shrink))
