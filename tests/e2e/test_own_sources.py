"""Our own publisher as a user without any rights: trees, archives and images, through our gateway and the reference's.

``CVMFS_TEST_FILES`` and ``CVMFS_TEST_GIB`` make the largest tree and the largest file larger (default: 500 and 0.03);
from 5,000 files on the whole standard library is published, too, and not a part.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sysconfig
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.machines import content
from conformance.machines.snapshot import Tree, snapshot, subtree
from tests.bench.publish import served
from tests.bench.servers import FQRN as BENCH
from tests.bench.servers import reference, reference_missing
from tests.e2e.network import private_network
from tests.e2e.world import NOBODY, Repository, World

FQRN = "sources.example.org"
FILES = int(os.environ.get("CVMFS_TEST_FILES", "500"))
GIB = float(os.environ.get("CVMFS_TEST_GIB", "0.03"))


def publish(world: World, repository: Repository, target: str, source: Path | str, *options: str) -> str:
    where = ("--gateway", repository.gateway, "--stratum0", repository.web, "--owner", f"{NOBODY}:{NOBODY}")
    return world.program("publish", *where, *options, f"{FQRN}/{target}", str(source), timeout=1200).output


def placed(tree: Tree, base: str) -> Tree:
    """*tree* as it is seen below *base*."""
    return {f"{base}/{path}".rstrip("/"): node.owned_by(NOBODY, NOBODY) for path, node in tree.items()}


def test_trees(world: World) -> None:
    """The standard library, many small files, a large file: equal to their sources in a mounted client."""
    repository = world.mkfs(FQRN)
    world.serve()
    library = Path(sysconfig.get_path("stdlib"), *([] if FILES >= 5000 else ["email"]))
    many = world.folder / "many"
    for number in range(FILES):
        content.put(many / f"d{number // 100}/f{number}", f"file {number}", moment=number)
    content.patchwork(many / "large", int(GIB * 2**30))
    expected: Tree = {}
    publish(world, repository, "library", library, "--delete", "site-packages")
    seen = snapshot(library)
    for path in subtree(seen, "site-packages"):
        del seen[path]
    expected |= placed(seen, "library")
    publish(world, repository, "many", many)
    expected |= placed(snapshot(many), "many")
    before = repository.revision
    assert "nothing has changed" in publish(world, repository, "many", many)
    assert repository.revision == before
    expected[""] = world.mounted(repository)[""]
    world.verify(repository, expected)


def test_archive_and_image(world: World) -> None:
    """Several steps in one revision; layers applied, with what they take away."""
    repository = world.mkfs(FQRN)
    world.serve()
    source = world.folder / "source"
    for name, data in (("bin/tool", "tool"), ("lib/a", "a"), ("lib/b", "b" * 100_000)):
        content.put(source / name, data, moment=7)
    content.stamp(source / "bin", 8)
    content.stamp(source / "lib", 8)
    content.stamp(source, 8)
    archive = world.folder / "archive.tar.xz"
    with tarfile.open(archive, "w:xz") as file:
        file.add(source, ".")
    image = _image(world.folder / "image.tar", source)
    publish(world, repository, "", archive, "--replace", f"image:{image}", "image", "--replace", str(source), "tree")
    assert repository.revision == 2
    seen = world.mounted(repository)
    tree = snapshot(source)
    assert {path for path in seen if path.startswith("image")} == {
        "image", "image/bin", "image/bin/tool", "image/lib", "image/lib/b", "image/new"
    }  # fmt: skip
    for path in ("bin", "bin/tool", "lib/a", "lib/b"):
        node = tree[path].owned_by(NOBODY, NOBODY)
        assert seen[f"tree/{path}"] == node
        assert replace(seen[path], mtime=None) == replace(node, mtime=None)  # the archive rounds fractions of seconds
    world.check(repository)


def _image(path: Path, source: Path) -> Path:
    """What ``docker save`` writes: the tree, and a layer that adds a file and removes ``lib/a``."""
    first, second = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=first, mode="w") as layer:
        for part in ("bin", "lib"):
            layer.add(source / part, part)
    with tarfile.open(fileobj=second, mode="w") as layer:
        for name in ("new", "lib/.wh.a"):
            layer.addfile(tarfile.TarInfo(name))
    manifest = [{"Config": "config.json", "RepoTags": ["test:latest"], "Layers": ["1/layer.tar", "2/layer.tar"]}]
    digests = [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}" for layer in (first, second)]
    members = {
        "config.json": json.dumps({"rootfs": {"type": "layers", "diff_ids": digests}}).encode(),
        "1/layer.tar": first.getvalue(),
        "2/layer.tar": second.getvalue(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    path.chmod(0o644)
    return path


def test_through_the_reference(world: World) -> None:
    """In a network of its own, as the reference's gateway listens on every interface."""
    if reason := reference_missing():
        pytest.skip(reason)
    with private_network():
        _publish_through_reference(world)


def _publish_through_reference(world: World) -> None:
    """Publish twice, change, remove; after each a mounted client sees what is in the folder."""
    with reference(memory=False, own_network=False) as server, served(server) as web:
        server.root.chmod(0o755)
        world.root = server.root
        repository = Repository(BENCH, web, f"http://127.0.0.1:{server.port}/api/v1", server.root)
        keys = []
        for kind in ("gw", "pub"):
            path = world.folder / f"key.{kind}"
            path.write_bytes(repository.key(kind))
            path.chmod(0o644)
            keys += ["--key" if kind == "gw" else "--pub", str(path)]
        source = world.folder / "source"

        def publish(*options: str) -> str:
            where = ("--gateway", repository.gateway, "--stratum0", web, "--owner", f"{NOBODY}:{NOBODY}", *keys)
            return world.program("publish", *where, *options, f"{BENCH}/deep/tree", str(source), timeout=1200).output

        for number in range(FILES):
            content.put(source / f"d{number // 100}/f{number}", f"file {number}", moment=number)
        content.patchwork(source / "large", int(GIB * 2**30))
        content.put(source / "nested/.cvmfscatalog", "")
        content.put(source / "nested/file", "in a nested catalog")
        publish()
        _verify(world, repository, source)
        assert "nothing has changed" in publish()
        content.put(source / "d0/f0", "changed", moment=FILES + 1)
        content.remove(source / "nested")
        content.put(source / "new/file", "new")
        publish("--tag", "second", "--delete", "d0/f1")
        times = (source / "d0").stat()
        (source / "d0/f1").unlink()
        os.utime(source / "d0", ns=(times.st_mtime_ns, times.st_mtime_ns))
        _verify(world, repository, source)


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
