"""``cvmfs_server ingest`` and ``cvmfs_publish`` through the gateway: archives in, files and directories out."""

from __future__ import annotations

import io
import stat
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from conformance.machines import content
from conformance.machines.snapshot import Node, Tree, grafted, loosened, snapshot
from conformance.machines.stage import machines
from conformance.machines.trees import empty
from conformance.outcomes import equal
from conformance.probe import Probe
from conformance.registry import PROGRAMS, case


class Source:
    """A directory that *fill* has filled: as an archive, and as what that is to become."""

    def __init__(self, fill: Callable[[Path], object]) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            fill(folder)
            self._tree = snapshot(folder)
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as archive:
                for place in sorted(folder.iterdir()):
                    archive.add(place, place.name)
            self.archive = buffer.getvalue()

    def at(self, base: str) -> Tree:
        """Its tree at *base*: owned by root, as ``ingest`` does it by default."""
        tree = {f"{base}/{path}": node for path, node in self._tree.items() if path}
        tree[base] = Node(stat.S_IFDIR | 0o755, 0, 0, None)
        return {path: node.owned_by(0, 0) for path, node in tree.items()}

    def files_at(self, base: str) -> Tree:
        return {path: node for path, node in self.at(base).items() if not node.is_directory}


def first(top: Path) -> None:
    """A tree to be taken in."""
    for number in range(20):
        content.put(top / f"lib/d{number % 3}/f{number}", content.noise(number, 3000), moment=number)
    content.put(top / "bin/run", "#!/bin/sh\n", mode=0o755, moment=30)
    content.put(top / "empty", b"", moment=31)
    (top / "link").symlink_to("bin/run")
    content.stamp(top / "link", 32)
    content.KINDS["nested2"](top / "nested")
    content.patchwork(top / "large", 20 << 20)


def second(top: Path) -> None:
    """Changes of it."""
    content.put(top / "lib/d0/f0", "other content", moment=40)
    content.put(top / "lib/d0/added", "added", moment=41)
    content.put(top / "nested/below/file", "changed in a nested catalog", moment=43)


@case("programs.ingest", "an archive taken in with cvmfs_server ingest, below a directory that is there", PROGRAMS)
def ingest(probe: Probe) -> None:
    source = Source(first)
    with machines(probe) as site:
        alpha = site.publisher("alpha")
        tree = alpha.publish(lambda top: content.put(top / "soft/before", "was there before"))
        alpha.ingest(source.archive, "soft/1.0")
        tree |= source.at("soft/1.0")
        site.verify(tree)
        equal(site.nested_catalogs(), {"soft/1.0/nested", "soft/1.0/nested/below"}, "nested catalogs")


@case("programs.ingest.special", "a FIFO and hard links in an archive", PROGRAMS)
def ingest_special(probe: Probe) -> None:
    def fill(top: Path) -> None:
        content.KINDS["fifo"](top / "fifo")
        content.put(top / "twins/one", "linked", moment=33)
        (top / "twins/two").hardlink_to(top / "twins/one")

    source = Source(fill)
    with machines(probe) as site:
        site.publisher("alpha").ingest(source.archive, "new")
        site.verify(empty() | source.at("new"))


@case("programs.ingest.catalog", "an archive taken in with a catalog of its own (ingest -c)", PROGRAMS)
def ingest_catalog(probe: Probe) -> None:
    source = Source(first)
    with machines(probe) as site:
        site.publisher("alpha").ingest(source.archive, "flat", "-c")
        tree = empty() | source.at("flat")
        tree["flat/.cvmfscatalog"] = replace(tree["flat/empty"], mode=0o100664, mtime=None)
        site.verify(tree)
        equal(site.nested_catalogs(), {"flat", "flat/nested", "flat/nested/below"}, "nested catalogs")


@case("programs.ingest.again", "an archive taken in over what is there changes its files alone", PROGRAMS)
def ingest_again(probe: Probe) -> None:
    one, two = Source(first), Source(second)
    with machines(probe) as site:
        alpha = site.publisher("alpha")
        alpha.ingest(one.archive, "soft")
        alpha.ingest(two.archive, "soft")
        # The tool leaves directories as they are that are there already.
        tree = empty() | two.at("soft") | one.at("soft") | two.files_at("soft")
        site.verify(tree)
        # A nested catalog as the base directory.
        alpha.ingest(two.archive, "soft/nested")
        site.verify(two.at("soft/nested") | tree)


@case(
    "programs.ingest.impossible",
    "an archive that puts something into what is a file is refused, and the publisher learns of it",
    PROGRAMS,
)
def ingest_impossible(probe: Probe) -> None:
    source = Source(lambda top: content.put(top / "empty/inside", "below what is a file in the repository"))
    with machines(probe) as site:
        alpha = site.publisher("alpha")
        tree = alpha.publish(lambda top: content.put(top / "soft/empty", b"", moment=31))
        before = site.revision
        alpha.ingest(source.archive, "soft", expect=1)
        equal(site.revision, before, "revision")
        site.verify(tree)


@case("programs.ingest.delete", "files, directories and nested catalogs taken out with ingest -d", PROGRAMS)
def ingest_delete(probe: Probe) -> None:
    with machines(probe) as site:
        alpha = site.publisher("alpha")
        tree = alpha.publish(first)
        for gone in ("bin/run", "lib/d1", "nested/below", "link", "nested"):
            alpha.take_out(gone)
            tree = grafted(tree, gone, {})
            above = gone.rpartition("/")[0]
            tree[above] = loosened(tree[above])
            site.verify(tree)
        equal(site.nested_catalogs(), set(), "nested catalogs")


@case("programs.enter", "cvmfs_publish enter and commit, as containers publish", PROGRAMS)
def enter(probe: Probe) -> None:
    with machines(probe) as site:
        alpha = site.publisher("alpha")
        tree = alpha.publish(content.ordinary)

        stage = alpha.machine.path("/srv/stage")
        content.put(stage / "entered/file", "from the inside", moment=1)
        content.put(stage / "entered/nested/.cvmfscatalog", b"", moment=2)
        content.put(stage / "entered/nested/large", content.noise(1, 20 << 20), moment=3)
        (stage / "entered/link").symlink_to("file")
        content.stamp(stage / "entered/link", 4)
        for folder in ("entered/nested", "entered"):
            content.stamp(stage / folder, 5)
        entered = {path: node for path, node in snapshot(stage).items() if path}

        alpha.enter("cp -a /srv/stage/. .\nrm -r many/d0 empty", commit=True)
        tree = {path: node for path, node in tree.items() if path != "empty" and not f"{path}/".startswith("many/d0/")}
        tree |= entered | {"many": loosened(tree["many"])}
        site.verify(tree)
        equal(site.nested_catalogs(), {"entered/nested"}, "nested catalogs")

        # What is not committed is not there.
        alpha.enter(f"echo never > never\ncd /\nexec cvmfs_server abort -f {probe.fqrn}")
        site.verify(tree)
        alpha.enter("rm entered/nested/.cvmfscatalog", commit=True)
        tree.pop("entered/nested/.cvmfscatalog")
        site.verify(tree | {"entered/nested": loosened(tree["entered/nested"])})
        equal(site.nested_catalogs(), set(), "nested catalogs")
