"""Random histories by two of the deployed publishers, against a plain model.

Two machines work on one repository: transactions on disjoint paths and on the root, begun, committed and aborted in any
order, so that whoever commits later has an old base; two commits at the same moment; archives taken in and paths taken
out with ``ingest``; leases that were given up and taken again after somebody else published in the same place. After
each publish the checker of the deployed programs finds nothing wrong, and the catalogs hold what the model says; now
and then so does a fresh client mount.

``CVMFS_GW_TRANSACTIONS`` is how many revisions are published, ``CVMFS_GW_SEED`` repeats a history, and
``CVMFS_GW_MOUNT_EVERY`` how many publishes there are from one client mount to the next.
"""

from __future__ import annotations

import io
import os
import random
import stat
import tarfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from cvmfs_gw.client.gateway import GatewayClient, read_key_file
from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_objstore.formats.manifest import Manifest, SignedManifest
from cvmfs_objstore.hashes import ContentHash
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.objects import ObjectStore
from tests.e2e.history import (
    DEEPEST,
    LEASED_NAMES,
    MARKER,
    SETTINGS,
    CatalogReader,
    Maker,
    empty,
    folders,
    inside,
    marked,
    merged,
    parent,
)
from tests.e2e.machines import Finished
from tests.e2e.snapshot import Node, Tree, differences
from tests.e2e.world import Publisher, Repository, World

FQRN = "random.example.org"
TRANSACTIONS = int(os.environ.get("CVMFS_GW_TRANSACTIONS", "15"))
SEED = int(os.environ.get("CVMFS_GW_SEED", "6"))
MOUNT_EVERY = int(os.environ.get("CVMFS_GW_MOUNT_EVERY", "15"))


@dataclass
class Open:
    """An open transaction: what is leased, the revision that is mounted, and what is to come of it."""

    scope: str
    revision: int
    base: Tree
    result: Tree


