"""``cvmfs_server ingest`` through the gateway: archives in, files and directories out."""

from __future__ import annotations

import stat
import tarfile
from dataclasses import replace
from pathlib import Path

from tests.e2e import content
from tests.e2e.machines import Finished
from tests.e2e.snapshot import Node, Tree, grafted, loosened, snapshot
from tests.e2e.world import Publisher, World

FQRN = "ingest.example.org"


def _archive(path: Path, source: Path) -> Path:
    """An archive of what is in *source*."""
    with tarfile.open(path, "w") as archive:
        for place in sorted(source.iterdir()):
            archive.add(place, place.name)
    return path


def _expected(source: Path, base: str) -> Tree:
    """What the archive of *source* is to become at *base*: owned by root, as ``ingest`` does it by default."""
    tree = {f"{base}/{path}": node for path, node in snapshot(source).items() if path}
    tree[base] = Node(stat.S_IFDIR | 0o755, 0, 0, None)
    return {path: node.owned_by(0, 0) for path, node in tree.items()}


def _files(tree: Tree) -> Tree:
    return {path: node for path, node in tree.items() if not node.is_directory}


def _ingest(publisher: Publisher, archive: Path, base: str, *options: str, expect: int = 0) -> Finished:
    publisher.machine.write("/srv/archive.tar", archive.read_bytes())
    return publisher.ingest("-t", "/srv/archive.tar", "-b", base, *options, expect=expect)


def test_ingest(world: World, tmp_path: Path) -> None:
    repository = world.mkfs(FQRN)
    world.serve()
    alpha = world.publisher("alpha", repository)
    tree = alpha.publish(lambda top: content.put(top / "soft/before", "was there before"))

    source = tmp_path / "one"
    source.mkdir()
    for number in range(20):
        content.put(source / f"lib/d{number % 3}/f{number}", content.noise(number, 3000), moment=number)
    content.put(source / "bin/run", "#!/bin/sh\n", mode=0o755, moment=30)
    content.put(source / "empty", b"", moment=31)
    (source / "link").symlink_to("bin/run")
    content.stamp(source / "link", 32)
    content.KINDS["nested2"](source / "nested")
    content.KINDS["fifo"](source / "fifo")
    content.patchwork(source / "large", 40 << 20)
    content.put(source / "twins/one", "linked", moment=33)
    (source / "twins/two").hardlink_to(source / "twins/one")

    _ingest(alpha, _archive(tmp_path / "one.tar", source), "soft/1.0")
    tree |= _expected(source, "soft/1.0")
    world.verify(repository, tree)

    # The same with a catalog of its own.
    _ingest(alpha, tmp_path / "one.tar", "flat", "-c")
    tree |= _expected(source, "flat")
    tree["flat/.cvmfscatalog"] = replace(tree["soft/1.0/empty"], mode=0o100664, mtime=None)
    world.verify(repository, tree)
    nested = {f"/{base}/nested{below}" for base in ("soft/1.0", "flat") for below in ("", "/below")}
    assert world.nested_catalogs(repository) == nested | {"/flat"}

    second = tmp_path / "two"
    content.put(second / "lib/d0/f0", "other content", moment=40)
    content.put(second / "lib/d0/added", "added", moment=41)
    content.put(second / "nested/below/file", "changed in a nested catalog", moment=43)
    _ingest(alpha, _archive(tmp_path / "two.tar", second), "soft/1.0")
    # The tool leaves directories as they are that are there already.
    tree = _expected(second, "soft/1.0") | tree | _files(_expected(second, "soft/1.0"))
    world.verify(repository, tree)

    # Of an archive that puts something into a file the tool makes a catalog that contradicts itself: refused.
    impossible = tmp_path / "impossible"
    content.put(impossible / "empty/inside", "below what is a file in the repository")
    revision = repository.revision
    refused = _ingest(alpha, _archive(tmp_path / "impossible.tar", impossible), "soft/1.0", expect=1)
    assert "merge_error" in refused.output
    assert repository.revision == revision
    world.verify(repository, tree)

    # out with a file, with a directory, with one that holds nested catalogs, and with a nested catalog itself
    for gone in ("soft/1.0/bin/run", "soft/1.0/lib/d1", "flat", "soft/1.0/nested/below", "soft/1.0/link"):
        alpha.ingest("-d", gone)
        tree = loosened_parent(grafted(tree, gone, {}), gone)
        world.verify(repository, tree)
    assert world.nested_catalogs(repository) == {"/soft/1.0/nested"}

    # A nested catalog as the base directory.
    _ingest(alpha, tmp_path / "two.tar", "soft/1.0/nested")
    tree = _expected(second, "soft/1.0/nested") | tree
    world.verify(repository, tree)
    assert world.nested_catalogs(repository) == {"/soft/1.0/nested"}


def loosened_parent(tree: Tree, path: str) -> Tree:
    """*tree* with any time of change for the directory that *path* was in."""
    parent = path.rpartition("/")[0]
    return tree | {parent: loosened(tree[parent])}
