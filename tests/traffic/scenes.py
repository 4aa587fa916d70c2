"""The sessions that are recorded: what publishers and subscribers do.

Each is a function: it prepares the repository, calls :meth:`Stage.record`, lets publishers work, and returns the tree
that must come of it. All of its commits must be based on the revision that it began with: a later one has another hash
whenever it is made. Keep contents small: a recording should stay below 300 kB.
"""

from __future__ import annotations

import base64
import dataclasses
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from conformance.machines import content
from conformance.machines.publisher import Publisher
from conformance.machines.snapshot import Node, Tree, grafted, loosened, snapshot
from conformance.recorder import Recorder
from conformance.session import ROOT, read_initial
from tests.e2e.world import Repository, World, wait_for


class Stage:
    """What a session is played on."""

    def __init__(self, world: World, repository: Repository, recorder: Recorder, folder: Path) -> None:
        self.world, self.repository, self.recorder, self.folder = world, repository, recorder, folder
        self.initial: dict[str, bytes] = {}
        self._proxied = dataclasses.replace(repository, gateway=f"{recorder.url}/api/v1")

    def publisher(self, name: str, settings: str = "") -> Publisher:
        """A machine that publishes through the proxy."""
        return self.world.publisher(name, self._proxied, settings=settings)

    def record(self) -> None:
        """Here the session begins. Nobody may hold a lease."""
        replacing = {str(self.world.root): ROOT, f"http://127.0.0.1:{self.world.web_port}": "http://localhost"}
        self.initial = read_initial(self.world.root, self.repository.fqrn, replacing)
        self.recorder.restart()

    def archive(self, fill: content.Change) -> Path:
        """A tar archive of what *fill* puts into an empty directory."""
        source = Path(tempfile.mkdtemp(dir=self.folder))
        fill(source)
        with tarfile.open(f"{source}.tar", "w") as archive:
            for place in sorted(source.iterdir()):
                archive.add(place, place.name)
        return Path(f"{source}.tar")


Scene = Callable[[Stage], Tree]


def _few(top: Path) -> None:
    for folder in ("left", "right", "right/inner"):
        content.put(top / folder / "file", f"in {folder}", moment=1)
    content.put(top / "left/.cvmfscatalog", b"", moment=2)


def new_tree(stage: Stage) -> Tree:
    """A first publish with entries of every kind."""
    alpha = stage.publisher("alpha")
    stage.record()
    return alpha.publish(content.varied)


def changes(stage: Stage) -> Tree:
    """Entries of every kind changed, renamed and removed."""
    alpha = stage.publisher("alpha")
    alpha.publish(content.varied)
    stage.record()
    return alpha.publish(content.varied_again)


def replacements(stage: Stage) -> Tree:
    """Every kind of entry replaced by the next one, under a lease on the directory that they are in."""
    alpha = stage.publisher("alpha")
    kinds = list(content.KINDS)

    def plant(top: Path) -> None:
        (top / "swap").mkdir()
        for kind in kinds:
            content.KINDS[kind](top / f"swap/{kind}")

    def replace(top: Path) -> None:
        for number, kind in enumerate(kinds):
            content.remove(top / f"swap/{kind}")
            content.KINDS[kinds[number - 4]](top / f"swap/{kind}")

    alpha.publish(plant)
    stage.record()
    return alpha.publish(replace, "swap")


def _plant_nested(top: Path) -> None:
    for folder in ("a", "a/b", "a/b/c", "d", "d/e"):
        content.put(top / folder / "file", f"in {folder}", moment=1)
    content.each(("a", "a/b/c", "d"), lambda folder: content.put(folder / ".cvmfscatalog", b""))(top)


def nested_catalogs(stage: Stage) -> Tree:
    """Nested catalogs made and dissolved, one in the other."""
    alpha = stage.publisher("alpha")

    def turn(top: Path) -> None:
        content.each(("a", "a/b/c"), lambda folder: (folder / ".cvmfscatalog").unlink())(top)
        content.each(("a/b", "d/e"), lambda folder: content.put(folder / ".cvmfscatalog", b""))(top)

    alpha.publish(_plant_nested)
    stage.record()
    return alpha.publish(turn)


