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

import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from conformance.gateway import Gateway
from conformance.machines.archive import random_archive
from conformance.machines.carrying import carry_out
from conformance.machines.changes import DEEPEST, LEASED_NAMES, SETTINGS, Maker
from conformance.machines.machine import Finished
from conformance.machines.publisher import BUSY, Publisher
from conformance.machines.revisions import Revisions
from conformance.machines.site import Site
from conformance.machines.snapshot import Tree
from conformance.machines.trees import folders, inside, merged, parent
from conformance.outcomes import Failed, equal, expect
from conformance.probe import accepted, granted


@dataclass
class Open:
    """An open transaction: what is leased, the revision that is mounted, and what is to come of it."""

    scope: str
    revision: int
    base: Tree
    result: Tree

    def on(self, present: Tree) -> Tree:
        """What is to come of it when others have published meanwhile."""
        return merged(self.base, self.result, present, self.scope)


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
    """The run."""

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
        self.site, self.plain = site, plain
        self.random = random.Random(seed)
        self.maker = Maker(self.random, {}, plain=plain)
        self.actors = [Actor(site.publisher(name, settings=SETTINGS)) for name in ("alpha", "beta")]
        self.gateway = Gateway(site.target.gateway, site.target.key, site.target.timeout)
        self.revisions = Revisions(site, mount_every, check or site.check)
        self.lines: list[str] = []
        self.counts: Counter[str] = Counter()

    def run(self, publishes: int) -> None:
        """Go on until so many revisions have been published; raises :exc:`Failed`, which tells the history."""
        try:
            while self.revisions.published < publishes:
                self.step()
            self.finish()
            self.revisions.mount()
        except Failed as failure:
            steps = "\n".join(self.lines[-20:])
            raise Failed(f"{failure}\nat revision {self.revisions.number}; the last steps were\n{steps}") from failure

    def __str__(self) -> str:
        counts = {"published": self.revisions.published, "mounted": self.revisions.mounted, **self.counts}
        return f"{len(self.lines)} steps: {', '.join(f'{what} {count}' for what, count in sorted(counts.items()))}"

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
        fit = [
            path
            for path in folders(self.revisions.present, top)
            if set(filter(None, path.split("/"))) <= set(LEASED_NAMES)
        ]
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
        base = self.revisions.models[revision]
        if scope and (parent(scope) not in base or not base[parent(scope)].is_directory):
            self.say(f"{actor.name} has revision {revision} mounted, which has no place for {scope!r}, and aborts")
            actor.publisher.abort()
            return
        self.counts["begun on an old mount"] += revision < self.revisions.number
        result = self.maker.edited(base, scope, most)
        changes = _summary(base, result)
        self.say(f"{actor.name} begins on {scope!r} at revision {revision} of {self.revisions.number}: {changes}")
        carry_out(actor.publisher.top, base, result, self.maker.contents)
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
        equal(self.site.revision, self.revisions.number, "the revision after an abort")

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
        self.counts["published from an old base"] += sum(each.revision < self.revisions.number for each in opened)
        if len(opened) == 1:
            self.revisions.add(opened[0].on(self.revisions.present))
        else:
            self.counts["published two at once"] += 1
            self.revisions.add_both(*opened)

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
        present = self.revisions.present
        if self.random.random() < 0.3 and scope in present:
            self.say(f"{actor.name} takes out {scope!r}")
            actor.publisher.take_out(scope)
            result = {path: node for path, node in present.items() if not inside(path, scope)}
        else:
            if scope in present and not present[scope].is_directory:
                return
            archive = random_archive(self.maker, present, scope)
            if archive is None:
                return
            result = archive.result
            self.say(f"{actor.name} takes an archive in at {scope!r} {archive.options}: {_summary(present, result)}")
            actor.publisher.ingest(archive.data, scope, *archive.options)
        # The tool may touch the directory that its work is in, or leave it alone.
        above = parent(scope)
        result[above] = replace(result[above], mtime=None)
        self.counts["ingested"] += 1
        self.revisions.add(result)


def _summary(base: Tree, result: Tree) -> str:
    """The changes, in words."""
    gone = [f"-{path!r}" for path in base if path not in result]
    changed = [f"{'*' if path in base else '+'}{path!r}" for path in result if base.get(path) != result[path]]
    return " ".join(gone + changed)
