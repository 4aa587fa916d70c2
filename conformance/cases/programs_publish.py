"""``cvmfs_server transaction`` and ``publish`` through the gateway, seen by a freshly mounted client."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path
from typing import Final

from conformance.machines import content
from conformance.machines.content import Change
from conformance.machines.snapshot import Tree, grafted
from conformance.machines.stage import machines
from conformance.machines.trees import empty
from conformance.outcomes import equal, expect
from conformance.probe import Probe
from conformance.registry import PROGRAMS, case, each

_NANOSECONDS: Final = "CVMFS_ENABLE_MTIME_NS=true\n"


@each(
    "programs",
    PROGRAMS,
    {
        "publish": ("a tree of files, directories and links, published, is what a client sees", content.ordinary),
        "publish.special": ("the same with FIFOs, sockets and devices", content.varied),
    },
)
def publish(probe: Probe, change: Change) -> None:
    with machines(probe) as site:
        publisher = site.publisher("alpha", settings=_NANOSECONDS)
        site.verify(publisher.publish(change), nanoseconds=True)


@each(
    "programs",
    PROGRAMS,
    {
        "changes": (
            "files, directories and links changed, renamed and removed",
            content.ordinary,
            content.ordinary_again,
        ),
        "changes.all": ("owners and attributes alone, and special files, too", content.varied, content.varied_again),
    },
)
def changes(probe: Probe, first: Change, second: Change) -> None:
    with machines(probe) as site:
        publisher = site.publisher("alpha", settings=_NANOSECONDS)
        site.compare(publisher.publish(first))
        site.verify(publisher.publish(second), nanoseconds=True)


_ORDINARY: Final = [kind for kind in content.KINDS if kind not in ("fifo", "device")]
_PAIRS: Final = list(itertools.permutations(content.KINDS, 2))
_ORDINARY_PAIRS: Final = list(itertools.permutations(_ORDINARY, 2))


@each(
    "programs",
    PROGRAMS,
    {
        "replacements": ("each kind of file, directory and link replaced by each other", _ORDINARY_PAIRS),
        "replacements.special": (
            "each kind of entry replaced by a FIFO or a device, and these by each",
            [pair for pair in _PAIRS if pair not in _ORDINARY_PAIRS],
        ),
    },
    destructive=True,
)
def replacements(probe: Probe, pairs: list[tuple[str, str]]) -> None:
    def plant(top: Path) -> None:
        (top / "swap").mkdir()
        for old, new in pairs:
            content.KINDS[old](top / f"swap/{old}-{new}")

    def swap(top: Path) -> None:
        for old, new in pairs:
            path = top / f"swap/{old}-{new}"
            content.remove(path)
            content.KINDS[new](path)

    with machines(probe) as site:
        publisher = site.publisher("alpha")
        site.verify(publisher.publish(plant, "swap"))
        site.verify(publisher.publish(swap, "swap"))
        site.verify(publisher.publish(lambda top: shutil.rmtree(top / "swap")))


@case(
    "programs.catalogs",
    "nested catalogs made, dissolved, put into one another, and moved",
    PROGRAMS,
)
def catalogs(probe: Probe) -> None:
    def plant(top: Path) -> None:
        for number, folder in enumerate(("a", "a/b", "a/b/c", "a/b/c/d", "e", "e/f")):
            content.put(top / folder / "file", f"in {folder}", moment=number)
            (top / folder / "link").symlink_to("file")
        for folder in ("a", "a/b/c"):
            content.put(top / folder / ".cvmfscatalog", b"")

    def mark(*folders: str) -> Change:
        return content.each(folders, lambda folder: content.put(folder / ".cvmfscatalog", b""))

    def unmark(*folders: str) -> Change:
        return content.each(folders, lambda folder: (folder / ".cvmfscatalog").unlink())

    with machines(probe) as site:
        publisher, tree = site.publisher("alpha"), empty()

        def step(change: Change, *nested: str, subpath: str = "") -> None:
            # The directory above the lease's path gets another time on the publisher's side, but nobody leased that.
            nonlocal tree
            tree = grafted(tree, subpath, publisher.publish(change, subpath))
            site.verify(tree)
            equal(sorted(site.nested_catalogs()), sorted(nested), "nested catalogs")

        step(plant, "a", "a/b/c")
        step(mark("a/b", "a/b/c/d", "e/f"), "a", "a/b", "a/b/c", "a/b/c/d", "e/f")
        step(lambda top: content.put(top / "a/b/c/d/file", "changed"), "a", "a/b", "a/b/c", "a/b/c/d", "e/f")
        step(unmark("a/b"), "a", "a/b/c", "a/b/c/d", "e/f", subpath="a")
        step(unmark("a", "a/b/c"), "a/b/c/d", "e/f")
        step(mark("a", "e"), "a", "a/b/c/d", "e", "e/f")
        step(lambda top: shutil.rmtree(top / "e/f"), "a", "a/b/c/d", "e", subpath="e/f")
        step(lambda top: content.move(top / "a", top / "moved"), "e", "moved", "moved/b/c/d")
        step(lambda top: content.put(top / "e/.cvmfscatalog", b"", moment=9), "e", "moved", "moved/b/c/d")
        step(content.each(("moved", "e"), shutil.rmtree))


@case("programs.spot", "what is at the lease's own path becomes something else, or nothing", PROGRAMS, destructive=True)
def spot(probe: Probe) -> None:
    kinds = "file dir nested file symlink nested2 dir symlink emptydir file - nested2 - dir - nested nested2 emptydir"
    with machines(probe) as site:
        publisher = site.publisher("alpha")
        tree: Tree = publisher.publish(lambda top: content.put(top / "spot/beside", "stays"))
        for kind in kinds.split():

            def swap(top: Path, kind: str = kind) -> None:
                place = top / "spot/entry"
                if os.path.lexists(place):
                    content.remove(place)
                if kind in content.KINDS:
                    content.KINDS[kind](place)

            tree = grafted(tree, "spot/entry", publisher.publish(swap, "spot/entry"))
            site.compare(tree)
        site.check()


@case("programs.chunks", "a file in chunks made, changed in the middle, grown, renamed and made small", PROGRAMS)
def chunks(probe: Probe) -> None:
    def large(top: Path) -> None:
        content.patchwork(top / "large", 120 << 20)

    def edit(top: Path) -> None:
        with (top / "large").open("r+b") as file:
            file.seek(50 << 20)
            file.write(b"something else")
        content.stamp(top / "large", 77)
        content.patchwork(top / "second", 17 << 20, seed=5)

    def shrink(top: Path) -> None:
        content.put(top / "large", "small", moment=78)
        (top / "second").rename(top / "renamed")

    with machines(probe) as site:
        publisher = site.publisher("alpha")
        found = []
        for change in (large, edit, shrink):
            site.verify(publisher.publish(change))
            large_file = probe.repository.tree().get(f"/{site.base}/large")
            found.append(set(large_file.chunks) if large_file else set())
        expect(120 // 16 <= len(found[0]) <= 120 // 4, f"{len(found[0])} chunks of 120 MiB")
        new = len(found[1] - found[0])
        expect(new <= 3, f"a small change in the middle made {new} new chunks")
