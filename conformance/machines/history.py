"""Random histories by two publishers, against a plain model.

Two machines work on one repository: transactions on disjoint paths and on all of it, begun, committed and aborted in
any order, so that whoever commits later has an old base; two commits at the same moment; archives taken in and paths
taken out with ``ingest``; leases that were given up and taken again after somebody else published in the same place.
After each publish the programs' checker finds nothing wrong, and the catalogs hold what the model says; now and then
(or each time) so does a fresh client mount.

A *plain* history is what release 2.12 itself stands up to: ordinary files, directories and links, publishers that take
turns, each on the present revision.
"""

from __future__ import annotations

import io
import os
import random
import stat
import tarfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from conformance.gateway import Gateway
from conformance.machines.changes import (
    DEEPEST,
    LEASED_NAMES,
    MARKER,
    SETTINGS,
    Maker,
    empty,
    folders,
    inside,
    marked,
    merged,
    parent,
)
from conformance.machines.machine import Finished
from conformance.machines.published import Published
from conformance.machines.publisher import BUSY, Publisher
from conformance.machines.site import Site, same
from conformance.machines.snapshot import Node, Tree, differences
from conformance.model import Failed, equal, expect
from conformance.probe import accepted, granted

_KEPT = 50
"""How many revisions a publisher's mount may lag behind."""


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
        self.name = publisher.name
        self.open: Open | None = None

    def mounted(self) -> int:
        """The revision that its read-only branch shows."""
        place = self.publisher.machine.path(f"/var/spool/cvmfs/{self.publisher.fqrn}/rdonly")
        return int(os.getxattr(place, "user.revision"))


