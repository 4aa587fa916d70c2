"""A full disk: the verdict is by the state of the repository, and by whether the publisher learns the truth."""

from __future__ import annotations

from conformance.consistency import check
from conformance.disk import full
from conformance.outcomes import Failed, equal, expect
from conformance.pack import Pack
from conformance.probe import Probe, accepted, turned_down
from conformance.registry import SAFETY, case, each
from conformance.tree import Tree
from conformance.wire import Reply


def _told(reply: Reply, what: str) -> bool:
    """Whether *reply* says ok; raises :exc:`Failed` for one that a publisher cannot read."""
    if "status" not in reply.json:
        raise Failed(f"{what}: a reply without status: {reply}")
    return bool(reply.json["status"] == "ok")


@case(
    "faults.disk.payload",
    "a payload that finds no room is refused, no half object is visible, and it can be sent again later",
    SAFETY,
    destructive=True,
)
def payload(probe: Probe) -> None:
    store = probe.need(probe.target.store, "--store")
    token, made = probe.acquire(), probe.new_object(2_000_000)
    pack = Pack.of([made])
    with full(store):
        reply = probe.gateway.payload(token, pack)
        turned_down(reply, "a payload with a full disk")
        _told(reply, "payload")
        seen = probe.repository.ask(made.path)
        whole = seen.status == 404 or seen.body == made.data
        expect(whole, f"{len(seen.body)} of {len(made.data)} bytes of the object are visible")
    accepted(probe.gateway.payload(token, pack), "payload sent again")
    equal(probe.repository.stored(made.name), made.data, "content")


@each(
    "faults.disk.commit",
    SAFETY,
    {
        "full": ("a commit with no room at all: the old revision or the new one, and the reply says which", 0),
        "room8": ("a commit with room for 8 kB", 8 << 10),
        "room64": ("a commit with room for 64 kB", 64 << 10),
        "room256": ("a commit with room for 256 kB", 256 << 10),
    },
    destructive=True,
)
def commit(probe: Probe, leave: int) -> None:
    store = probe.need(probe.target.store, "--store")
    top = probe.path()

    def act(tree: Tree) -> None:
        tree.fill(top, 300)

    before = probe.repository.manifest().revision
    built = probe.build(act)
    token = probe.acquire(top)
    probe.send(token, built)
    with full(store, leave):
        reply = probe.gateway.commit(token, built.base, built.root)
        done = _told(reply, "commit")
        after = probe.repository.manifest().revision
        equal(after, before + done, f"published revision after the reply {reply}")
        tree = check(probe.repository)
        expect((tree.get(top) is not None) == done, "the tree is not what the reply says")
    if not done:
        equal(probe.commit(token, built).revision, before + 1, "final_revision when there is room again")
    equal(len(check(probe.repository).children(top)), 301, "files")


@case(
    "faults.disk.lease",
    "with a full disk a lease is refused and the path stays free, or it is granted and can be used",
    SAFETY,
    destructive=True,
)
def lease(probe: Probe) -> None:
    store = probe.need(probe.target.store, "--store")
    path, made = probe.path(), probe.new_object()
    with full(store):
        reply = probe.ask(path)
        done = _told(reply, "lease")
        equal(probe.fqrn + path in probe.listing(), done, f"whether it is listed after the reply {reply}")
    token = reply.json["session_token"] if done else probe.acquire(path)
    accepted(probe.gateway.payload(token, Pack.of([made])), "payload")
    accepted(probe.gateway.drop(token), "drop")


@case(
    "faults.disk.serving",
    "with a full disk manifest and objects are served, and a drop says whether the lease is gone",
    SAFETY,
    destructive=True,
)
def serving(probe: Probe) -> None:
    store = probe.need(probe.target.store, "--store")
    path = probe.path()
    token = probe.acquire(path)
    with full(store):
        expect(probe.repository.tree().children(""), "the root catalog is empty")
        reply = probe.gateway.drop(token)
        done = _told(reply, "drop")
        equal(probe.fqrn + path not in probe.listing(), done, f"whether the lease is gone after the reply {reply}")
    if not done:
        accepted(probe.gateway.drop(token), "drop when there is room again")
    probe.acquire(path)
