"""Our own publisher as a user without any rights: what a mounted client sees is what was to be published.

Each test is made twice, through our gateway and through the reference's, where that is installed. After each the
deployed programs check the repository. ``CVMFS_TEST_FILES=50000 CVMFS_TEST_GIB=3`` make the largest tree and the
largest file larger (default: 500 and 0.03); from 5,000 files on the whole standard library is taken, and not a part.
``CVMFS_TEST_TREE=/usr/share`` takes a tree of this machine as well. ``pytest -n 0 -rP`` shows how long it took.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import zstandard

from conformance.machines import content
from conformance.machines.machine import run_command
from conformance.machines.site import same
from conformance.machines.snapshot import Tree, snapshot, subtree
from tests.bench.publish import served
from tests.bench.servers import FQRN, reference, reference_missing
from tests.e2e.network import private_network
from tests.e2e.world import NOBODY, Repository, World, unprivileged
from tests.ingest.test_image import oci, saved

FILES: Final = int(os.environ.get("CVMFS_TEST_FILES", "500"))
GIB: Final = float(os.environ.get("CVMFS_TEST_GIB", "0.03"))
TREE: Final = os.environ.get("CVMFS_TEST_TREE", "")
WHOLE: Final = FILES >= 5000
PATIENCE_S: Final = 1800


@dataclass
class Site:
    """A repository behind one of the gateways; *options* are those that our publisher needs for it."""

    name: str
    world: World
    repository: Repository
    options: tuple[str, ...] = ()

    def publish(self, target: str, *source: str | Path) -> str:
        """Publish at *target*, as the owner of everything; *source* is what the command line says."""
        where = ("--gateway", self.repository.gateway, "--stratum0", self.repository.web, *self.options)
        command = ("publish", *where, "--owner", f"{NOBODY}:{NOBODY}", f"{FQRN}/{target}", *map(str, source))
        with self.timed(f"publish {target}"):
            return self.world.program(*command, timeout=PATIENCE_S).output

    def timed(self, what: str) -> Timed:
        return Timed(f"{self.name}: {what}")

    def verify(self, target: str, expected: Tree, links: set[frozenset[str]] | None = None) -> None:
        """A client that mounts now sees *expected* at *target*, and of one file those names that are in *links*."""
        with self.timed(f"read {target} in a mounted client"), self.world.client.mount(self.repository.target) as top:
            same(expected, snapshot(top / target), "a client sees")
            if links is not None and self.name == "ours":  # the reference makes each name a file
                assert linked(top / target) == links

    def check(self) -> None:
        with self.timed("cvmfs_swissknife check and scrub"):
            self.world.check(self.repository)

    def contents(self) -> set[str]:
        """The objects of files and chunks that the storage holds."""
        names = {f"{path.parent.name}{path.name}" for path in self.repository.storage.glob("data/??/*")}
        return {name for name in names if name[-1] not in "CHXML"}


class Timed:
    """Says how long something took, in seconds."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        print(f"{self._what}: {time.monotonic() - self._began:.1f} s")


@pytest.fixture(params=["ours", "reference"])
def site(request: pytest.FixtureRequest, world: World) -> Iterator[Site]:
    """One of the gateways; the reference's in a network of its own, as it listens on every interface."""
    if request.param == "ours":
        repository = world.mkfs(FQRN)
        world.serve()
        yield Site("ours", world, repository)
        return
    if reason := reference_missing():
        pytest.skip(reason)
    with ExitStack() as stack:
        stack.enter_context(private_network())
        server = stack.enter_context(reference(memory=False, own_network=False))
        web = stack.enter_context(served(server))
        server.root.chmod(0o755)
        world.root = server.root
        repository = Repository(FQRN, web, f"http://127.0.0.1:{server.port}/api/v1", server.root)
        options = []
        for option, kind in (("--key", "gw"), ("--pub", "pub")):
            path = world.folder / f"key.{kind}"
            path.write_bytes(repository.key(kind))
            path.chmod(0o644)
            options += [option, str(path)]
        yield Site("reference", world, repository, tuple(options))


def owned(tree: Tree) -> Tree:
    """*tree* as its publisher says whose it is; of the top the kind alone counts."""
    return {path: node.owned_by(NOBODY, NOBODY) if path else node for path, node in tree.items()}


def without(tree: Tree, path: str) -> Tree:
    gone = subtree(tree, path)
    return {at: node for at, node in tree.items() if at not in gone}