def below_nested(stage: Stage) -> Tree:
    """A change deep below nested catalogs, under a lease that begins in one of them."""
    alpha = stage.publisher("alpha")
    tree = alpha.publish(_plant_nested)
    stage.record()
    return grafted(tree, "a/b", alpha.publish(lambda top: content.put(top / "a/b/c/more", "more", moment=3), "a/b"))


def outside(stage: Stage) -> Tree:
    """Changes beside those below the lease's path, which are not the publisher's to make and are passed over."""
    alpha = stage.publisher("alpha")
    tree = alpha.publish(_few)

    def trespass(top: Path) -> None:
        content.put(top / "right/inner/new", "rightful", moment=3)
        content.put(top / "right/file", "changed beside it", moment=3)
        content.put(top / "left/new", "in a nested catalog beside it", moment=3)
        content.put(top / "top/file", "above it", moment=3)

    stage.record()
    return grafted(tree, "right/inner", alpha.publish(trespass, "right/inner"))


# Small chunks, for the sake of the fixtures.
_CHUNK_SIZES: Final = "CVMFS_MIN_CHUNK_SIZE=8192\nCVMFS_AVG_CHUNK_SIZE=16384\nCVMFS_MAX_CHUNK_SIZE=32768\n"
_LARGE: Final = content.noise(1, 96 << 10)


def chunked_new(stage: Stage) -> Tree:
    """A file in many chunks."""
    alpha = stage.publisher("alpha", _CHUNK_SIZES)
    alpha.publish(_few)
    stage.record()
    return alpha.publish(lambda top: content.put(top / "large", _LARGE, moment=4))


def chunked_changed(stage: Stage) -> Tree:
    """A file in many chunks that grows in the middle, and one that is cut down to a single object."""
    alpha = stage.publisher("alpha", _CHUNK_SIZES)

    def plant(top: Path) -> None:
        content.put(top / "grows", _LARGE, moment=4)
        content.put(top / "shrinks", _LARGE, moment=4)

    def edit(top: Path) -> None:
        content.put(top / "grows", _LARGE[: 40 << 10] + b"inserted" + _LARGE[40 << 10 :], moment=5)
        content.put(top / "shrinks", _LARGE[:1000], moment=5)

    alpha.publish(plant)
    stage.record()
    return alpha.publish(edit)


def ingest(stage: Stage) -> Tree:
    """An archive with links, a nested catalog and a hard link, into a directory that is not there yet."""
    alpha = stage.publisher("alpha")
    tree = alpha.publish(_few)

    def fill(source: Path) -> None:
        content.put(source / "bin/run", "#!/bin/sh\n", mode=0o755, moment=6)
        (source / "link").symlink_to("bin/run")
        content.stamp(source / "link", 7)
        content.KINDS["nested2"](source / "nested")
        content.put(source / "twins/one", "linked", moment=8)
        (source / "twins/two").hardlink_to(source / "twins/one")

    archive = stage.archive(fill)
    stage.record()
    alpha.ingest(archive.read_bytes(), "right/1.0")
    added = {f"right/1.0/{path}": node for path, node in snapshot(archive.with_suffix("")).items() if path}
    return tree | added | {"right/1.0": Node(0o040755, 0, 0, None)}


def _delete(stage: Stage, gone: str) -> Tree:
    alpha = stage.publisher("alpha")
    tree = alpha.publish(_few)
    stage.record()
    alpha.take_out(gone)
    above = gone.rpartition("/")[0]
    return grafted(tree, gone, {}) | {above: loosened(tree[above])}


def ingest_delete_file(stage: Stage) -> Tree:
    """``ingest -d`` of a file, whose own path is leased."""
    return _delete(stage, "right/file")


def ingest_delete_directory(stage: Stage) -> Tree:
    """``ingest -d`` of a directory."""
    return _delete(stage, "right/inner")


def ingest_delete_nested(stage: Stage) -> Tree:
    """``ingest -d`` of a nested catalog."""
    return _delete(stage, "left")


