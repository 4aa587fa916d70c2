"""Several at once: nobody loses work, nobody gets what only one can have."""

from __future__ import annotations

import threading
from collections.abc import Callable

from conformance.consistency import check
from conformance.outcomes import equal, expect
from conformance.pack import Pack
from conformance.probe import Commit, Probe, accepted, refused
from conformance.registry import API, SAFETY, case, each, issue
from conformance.tree import Tree
from conformance.wire import Reply

_WRITERS = 8


def _directory(path: str) -> Callable[[Tree], None]:
    return lambda tree: tree.make_directories(path)


def _times(count: int, job: Callable[[int], Callable[[], Reply]]) -> list[Callable[[], Reply]]:
    return [job(number) for number in range(count)]


@case("concurrency.lease.same", "of sixteen who ask for one path at once, one gets it and fifteen find it busy", API)
def same_path(probe: Probe) -> None:
    path = probe.path()
    replies = probe.together(*_times(16, lambda _: lambda: probe.ask(path)))
    found = sorted(str(reply.json.get("status")) for reply in replies)
    equal(found, ["ok"] + ["path_busy"] * 15, "status")


@case(
    "concurrency.lease.overlap",
    "of those who ask for a path and paths below it at once, no two that overlap get one",
    API,
)
def overlapping(probe: Probe) -> None:
    top = probe.path()
    paths = [top, f"{top}/a", f"{top}/a/b", f"{top}/c"] * 4
    replies = probe.together(*_times(16, lambda n: lambda: probe.ask(paths[n])))
    got = [paths[n] for n, reply in enumerate(replies) if reply.json.get("status") == "ok"]
    expect(got, "nobody got a lease")
    for number, path in enumerate(got):
        others = got[:number] + got[number + 1 :]
        expect(not any((other + "/").startswith(path + "/") for other in others), f"leases on {got}")


@case("concurrency.lease.different", "thirty who ask for different paths at once all get them", API)
def different_paths(probe: Probe) -> None:
    paths = [probe.path() for _ in range(30)]
    replies = probe.together(*_times(30, lambda n: lambda: probe.ask(paths[n])))
    equal([reply.json.get("status") for reply in replies], ["ok"] * 30, "status")
    equal(len({reply.json["session_token"] for reply in replies}), 30, "different tokens")


@case("concurrency.lease.churn", "leases taken and dropped by eight at once leave none behind", API)
def churn(probe: Probe) -> None:
    top = probe.path()

    def job(number: int) -> int:
        for _ in range(15):
            reply = probe.gateway.acquire(f"{probe.fqrn}{top}/{number}")
            accepted(reply, "lease")
            accepted(probe.gateway.drop(reply.json["session_token"]), "drop")
        return 15

    probe.together(*(lambda n=n: job(n) for n in range(_WRITERS)))
    left = [path for path in probe.listing() if path.startswith(probe.fqrn + top)]
    equal(left, [], "leases left")


@case("concurrency.drop", "of those who drop one lease at once, one succeeds", API)
def drops(probe: Probe) -> None:
    token = probe.acquire()
    replies = probe.together(*_times(8, lambda _: lambda: probe.gateway.drop(token)))
    equal(sum(reply.json.get("status") == "ok" for reply in replies), 1, "drops that succeeded")


@each(
    "concurrency.payloads",
    issue(3400),
    {
        "one.lease": ("eight payloads at once for one lease are all stored", True),
        "leases": ("eight payloads at once for eight leases are all stored", False),
    },
)
def payloads(probe: Probe, one: bool) -> None:
    shared = probe.acquire()
    tokens = [shared if one else probe.acquire() for _ in range(_WRITERS)]
    objects = [[probe.new_object(20_000) for _ in range(20)] for _ in range(_WRITERS)]
    replies = probe.together(*_times(_WRITERS, lambda n: lambda: probe.gateway.payload(tokens[n], Pack.of(objects[n]))))
    for reply in replies:
        accepted(reply, "payload")
    for made in (each_object for pack in objects for each_object in pack[::7]):
        expect(probe.repository.has(made.name), "an object is missing")


@case("concurrency.payloads.same", "the same objects sent by eight at once are stored once and right", SAFETY)
def same_objects(probe: Probe) -> None:
    objects = [probe.new_object(50_000) for _ in range(5)]
    tokens = [probe.acquire() for _ in range(_WRITERS)]
    replies = probe.together(*_times(_WRITERS, lambda n: lambda: probe.gateway.payload(tokens[n], Pack.of(objects))))
    for reply in replies:
        accepted(reply, "payload")
    for made in objects:
        equal(probe.repository.stored(made.name), made.data, "content")