class Actor:
    """One publisher and what it is at."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.name = publisher.machine.name
        self.open: Open | None = None

    def mounted(self) -> int:
        """The revision that its read-only branch shows."""
        place = self.publisher.machine.path(f"/var/spool/cvmfs/{FQRN}/rdonly")
        return int(os.getxattr(place, "user.revision"))

    @property
    def token_file(self) -> Path:
        return self.publisher.machine.path(f"/var/spool/cvmfs/{FQRN}/session_token")


class RandomHistory:
    """The run. *models* are what each revision holds."""

    def __init__(self, world: World, repository: Repository, seed: int) -> None:
        self.world, self.repository = world, repository
        self.random = random.Random(seed)
        self.maker = Maker(self.random, {})
        self.actors = [Actor(world.publisher(name, repository, settings=SETTINGS)) for name in ("alpha", "beta")]
        self.storage = LocalStorage(str(repository.storage), durable=False)
        self.objects = ObjectStore(self.storage)
        self.reader = CatalogReader(CatalogStore(self.objects))
        key = read_key_file(str(repository.folder / f"etc/cvmfs/keys/{FQRN}.gw"))
        self.gateway = GatewayClient(repository.gateway, key)
        self.revision = repository.revision
        self.models: dict[int, Tree] = {self.revision: empty()}
        self.lines: list[str] = []
        self.counts: Counter[str] = Counter()

    @property
    def present(self) -> Tree:
        return self.models[self.revision]

    def say(self, text: str) -> None:
        self.lines.append(f"{len(self.lines)}: {text}")

    # -- steps

    def step(self) -> None:
        """One random step of a random publisher."""
        actor, other = self.random.sample(self.actors, 2)
        if actor.open is None:
            if self.random.random() < 0.15:
                self.ingest(actor, other)
            elif other.open is not None and self.random.random() < 0.1:
                self.refused(actor, other.open.scope)
            elif (scope := self._free_scope(other)) is not None:
                self.begin(actor, scope)
            return
        chance = self.random.random()
        if chance < 0.1:
            self.abort(actor)
        elif chance < 0.3 and other.open is None:
            self.lapse(actor, other)
        elif chance < 0.5 and other.open is not None:
            self.commit(actor, other)
        else:
            self.commit(actor)

    def finish(self) -> None:
        """Commit what is open."""
        for actor in self.actors:
            if actor.open is not None:
                self.commit(actor)

    def _free_scope(self, other: Actor) -> str | None:
        """A path for a lease that the other's does not overlap; None if none was found."""
        taken = other.open.scope if other.open is not None else None
        for _ in range(20):
            scope = self._scope("")
            if taken is None or not (inside(scope, taken) or inside(taken, scope)):
                return scope
        return None

    def _scope(self, top: str) -> str:
        """A path at or below *top* to take a lease on, there or not, whose parent is a directory."""
        if not top and self.random.random() < 0.12:
            return ""
        fit = [path for path in folders(self.present, top) if set(filter(None, path.split("/"))) <= set(LEASED_NAMES)]
        fit = [path for path in fit if path.count("/") < DEEPEST]
        if not fit or (top and self.random.random() < 0.3):
            return top
        place = self.random.choice(fit)
        # Half of the time something at the top, or all would happen far down in the end.
        place = top if self.random.random() < 0.5 and top in fit else place
        return f"{place}/{self.random.choice(LEASED_NAMES)}".lstrip("/")

    def begin(self, actor: Actor, scope: str, most: int = 6) -> None:
        actor.publisher.begin(scope)
        revision = actor.mounted()
        base = self.models[revision]
        if scope and (parent(scope) not in base or not base[parent(scope)].is_directory):
            self.say(f"{actor.name} has revision {revision} mounted, which has no place for {scope!r}, and aborts")
            actor.publisher.abort()
            return
        self.counts["begun on an old mount"] += revision < self.revision
        result = self.maker.edited(base, scope, most)
        changes = _summary(base, result)
        self.say(f"{actor.name} begins on {scope!r} at revision {revision} of {self.revision}: {changes}")
        self.maker.carry_out(actor.publisher.top, base, result)
        actor.open = Open(scope, revision, base, result)

    def refused(self, actor: Actor, taken: str) -> None:
        """Ask for a lease at or above the other's."""
        scope = self.random.choice([taken, taken.rpartition("/")[0]])
        self.say(f"{actor.name} is refused {scope!r}")
        assert actor.publisher.begin(scope, expect=None).code == 16
        self.counts["refused"] += 1

    def abort(self, actor: Actor) -> None:
        self.say(f"{actor.name} aborts")
        actor.publisher.abort()
        actor.open = None
        self.counts["aborted"] += 1
        assert self.repository.revision == self.revision

    def commit(self, *actors: Actor) -> None:
        """Publish one transaction, or two at the same moment."""
        results: dict[str, Finished] = {}

        def publish(actor: Actor) -> None:
            results[actor.name] = actor.publisher.commit(expect=None)

        self.say(f"{' and '.join(actor.name for actor in actors)} publish")
        threads = [threading.Thread(target=publish, args=(actor,)) for actor in actors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for actor in actors:
            assert results[actor.name].code == 0, results[actor.name]
        opened = [actor.open for actor in actors if actor.open is not None]
        for actor in actors:
            actor.open = None
        first = opened[0]
        if len(opened) == 1:
            self.published(merged(first.base, first.result, self.present, first.scope), first)
            return
        self.counts["published two at once"] += 1
        second = opened[1]
        # Which came first is not known from outside: the revision in between tells.
        seen, _ = self.reader.read(self._previous_root())
        middle = merged(first.base, first.result, self.present, first.scope)
        if differences(middle, seen, nanoseconds=True):
            first, second = second, first
            middle = merged(first.base, first.result, self.present, first.scope)
        wrong = differences(middle, seen, nanoseconds=True)
        assert not wrong, "\n".join(["the revision in between is neither's:", *wrong[:40]])
        self._new_revision(middle, first)
        self.published(merged(second.base, second.result, self.present, second.scope), second)

    def lapse(self, actor: Actor, other: Actor) -> None:
        """The lease ends, the other publishes in the same place, and the lease is taken again for the old work."""
        assert actor.open is not None
        scope = actor.open.scope
        self.say(f"{actor.name} gives up its lease")
        self.gateway.release(actor.token_file.read_text().strip())
        self.begin(other, self._scope(scope))
        if other.open is not None:
            self.commit(other)
        self.say(f"{actor.name} takes its lease again")
        actor.token_file.write_text(self.gateway.acquire(f"{FQRN}/{scope}"))
        self.counts["published over newer changes in the lease"] += 1
        self.commit(actor)

    def ingest(self, actor: Actor, other: Actor) -> None:
        scope = self._free_scope(other)
        if not scope:
            return
        present, revision = self.present, self.revision
        if self.random.random() < 0.3 and scope in present:
            self.say(f"{actor.name} takes out {scope!r}")
            actor.publisher.ingest("-d", scope)
            result = {path: node for path, node in present.items() if not inside(path, scope)}
        else:
            if scope in present and not present[scope].is_directory:
                return
            result, archive, options = self._archive(scope)
            if archive is None:
                return
            self.say(f"{actor.name} takes an archive in at {scope!r} {options}: {_summary(present, result)}")
            actor.publisher.machine.write("/srv/archive.tar", archive)
            actor.publisher.ingest("-t", "/srv/archive.tar", "-b", scope, *options)
        # The tool may touch the directory that its work is in, or leave it alone.
        above = parent(scope)
        result[above] = replace(result[above], mtime=None)
        self.counts["ingested"] += 1
        self.published(result, Open(scope, revision, present, result))

    def _archive(self, scope: str) -> tuple[Tree, bytes | None, list[str]]:
        """What there will be, an archive for it (None: there would be nothing in it), and options."""
        maker = Maker(self.random, self.maker.contents, whole_seconds=True)
        made = maker.edited(empty(), "", 8)
        present, result = self.present, dict(self.present)
        options: list[str] = []
        if scope not in result:
            result[scope] = Node(stat.S_IFDIR | 0o755, 0, 0, None)
            if self.random.random() < 0.3:
                options.append("-c")
        buffer = io.BytesIO()
        refused: list[str] = []
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for path in sorted(set(made) - {""}):
                node = replace(made[path], uid=0, gid=0, xattrs=())
                place = f"{scope}/{path}"
                old = present.get(place)
                # Neither below what is refused, nor of another kind than what is there, nor a marker for what is there.
                fits = old is None or (old.is_directory and node.is_directory) or (old.sha1 and node.sha1)
                is_marker = path.rpartition("/")[2] == MARKER
                in_old = is_marker and parent(place) in present
                if in_old or stat.S_ISSOCK(node.mode) or any(inside(path, no) for no in refused) or not fits:
                    refused.append(path)
                    continue
                archive.addfile(_member(path, node), io.BytesIO(maker.contents.get(node.sha1 or "", b"")))
                if old is None or not old.is_directory:
                    result[place] = node
        if "-c" in options:
            marker = maker.file(0)
            result[f"{scope}/{MARKER}"] = replace(marker, mode=0o100664, uid=0, gid=0, mtime=None, xattrs=())
        return result, buffer.getvalue() if len(refused) < len(made) - 1 else None, options

    # -- checks

    def _head(self) -> Manifest:
        return SignedManifest.parse(self.storage.read(".cvmfspublished")).manifest

    def _previous_root(self) -> ContentHash:
        with CatalogStore(self.objects).load(self._head().root_hash) as catalog:
            previous = catalog.previous_revision
        assert previous is not None
        return previous

    def _new_revision(self, tree: Tree, opened: Open) -> None:
        self.counts["published"] += 1
        self.counts["published from an old base"] += opened.revision < self.revision
        self.revision += 1
        self.models[self.revision] = tree
        for old in [revision for revision in self.models if revision < self.revision - 50]:
            del self.models[old]

    def published(self, tree: Tree, opened: Open) -> None:
        """There is a new revision that holds *tree*: see that it does."""
        self._new_revision(tree, opened)
        head = self._head()
        assert head.revision == self.revision
        seen, mountpoints = self.reader.read(head.root_hash)
        wrong = differences(tree, seen, nanoseconds=True)
        assert not wrong, "\n".join([f"revision {self.revision} holds something else than the model:", *wrong[:40]])
        assert mountpoints == marked(tree)
        # What the model could not know it takes over.
        for path, node in tree.items():
            if path and node.mtime is None:
                tree[path] = replace(node, mtime=seen[path].mtime)
        self.world.check(self.repository)
        if self.counts["published"] % MOUNT_EVERY == 0:
            self.mount()

    def mount(self) -> None:
        """A fresh client sees the model as well."""
        self.counts["mounted"] += 1
        wrong = differences(self.present, self.world.mounted(self.repository), nanoseconds=True)
        assert not wrong, "\n".join(["a client sees something else than the model:", *wrong[:40]])


def _member(path: str, node: Node) -> tarfile.TarInfo:
    """An entry as a member of an archive."""
    member = tarfile.TarInfo(path)
    kinds = {
        stat.S_IFDIR: tarfile.DIRTYPE,
        stat.S_IFREG: tarfile.REGTYPE,
        stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFIFO: tarfile.FIFOTYPE,
        stat.S_IFCHR: tarfile.CHRTYPE,
        stat.S_IFBLK: tarfile.BLKTYPE,
    }
    member.type = kinds[stat.S_IFMT(node.mode)]
    member.mode = stat.S_IMODE(node.mode)
    member.mtime = (node.mtime or 0) // 10**9
    member.size = node.size or 0
    member.linkname = node.target or ""
    member.devmajor, member.devminor = os.major(node.device or 0), os.minor(node.device or 0)
    return member


def _summary(base: Tree, result: Tree) -> str:
    """The changes, in words."""
    gone = [f"-{path!r}" for path in base if path not in result]
    changed = [f"{'*' if path in base else '+'}{path!r}" for path in result if base.get(path) != result[path]]
    return " ".join(gone + changed)


def test_random_history(world: World) -> None:
    repository = world.mkfs(FQRN)
    world.serve()
    history = RandomHistory(world, repository, SEED)
    started = time.monotonic()
    try:
        while history.counts["published"] < TRANSACTIONS:
            history.step()
        history.finish()
        history.mount()
    except BaseException:
        print(f"--- seed {SEED}, step {len(history.lines)}, revision {history.revision}; the history:")
        print("\n".join(history.lines))
        raise
    finally:
        seconds = time.monotonic() - started
        counts = ", ".join(f"{what} {count}" for what, count in sorted(history.counts.items()))
        print(f"seed {SEED}, {len(history.lines)} steps in {seconds:.0f} s: {counts}")