def publish_commit(stage: Stage) -> Tree:
    """``cvmfs_publish enter`` with ``cvmfs_publish commit``."""
    alpha = stage.publisher("alpha")
    tree = alpha.publish(_few)
    top = alpha.machine.path("/srv/stage")
    content.put(top / "entered/file", "from the inside", moment=9)
    content.put(top / "entered/.cvmfscatalog", b"", moment=9)
    content.stamp(top / "entered", 10)
    stage.record()
    alpha.enter("cp -a /srv/stage/. .\nrm -r right/inner", commit=True)
    added = {path: node for path, node in snapshot(top).items() if path}
    return grafted(tree, "right/inner", {}) | added | {"right": loosened(tree["right"])}


def aborted(stage: Stage) -> Tree:
    """A transaction that is given up."""
    alpha = stage.publisher("alpha")
    tree = alpha.publish(_few)
    stage.record()
    alpha.begin("left")
    content.put(alpha.top / "left/never", "to be seen")
    alpha.abort()
    return tree


def busy(stage: Stage) -> Tree:
    """Leases above, at and below another one are refused; one beside it is granted."""
    alpha, beta = stage.publisher("alpha"), stage.publisher("beta")
    tree = alpha.publish(_few)
    stage.record()
    alpha.begin("right")
    for path in ("", "right", "right/inner"):
        assert beta.begin(path, expect=None).code == 16
    tree = grafted(tree, "left", beta.publish(lambda top: content.put(top / "left/beside", "x", moment=11), "left"))
    content.put(alpha.top / "right/late", "y", moment=12)
    tree = grafted(tree, "right", snapshot(alpha.top))
    alpha.commit()
    return tree


def side_by_side(stage: Stage) -> Tree:
    """Two publishers who both worked on the same base: the second commit is merged, in nested catalogs, too."""
    alpha, beta = stage.publisher("alpha"), stage.publisher("beta")
    tree = alpha.publish(_few)
    stage.record()
    alpha.begin("left")
    beta.begin("right")
    content.put(alpha.top / "left/new", "by alpha", moment=13)
    content.put(alpha.top / "left/sub/.cvmfscatalog", b"", moment=13)
    content.put(beta.top / "right/new", "by beta", moment=14)
    content.put(beta.top / "right/inner/.cvmfscatalog", b"", moment=14)
    left, right = snapshot(alpha.top), snapshot(beta.top)
    beta.commit()
    alpha.commit()
    return grafted(grafted(tree, "left", left), "right", right)


def subscriber(stage: Stage) -> Tree:
    """``cvmfs_swissknife notify -s`` and a mounted client, told of a commit by the publisher with ``notify -p``."""
    alpha = stage.publisher("alpha")
    fqrn, notify = stage.repository.fqrn, ("cvmfs_swissknife", "notify", "-u", f"{stage.recorder.url}/api/v1")
    stage.record()

    def told(revision: int) -> bool:
        last = [stream.messages[-1:] for stream in stage.recorder.told()]
        manifests = [base64.b64decode(messages[0]["manifest"]) for messages in last if messages]
        return sum(b"\nS%d\n" % revision in manifest for manifest in manifests) == 2

    with ExitStack() as stack:
        waiting = subprocess.Popen(
            alpha.machine.command(*notify, "-s", "-c", "-t", fqrn), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        stack.callback(waiting.wait)
        stack.callback(waiting.kill)
        more = {"CVMFS_NOTIFICATION_SERVER": f"{stage.recorder.url}/api/v1", "CVMFS_NFILES": "20000"}
        stack.enter_context(stage.world.client.mount(stage.repository.target, more))
        wait_for("both are told of what is there", lambda: told(1))
        tree = alpha.publish(_few)
        alpha.machine.run(*notify, "-p", "-r", stage.repository.web)
        wait_for("both are told of the commit", lambda: told(2))
    return tree


SCENES: Final[dict[str, Scene]] = {
    scene.__name__.replace("_", "-"): scene
    for scene in (
        new_tree,
        changes,
        replacements,
        nested_catalogs,
        below_nested,
        outside,
        chunked_new,
        chunked_changed,
        ingest,
        ingest_delete_file,
        ingest_delete_directory,
        ingest_delete_nested,
        publish_commit,
        aborted,
        busy,
        side_by_side,
        subscriber,
    )
}