def linked(top: Path) -> set[frozenset[str]]:
    """The names in one directory that are of one file: more a repository cannot keep."""
    found = set()
    for folder, _, names in os.walk(top):
        groups: dict[int, list[str]] = {}
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            if status.st_nlink > 1:
                groups.setdefault(status.st_ino, []).append(os.path.relpath(os.path.join(folder, name), top))
        found |= {frozenset(group) for group in groups.values() if len(group) > 1}
    return found


def readable(top: Path) -> Path:
    """*top* with all that is in it, as the publisher's own."""
    top.chmod(0o755)
    for folder, _, names in os.walk(top):
        for name in (".", *names):
            os.chown(os.path.join(folder, name), NOBODY, NOBODY, follow_symlinks=False)
    return top


def test_the_publisher_may_do_nothing(world: World) -> None:
    """So that the tests below show what they say: no root, no capabilities, no FUSE, no CernVM-FS."""
    ask = "id -u; grep -c 'Cap[A-Z][a-z]*:\t0*$' /proc/self/status; cat /dev/fuse; command -v cvmfs2 cvmfs_server; "
    done = run_command(unprivileged(["sh", "-c", f"{ask} mount -t tmpfs tmpfs /mnt"]), expect=None)
    user, capabilities, fuse, *mount = done.output.splitlines()
    assert (user, capabilities) == (str(NOBODY), "5")
    assert "Permission denied" in fuse
    assert "must be superuser" in mount[0]


def test_wrong_key(site: Site) -> None:
    """It is refused before anything is read."""
    source, key = site.world.folder / "never written", site.world.folder / "wrong.gw"
    os.mkfifo(source, 0o644)
    where = ("--gateway", site.repository.gateway, "--stratum0", site.repository.web, *site.options)
    for line in (site.repository.key("gw").strip() + b"x", b"plain_text nobody secret"):
        key.write_bytes(line + b"\n")
        command = ("publish", *where, "--key", str(key), f"{FQRN}/target", str(source))
        assert "invalid_hmac" in site.world.program(*command, expect=1).output


def test_trees(site: Site) -> None:
    """The standard library, many small files, files of all kinds, and nothing at all where nothing has changed."""
    library = Path(sysconfig.get_path("stdlib"), *([] if WHOLE else ["email"]))
    many = site.world.folder / "many"
    for number in range(FILES):
        content.put(many / f"d{number // 100}/f{number}", f"file {number}", moment=number)
    for number in range(0, FILES, 1000):
        content.put(many / f"d{number // 100}/.cvmfscatalog", "")
    kinds = site.world.folder / "kinds"
    kinds.mkdir()
    content.ordinary(kinds)
    readable(kinds)
    trees = {"many": many, "deep/kinds": kinds, **({"tree": Path(TREE)} if TREE else {})}
    site.publish("library", library, "--delete", "site-packages")
    for target, source in trees.items():
        site.publish(target, source)
    site.check()
    site.verify("library", owned(without(snapshot(library), "site-packages")))
    for target, source in trees.items():
        site.verify(target, owned(snapshot(source)), linked(source))
    before = site.repository.revision
    assert "nothing has changed" in site.publish("many", many)
    assert site.repository.revision == before


def test_large_file(site: Site) -> None:
    source = site.world.folder / "source"
    source.mkdir()
    content.patchwork(source / "large", int(GIB * 2**30))
    site.publish("large", source)
    site.check()
    site.verify("large", owned(snapshot(source)))


def test_changes(site: Site) -> None:
    """Changed, added and removed, a nested catalog among it, and a part taken out of the source."""
    source = site.world.folder / "source"
    for number in range(300):
        content.put(source / f"d{number // 100}/f{number}", f"file {number}", moment=number)
    content.put(source / "nested/.cvmfscatalog", "")
    content.put(source / "nested/file", "in a nested catalog")
    site.publish("deep/tree", source)
    site.verify("deep/tree", owned(snapshot(source)))
    content.put(source / "d0/f0", "changed", moment=1000)
    content.remove(source / "nested")
    content.put(source / "new/file", "new")
    site.publish("deep/tree", source, "--tag", "second", "--delete", "d0/f1")
    site.check()
    site.verify("deep/tree", owned(without(snapshot(source), "d0/f1")))


