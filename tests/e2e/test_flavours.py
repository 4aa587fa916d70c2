"""Repositories of every flavour, taken over with ``cvmfs_server import`` by an administrator's own machine."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from conformance.machines import content
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.manifest import SignedManifest
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.objects import ObjectStore
from tests.e2e.world import World


@dataclass(frozen=True)
class Flavour:
    """Options of ``mkfs``, the same for both programs, and the tag behind all object names."""

    options: tuple[str, ...]
    tag: str = ""


FLAVOURS = {
    "uncompressed": Flavour(("-Z", "none")),
    "rmd160": Flavour(("-a", "rmd160"), "-rmd160"),
    "shake128": Flavour(("-a", "shake128"), "-shake128"),
    "volatile": Flavour(("-v",)),
    "collectable": Flavour(("-z",)),
}


def _first(top: Path) -> None:
    content.varied(top)
    content.patchwork(top / "large", 20 << 20)
    for kind, make in content.KINDS.items():
        make(top / f"kind-{kind}")


def _second(top: Path) -> None:
    content.varied_again(top)
    content.patchwork(top / "large", 18 << 20, seed=9)
    shutil.rmtree(top / "kind-nested")
    content.put(top / "kind-nested2/below/more", "more")


@pytest.mark.parametrize("name", FLAVOURS)
def test_flavour(world: World, name: str) -> None:
    flavour = FLAVOURS[name]
    fqrn = f"{name}.example.org"
    repository = world.mkfs(fqrn, *flavour.options)
    world.serve()
    publisher = world.publisher("alpha", repository, *flavour.options)
    world.verify(repository, publisher.publish(_first))
    tree = publisher.publish(_second, "", "-a", "second", "-m", "the second one")
    world.verify(repository, tree)

    suffixes = {flavour.tag + kind for kind in ("", "C", "H", "X", "M", "P")}
    names = {path.name[38:] for path in repository.storage.glob("data/??/*")}
    assert names == suffixes
    if name == "uncompressed":
        stored = [path.read_bytes() for path in repository.storage.glob("data/??/*") if len(path.name) == 38]
        assert b"no longer the same" in stored

    with closing(LocalStorage(str(repository.storage))) as storage:
        head = SignedManifest.parse(storage.read(".cvmfspublished")).manifest
        with Catalog.load(ObjectStore(storage).get_plain(head.root_hash)) as root:
            assert (root.property("volatile") == "1") == (name == "volatile")
        assert head.garbage_collectable == (name == "collectable")

    admin = world.importer("admin", repository)
    assert "no problems found" in admin.run("cvmfs_server", "check", "-i", fqrn).output
    listed = admin.run("cvmfs_server", "tag", "-l", "-x", fqrn).output
    assert {"trunk", "trunk-previous", "second"} <= {line.split()[0] for line in listed.splitlines()}
    if name != "collectable":
        return
    before = world.objects(repository, "C")
    admin.run("cvmfs_server", "tag", "-r", "second", "-f", fqrn)
    admin.run("cvmfs_server", "gc", "-f", "-r", "0", fqrn)
    world.adopt_reflog(admin, repository)
    assert world.objects(repository, "C") < before
    world.verify(repository, tree)
    world.verify(repository, publisher.publish(lambda top: content.put(top / "after", "the collection")))