def _commits(probe: Probe, base: str | None) -> tuple[list[str], list[Commit]]:
    tops = [probe.path() for _ in range(_WRITERS)]
    ready = []
    for top in tops:
        built = probe.build(_directory(f"{top}/inner"), base)
        token = probe.acquire(top)
        probe.send(token, built)
        ready.append((token, built))
    return tops, probe.together(*(lambda t=token, b=built: probe.commit(t, b) for token, built in ready))


@case("concurrency.commits", "eight commits at once are eight revisions, and no one's work is lost", API)
def commits(probe: Probe) -> None:
    before = probe.repository.manifest().revision
    tops, done = _commits(probe, probe.repository.manifest().root)
    equal(sorted(commit.revision for commit in done), list(range(before + 1, before + 9)), "revisions")
    tree = check(probe.repository)
    for top in tops:
        tree.need(f"{top}/inner")


@case(
    "concurrency.commits.final", "after commits at once, the published revision is the highest that was answered", API
)
def final_revision(probe: Probe) -> None:
    _, done = _commits(probe, None)
    equal(probe.repository.manifest().revision, max(commit.revision for commit in done), "revision")


@case("concurrency.commit.twice", "the same commit asked for twice at once is one revision", issue(3128))
def commit_twice(probe: Probe) -> None:
    top = probe.path()
    before = probe.repository.manifest().revision
    built = probe.build(lambda tree: tree.make_directories(top))
    token = probe.acquire(top)
    probe.send(token, built)
    replies = probe.together(*_times(2, lambda _: lambda: probe.gateway.commit(token, built.base, built.root)))
    expect(any(reply.json.get("status") == "ok" for reply in replies), f"{[str(reply) for reply in replies]}")
    equal(probe.repository.manifest().revision, before + 1, "revision")


@case(
    "concurrency.commit.other",
    "two different commits of one lease at once: one is published, the other refused",
    SAFETY,
)
def two_commits(probe: Probe) -> None:
    top = probe.path()
    token = probe.acquire(top)
    built = [probe.build(_directory(f"{top}/{number}")) for number in range(2)]
    for each_one in built:
        probe.send(token, each_one)
    replies = probe.together(*_times(2, lambda n: lambda: probe.gateway.commit(token, built[n].base, built[n].root)))
    equal(sum(reply.json.get("status") == "ok" for reply in replies), 1, "commits that were granted")
    equal(len(check(probe.repository).children(top)), 1, "what was published")


@case(
    "concurrency.read",
    "while commits go on, every manifest that is read is signed and its root catalog is there",
    SAFETY,
)
def reading(probe: Probe) -> None:
    stop, faults, seen = threading.Event(), list[str](), set[int]()
    certificate = probe.repository.certificate()

    def read() -> None:
        while not stop.is_set():
            try:
                manifest = probe.repository.manifest()
                manifest.check_signature(certificate)
                if manifest.revision not in seen:
                    probe.repository.stored(manifest.root, "C")
                    probe.repository.stored(manifest.fields["H"], "H")
                seen.add(manifest.revision)
            except Exception as error:
                faults.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(8):
            probe.plant(probe.path())
    finally:
        stop.set()
        reader.join()
    equal(faults[:3], [], "faults")


@case("concurrency.commit.payload", "a payload for one lease is taken while another is committed", issue(3400))
def payload_during_commit(probe: Probe) -> None:
    top = probe.path()
    built = probe.build(lambda tree: tree.make_directories(top))
    token, other = probe.acquire(top), probe.acquire()
    probe.send(token, built)
    made = probe.new_object(100_000)
    replies = probe.together(
        lambda: probe.gateway.commit(token, built.base, built.root),
        lambda: probe.gateway.payload(other, Pack.of([made])),
    )
    for reply in replies:
        accepted(reply, "commit or payload")
    expect(probe.repository.has(made.name), "the object is missing")


@case(
    "concurrency.drop.commit",
    "a lease dropped while it is committed: one of both wins, and nothing is half done",
    SAFETY,
)
def drop_during_commit(probe: Probe) -> None:
    top = probe.path()
    before = probe.repository.manifest().revision
    built = probe.build(lambda tree: tree.make_directories(top))
    token = probe.acquire(top)
    probe.send(token, built)
    committed, _ = probe.together(
        lambda: probe.gateway.commit(token, built.base, built.root), lambda: probe.gateway.drop(token)
    )
    tree = check(probe.repository)
    done = committed.json.get("status") == "ok"
    equal(tree.get(top) is not None, done, "the directory is published")
    equal(probe.repository.manifest().revision, before + done, "revision")
    refused(probe.gateway.drop(token), "another drop", "invalid lease")