def test_archive_and_images(site: Site) -> None:
    """Several steps in one revision; layers applied, with what they take away; archives of images and a folder."""
    source = Path(sysconfig.get_path("stdlib"), "json" if not WHOLE else "")
    lower = site.world.folder / "lower"
    shutil.copytree(source, lower / "lib", symlinks=True, ignore=shutil.ignore_patterns("site-packages"))
    content.put(lower / "etc/gone", "taken away by the upper layer", moment=1)
    content.put(lower / "etc/kept", "kept", moment=2)
    content.put(lower / "bin/tool", "tool", mode=0o755, moment=3)
    upper = site.world.folder / "upper"
    content.put(upper / "etc/.wh.gone", "")
    content.put(upper / "bin/tool", "another tool", mode=0o755, moment=4)
    for top in (lower, upper):
        for name in ("etc", "bin"):
            content.stamp(top / name, 5)
        readable(top)
    layers = [_packed(lower), _packed(upper)]
    archive = site.world.folder / "archive.tar.xz"
    packing = ["tar", "--format=posix", "-C", str(lower), "-cJf", str(archive), "."]
    subprocess.run(packing, check=True, env={**os.environ, "XZ_OPT": "-1"})
    image = site.world.folder / "saved.tar"
    image.write_bytes(saved(layers))
    packed, layout = site.world.folder / "layout.tar", site.world.folder / "layout"
    packed.write_bytes(oci(layers, zstandard.compress))
    with tarfile.open(packed) as file:
        file.extractall(layout, filter="data")
    steps = ("--replace", f"image:{image}", "saved", "--replace", f"image:{packed}", "packed")
    site.publish("", archive, *steps, "--replace", f"image:{layout}", "layout")
    assert site.repository.revision == 2
    site.check()
    tree = owned(snapshot(lower))
    changed = without(tree, "etc/gone") | {"bin/tool": owned(snapshot(upper))["bin/tool"]}
    for target in ("saved", "packed", "layout"):
        site.verify(target, changed)
    with site.world.client.mount(site.repository.target) as top:
        seen = snapshot(top)
    for target in ("saved", "packed", "layout"):
        seen = without(seen, target)
    same(tree, seen, "a client sees")


def _packed(top: Path) -> bytes:
    """A layer, as builders pack them."""
    done = subprocess.run(["tar", "--format=posix", "-C", str(top), "-c", "."], stdout=subprocess.PIPE, check=True)
    return done.stdout


def test_what_others_publish_is_there_already(site: Site) -> None:
    """What we have published brings the deployed publishers' own nothing new to store, and a client sees the same."""
    source = site.world.folder / "source"
    for number in range(FILES):
        content.put(source / f"small/d{number // 100}/f{number}", content.noise(number, number % 3000), moment=number)
    library = Path(sysconfig.get_path("stdlib"), *([] if WHOLE else ["email"]))
    shutil.copytree(library, source / "small/library", ignore=shutil.ignore_patterns("site-packages"))
    (source / "large").mkdir()
    content.patchwork(source / "large/file", int(GIB * 2**30))
    small, large = source / "small", source / "large"
    site.publish("ours/small", small, "--chunks", "none")  # as ingest cuts nothing, however large
    site.publish("ours/large", large)
    publisher = site.world.publisher("alpha", site.repository)
    archive = publisher.machine.path("/srv") / "small.tar"
    subprocess.run(["tar", "-C", str(small), "-cf", str(archive), "."], check=True)

    def ingest() -> None:
        where = ("-t", "/srv/small.tar", "-b", "their-small")
        publisher.machine.run("cvmfs_server", "ingest", *where, FQRN, timeout=PATIENCE_S)

    def publish() -> None:
        publisher.begin()
        shutil.copytree(large, publisher.top / "their-large")
        publisher.machine.run("cvmfs_server", "publish", FQRN, timeout=PATIENCE_S)

    works: tuple[tuple[str, Path, Callable[[], None]], ...] = (
        ("cvmfs_server ingest", small, ingest),
        ("cvmfs_server publish", large, publish),
    )
    for what, folder, work in works:
        before = site.contents()
        with site.timed(f"{what} of {folder.name}"):
            work()
        new = site.contents() - before
        chunks = sum(name.endswith("P") for name in before)
        print(f"{site.name}: {what}: {len(new)} new objects beside {len(before) - chunks} files, {chunks} chunks")
        assert not new
        tree = snapshot(folder)
        del tree[""]
        with site.world.client.mount(site.repository.target) as top:
            for path, node in snapshot(top / f"their-{folder.name}").items():
                if path:
                    assert (node.size, node.sha1) == (tree[path].size, tree[path].sha1), path
                    del tree[path]
        assert not tree
    site.check()