class RandomHistory:
    """The run. *models* are what each revision holds at and below the site's base."""

    def __init__(
        self,
        site: Site,
        seed: int,
        *,
        plain: bool = False,
        mount_every: int = 1,
        check: Callable[[], None] | None = None,
    ) -> None:
        """*mount_every*: so many publishes from one client mount to the next. *check* in place of the site's own."""
        self.site, self.plain, self.mount_every = site, plain, mount_every
        self.check = check or site.check
        self.random = random.Random(seed)
        self.maker = Maker(self.random, {}, plain=plain)
        self.actors = [Actor(site.publisher(name, settings=SETTINGS)) for name in ("alpha", "beta")]
        self.published_tree = Published(site.repository, f"/{site.base}".rstrip("/"))
        self.gateway = Gateway(site.target.gateway, site.target.key, site.target.timeout)
        self.revision = site.revision
        self.models: dict[int, Tree] = {self.revision: empty()}
        self.lines: list[str] = []
        self.counts: Counter[str] = Counter()

    def run(self, publishes: int) -> None:
        """Go on until so many revisions have been published; raises :exc:`Failed`, which tells the history."""
        try:
            while self.counts["published"] < publishes:
                self.step()
            self.finish()
            self.mount()
        except Failed as failure:
            steps = "\n".join(self.lines[-20:])
            raise Failed(f"{failure}\nat revision {self.revision}; the last steps were\n{steps}") from failure

    def __str__(self) -> str:
        counts = ", ".join(f"{what} {count}" for what, count in sorted(self.counts.items()))
        return f"{len(self.lines)} steps: {counts}"

    @property
    def present(self) -> Tree:
        return self.models[self.revision]

    def say(self, text: str) -> None:
        self.lines.append(f"{len(self.lines)}: {text}")

    # -- steps

    def step(self) -> None:
        """One random step of a random publisher."""
        actor, other = self.random.sample(self.actors, 2)
        if self.plain:
            self.plain_step(actor, other)
        elif actor.open is None:
            if self.random.random() < 0.15:
                self.ingest(actor, other)
            elif other.open is not None and self.random.random() < 0.1:
                self.refused(actor, other.open.scope)
            elif (scope := self._free_scope(other)) is not None:
                self.begin(actor, scope)
        else:
            self.end(actor, other)

    def plain_step(self, actor: Actor, other: Actor) -> None:
        """A transaction from its begin to its end, in which the other one is refused now and then."""
        self.begin(actor, self._scope(""))
        if actor.open is None:
            return
        if self.random.random() < 0.2:
            self.refused(other, actor.open.scope)
        if self.random.random() < 0.1:
            self.abort(actor)
        else:
            self.commit(actor)

    def end(self, actor: Actor, other: Actor) -> None:
        """One way or another."""
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
        refusal = actor.publisher.begin(scope, expect=None)
        expect(refusal.code == BUSY, f"a busy path: {refusal}")
        self.counts["refused"] += 1

    def abort(self, actor: Actor) -> None:
        self.say(f"{actor.name} aborts")
        actor.publisher.abort()
        actor.open = None
        self.counts["aborted"] += 1
        equal(self.site.revision, self.revision, "the revision after an abort")

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
            expect(results[actor.name].code == 0, f"a publish: {results[actor.name]}")
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
        seen, _ = self.published_tree.read(self.published_tree.previous_root())
        middle = merged(first.base, first.result, self.present, first.scope)
        if differences(middle, seen, nanoseconds=True):
            first, second = second, first
            middle = merged(first.base, first.result, self.present, first.scope)
        same(middle, seen, "the revision between two publishes at the same moment holds")
        self._new_revision(middle, first)
        self.published(merged(second.base, second.result, self.present, second.scope), second)

    def lapse(self, actor: Actor, other: Actor) -> None:
        """The lease ends, the other publishes in the same place, and the lease is taken again for the old work."""
        assert actor.open is not None
        scope = actor.open.scope
        self.say(f"{actor.name} gives up its lease")
        accepted(self.gateway.drop(actor.publisher.token_file.read_text().strip()), "drop")
        self.begin(other, self._scope(scope))
        if other.open is not None:
            self.commit(other)
        self.say(f"{actor.name} takes its lease again")
        path = f"{self.site.target.fqrn}/{actor.publisher.place(scope)}"
        actor.publisher.token_file.write_text(granted(self.gateway.acquire(path)))
        self.counts["published over newer changes in the lease"] += 1
        self.commit(actor)

    def ingest(self, actor: Actor, other: Actor) -> None:
        scope = self._free_scope(other)
        if not scope:
            return
        present, revision = self.present, self.revision
        if self.random.random() < 0.3 and scope in present:
            self.say(f"{actor.name} takes out {scope!r}")
            actor.publisher.take_out(scope)
            result = {path: node for path, node in present.items() if not inside(path, scope)}
        else:
            if scope in present and not present[scope].is_directory:
                return
            result, archive, options = self._archive(scope)
            if archive is None:
                return
            self.say(f"{actor.name} takes an archive in at {scope!r} {options}: {_summary(present, result)}")
            actor.publisher.ingest(archive, scope, *options)
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

    def _new_revision(self, tree: Tree, opened: Open) -> None:
        self.counts["published"] += 1
        self.counts["published from an old base"] += opened.revision < self.revision
        self.revision += 1
        self.models[self.revision] = tree
        for old in [revision for revision in self.models if revision < self.revision - _KEPT]:
            del self.models[old]

    def published(self, tree: Tree, opened: Open) -> None:
        """There is a new revision that holds *tree*: see that it does."""
        self._new_revision(tree, opened)
        equal(self.site.revision, self.revision, "the published revision")
        seen, mountpoints = self.published_tree.read()
        same(tree, seen, f"revision {self.revision} holds")
        equal(sorted(mountpoints), sorted(marked(tree)), "nested catalogs")
        # What the model could not know it takes over.
        for path, node in tree.items():
            if path and node.mtime is None:
                tree[path] = replace(node, mtime=seen[path].mtime)
        self.check()
        if self.counts["published"] % self.mount_every == 0:
            self.mount()

    def mount(self) -> None:
        """A fresh client sees the model as well."""
        self.counts["mounted"] += 1
        same(self.present, self.site.client.mounted(self.site.target, self.site.base), "a client sees")


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
