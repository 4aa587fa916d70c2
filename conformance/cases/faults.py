"""A bad network between publisher and gateway: the verdict is by the repository and by what the publisher learns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from conformance.chaos import ChaosProxy, Fault, chaos
from conformance.consistency import check
from conformance.gateway import Gateway
from conformance.outcomes import Failed, equal, expect
from conformance.pack import Pack
from conformance.probe import Probe, accepted, refused
from conformance.registry import SAFETY, case, each, issue
from conformance.tree import Built, Tree
from conformance.wire import Reply


@contextlib.contextmanager
def network(probe: Probe) -> Iterator[tuple[ChaosProxy, Gateway]]:
    """A proxy, and the gateway as it is reached through that."""
    with chaos(probe.gateway.url.text) as proxy:
        yield proxy, Gateway(proxy.url, probe.target.key, probe.target.timeout)


def _lost(ask: Callable[[], object]) -> None:
    """A request whose reply must not arrive."""
    try:
        reply = ask()
    except (OSError, Failed):
        return
    raise Failed(f"the proxy let it through: {reply}")


def _ready(probe: Probe, top: str) -> tuple[str, Built]:
    built = probe.build(lambda tree: tree.make_directories(top))
    token = probe.acquire(top)
    return token, built


@each(
    "faults.payload.cut",
    "one broken connection must not block the gateway for good",
    {
        "head": ("a payload cut within its HTTP head can be sent again", 60),
        "json": ("a payload cut within its JSON can be sent again", 420),
        "half": ("a payload cut in the middle of an object can be sent again", 50_000),
    },
)
def payload_cut(probe: Probe, size: int) -> None:
    token, made = probe.acquire(), probe.new_object(100_000)
    pack = Pack.of([made])
    with network(probe) as (proxy, gateway):
        proxy.next(Fault("cut_request", size))
        _lost(lambda: gateway.payload(token, pack))
    accepted(probe.gateway.payload(token, pack), "payload sent again")
    expect(probe.repository.has(made.name), "the object is missing")


@case("faults.payload.half.invisible", "half an object is never visible", SAFETY)
def half_object(probe: Probe) -> None:
    token, made = probe.acquire(), probe.new_object(400_000)
    with network(probe) as (proxy, gateway):
        proxy.next(Fault("cut_request", 200_000))
        _lost(lambda: gateway.payload(token, Pack.of([made])))
    reply = probe.repository.ask(made.path)
    expect(reply.status == 404 or reply.body == made.data, f"{len(reply.body)} of {len(made.data)} bytes are there")


@case("faults.payload.reply.lost", "a payload whose reply is lost can be sent again", SAFETY)
def payload_reply_lost(probe: Probe) -> None:
    token, made = probe.acquire(), probe.new_object(10_000)
    pack = Pack.of([made])
    with network(probe) as (proxy, gateway):
        proxy.next(Fault("cut_reply"))
        _lost(lambda: gateway.payload(token, pack))
        accepted(gateway.payload(token, pack), "payload sent again")
    expect(probe.repository.has(made.name), "the object is missing")


@case("faults.payload.reply.cut", "a payload whose reply is cut in the middle can be sent again", SAFETY)
def payload_reply_cut(probe: Probe) -> None:
    token, made = probe.acquire(), probe.new_object(10_000)
    pack = Pack.of([made])
    with network(probe) as (proxy, gateway):
        proxy.next(Fault("truncate", 40))
        _lost(lambda: gateway.payload(token, pack).json)
        accepted(gateway.payload(token, pack), "payload sent again")
    expect(probe.repository.has(made.name), "the object is missing")


@case("faults.payload.duplicate", "a payload that arrives twice is stored once, and both are ok", SAFETY)
def payload_duplicate(probe: Probe) -> None:
    token, made = probe.acquire(), probe.new_object(10_000)
    with network(probe) as (proxy, gateway):
        proxy.next(Fault("duplicate"))
        accepted(gateway.payload(token, Pack.of([made])), "payload")
    equal(probe.repository.stored(made.name), made.data, "content")


@case("faults.payload.slow", "a payload that trickles in does not keep another publisher waiting", issue(3400))
def payload_slow(probe: Probe) -> None:
    slow, quick = probe.acquire(), probe.acquire()
    large, small = probe.new_object(60_000), probe.new_object()
    answered: list[Reply] = []
    with network(probe) as (proxy, gateway):
        proxy.next(Fault("trickle", 3_000, 0.1))

        def trickle() -> float:
            return gateway.payload(slow, Pack.of([large])).seconds

        def other() -> float:
            probe.until("a lease is granted meanwhile", lambda: probe.acquire())
            answered.append(probe.gateway.payload(quick, Pack.of([small])))
            return answered[0].seconds

        slow_seconds, quick_seconds = probe.together(trickle, other)
    accepted(answered[0], "the other payload")
    expect(quick_seconds < slow_seconds / 2, f"it waited {quick_seconds:.1f} s of {slow_seconds:.1f} s")


@case("faults.commit.reply.lost", "a commit whose reply is lost can be asked again and tells its revision", issue(3128))
def commit_reply_lost(probe: Probe) -> None:
    top = probe.path()
    before = probe.repository.manifest().revision
    token, built = _ready(probe, top)
    probe.send(token, built)
    with network(probe) as (proxy, gateway):
        proxy.next(Fault("cut_reply"))
        _lost(lambda: gateway.commit(token, built.base, built.root))
        reply = accepted(gateway.commit(token, built.base, built.root), "commit asked again")
    equal(reply.get("final_revision"), before + 1, "final_revision")
    check(probe.repository).need(top)


@case("faults.commit.reply.cut", "a commit whose reply is cut in the middle can be asked again", issue(3128))
def commit_reply_cut(probe: Probe) -> None:
    top = probe.path()
    token, built = _ready(probe, top)
    probe.send(token, built)
    with network(probe) as (proxy, gateway):
        proxy.next(Fault("truncate", 40))
        _lost(lambda: gateway.commit(token, built.base, built.root).json)
        accepted(gateway.commit(token, built.base, built.root), "commit asked again")
    check(probe.repository).need(top)


@each(
    "faults.commit",
    SAFETY,
    {
        "delay": ("a commit whose reply comes late is one revision", Fault("delay", seconds=1.5)),
        "slow": ("a commit whose request trickles in is one revision", Fault("trickle", 40, 0.05)),
    },
)
def commit_late(probe: Probe, fault: Fault) -> None:
    top = probe.path()
    before = probe.repository.manifest().revision
    token, built = _ready(probe, top)
    probe.send(token, built)
    with network(probe) as (proxy, gateway):
        proxy.next(fault)
        reply = accepted(gateway.commit(token, built.base, built.root), "commit")
    equal(reply.get("final_revision"), before + 1, "final_revision")
    check(probe.repository).need(top)


@case(
    "faults.commit.duplicate",
    "a commit that arrives twice is one revision, and the publisher learns of success",
    issue(3128),
)
def commit_duplicate(probe: Probe) -> None:
    top = probe.path()
    before = probe.repository.manifest().revision
    token, built = _ready(probe, top)
    probe.send(token, built)
    with network(probe) as (proxy, gateway):
        proxy.next(Fault("duplicate"))
        reply = gateway.commit(token, built.base, built.root)
    equal(probe.repository.manifest().revision, before + 1, "published revision")
    accepted(reply, "commit")


@case("faults.commit.cut", "a commit whose request is cut changes nothing, and can be asked again", SAFETY)
def commit_cut(probe: Probe) -> None:
    top = probe.path()
    before = probe.repository.manifest().revision
    token, built = _ready(probe, top)
    probe.send(token, built)
    with network(probe) as (proxy, gateway):
        proxy.next(Fault("cut_request", 300))
        _lost(lambda: gateway.commit(token, built.base, built.root))
    equal(probe.repository.manifest().revision, before, "revision after the cut")
    probe.commit(token, built)
    check(probe.repository).need(top)


@case(
    "faults.lease.reply.lost", "a lease whose reply is lost is listed, so that an administrator can cancel it", SAFETY
)
def lease_reply_lost(probe: Probe) -> None:
    path, admin = probe.path(), probe.admin
    with network(probe) as (proxy, gateway):
        proxy.next(Fault("cut_reply"))
        _lost(lambda: gateway.acquire(probe.fqrn + path))
    expect(probe.fqrn + path in probe.listing(), "it is not listed")
    accepted(probe.gateway.cancel_by_path(probe.fqrn + path, key=admin), "cancel")
    probe.acquire(path)


@case("faults.lease.cut", "a request for a lease that is cut leases nothing", SAFETY)
def lease_cut(probe: Probe) -> None:
    path = probe.path()
    with network(probe) as (proxy, gateway):
        proxy.next(Fault("cut_request", 230))
        _lost(lambda: gateway.acquire(probe.fqrn + path))
    expect(probe.fqrn + path not in probe.listing(), "it is listed")
    probe.acquire(path)


@case(
    "faults.lease.duplicate",
    "a request for a lease that arrives twice is one lease, and the second finds it busy",
    SAFETY,
)
def lease_duplicate(probe: Probe) -> None:
    path, admin = probe.path(), probe.admin
    with network(probe) as (proxy, gateway):
        proxy.next(Fault("duplicate"))
        reply = gateway.acquire(probe.fqrn + path)
    equal(reply.json.get("status"), "path_busy", "status")
    expect(probe.fqrn + path in probe.listing(), "it is not listed")
    accepted(probe.gateway.cancel_by_path(probe.fqrn + path, key=admin), "cancel")


@case("faults.drop.reply.lost", "a drop whose reply is lost leaves the path free, and the next drop says so", SAFETY)
def drop_reply_lost(probe: Probe) -> None:
    path = probe.path()
    token = probe.acquire(path)
    with network(probe) as (proxy, gateway):
        proxy.next(Fault("cut_reply"))
        _lost(lambda: gateway.drop(token))
        refused(gateway.drop(token), "a second drop")
    probe.acquire(path)


@case("faults.drop.duplicate", "a drop that arrives twice leaves the path free", SAFETY)
def drop_duplicate(probe: Probe) -> None:
    path = probe.path()
    token = probe.acquire(path)
    with network(probe) as (proxy, gateway):
        proxy.next(Fault("duplicate"))
        gateway.drop(token)
    probe.acquire(path)


@case("faults.whole", "a publish through a network that loses every first reply ends with the right revision", SAFETY)
def whole(probe: Probe) -> None:
    top = probe.path()

    def act(tree: Tree) -> None:
        tree.make_directories(top)
        tree.put_file(f"{top}/file", b"x")

    built = probe.build(act)
    token = probe.acquire(top)
    with network(probe) as (proxy, gateway):
        proxy.next(Fault("cut_reply"), Fault(), Fault("cut_reply"))
        _lost(lambda: gateway.payload(token, Pack.of(built.objects)))
        accepted(gateway.payload(token, Pack.of(built.objects)), "payload sent again")
        _lost(lambda: gateway.commit(token, built.base, built.root))
        accepted(gateway.commit(token, built.base, built.root), "commit asked again")
    check(probe.repository).need(f"{top}/file")
