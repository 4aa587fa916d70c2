"""What a restart of the gateway (killed, not asked to stop) leaves as it was."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Final

from conformance.consistency import check
from conformance.model import Function
from conformance.notices import hear, news, server, tell
from conformance.outcomes import Failed, equal, expect
from conformance.pack import Pack
from conformance.probe import Probe, accepted
from conformance.registry import SAFETY, case, issue

_KILLS: Final = 5


def _case(id: str, requirement: str, source: str) -> Callable[[Function], Function]:
    """A case that does nothing at all where nothing can be restarted."""

    def register(function: Function) -> Function:
        @functools.wraps(function)
        def run(probe: Probe) -> None:
            probe.need(probe.target.restart_command, "--restart-command")
            function(probe)

        return case(id, requirement, source)(run)

    return register


@_case("restart.lease.listed", "a lease is there after a restart, on its path and with its end", issue(3128))
def listed(probe: Probe) -> None:
    path = probe.path()
    probe.acquire(path)
    before = probe.listing()[probe.fqrn + path]
    probe.restart()
    after = probe.listing().get(probe.fqrn + path, {})
    for member in ("key_id", "path", "hostname", "expires"):
        equal(after.get(member), before.get(member), member)


@_case("restart.lease.excludes", "a path that is leased is busy after a restart", issue(3128))
def excludes(probe: Probe) -> None:
    path = probe.path()
    probe.acquire(path)
    probe.restart()
    equal(probe.ask(path).json.get("status"), "path_busy", "status")


@_case("restart.lease.commit", "a lease granted before a restart can be uploaded to and committed", issue(3128))
def commit(probe: Probe) -> None:
    top = probe.path()
    built = probe.build(lambda tree: tree.make_directories(top))
    token = probe.acquire(top)
    probe.restart()
    probe.send(token, built)
    probe.commit(token, built)
    check(probe.repository).need(top)


@_case("restart.payload.commit", "what was uploaded before a restart can be committed after it", issue(3128))
def payload(probe: Probe) -> None:
    top = probe.path()
    built = probe.build(lambda tree: tree.make_directories(top))
    token = probe.acquire(top)
    probe.send(token, built)
    probe.restart()
    probe.commit(token, built)
    check(probe.repository).need(top)


@_case("restart.lease.drop", "a lease granted before a restart can be dropped", SAFETY)
def drop(probe: Probe) -> None:
    path = probe.path()
    token = probe.acquire(path)
    probe.restart()
    accepted(probe.gateway.drop(token), "drop")
    probe.acquire(path)


@_case("restart.commit.again", "a commit answered before a restart is answered the same after it", issue(3128))
def again(probe: Probe) -> None:
    top = probe.path()
    built = probe.build(lambda tree: tree.make_directories(top))
    token = probe.acquire(top)
    probe.send(token, built)
    first = probe.commit(token, built)
    probe.restart()
    equal(probe.commit(token, built).revision, first.revision, "final_revision")


@_case("restart.repository", "the repository is the same after a restart, and the next commit goes on from it", SAFETY)
def repository(probe: Probe) -> None:
    probe.plant(first := probe.path())
    before = probe.repository.read(".cvmfspublished")
    probe.restart()
    equal(probe.repository.read(".cvmfspublished"), before, "the manifest")
    probe.plant(second := probe.path())
    tree = check(probe.repository)
    expect(tree.get(first) and tree.get(second), "a directory is missing")


@_case(
    "restart.during.commit",
    "killed in the middle of a commit: the old revision or the new one, and it can be asked again",
    SAFETY,
)
def during_commit(probe: Probe) -> None:
    top = probe.path()

    before = probe.repository.manifest()
    built = probe.build(lambda tree: tree.fill(top, 10_000))
    token = probe.acquire(top)
    probe.send(token, built)

    def ask() -> None:
        try:
            probe.gateway.commit(token, built.base, built.root)
        except OSError:
            return

    probe.together(ask, probe.restart)
    after = probe.repository.manifest()
    expect(after.revision - before.revision in (0, 1), f"revision {after.revision} after {before.revision}")
    check(probe.repository)
    done = probe.commit(token, built)
    equal(done.revision, before.revision + 1, "final_revision")
    equal(len(check(probe.repository).children(top)), 10_001, "files")
    probe.publish(top, lambda tree: tree.clear(top))


@_case(
    "restart.during.payload",
    "killed in the middle of a payload: no half object is visible, it can be sent again",
    SAFETY,
)
def during_payload(probe: Probe) -> None:
    top = probe.path()
    content = probe.fresh(30_000_000)
    built = probe.build(lambda tree: tree.put_file(top, content))
    token = probe.acquire(top)
    pack = Pack.of(built.objects)

    def send() -> None:
        with contextlib.suppress(OSError):
            probe.gateway.payload(token, pack)

    probe.together(send, probe.restart)
    for made in built.objects:
        reply = probe.repository.ask(made.path)
        expect(reply.status == 404 or reply.body == made.data, f"{len(reply.body)} of {len(made.data)} bytes are there")
    probe.send(token, built)
    probe.commit(token, built)
    equal(probe.repository.content(check(probe.repository).need(top)), content, "content")


@_case("restart.during.leases", "killed while leases are granted: each that was granted is there afterwards", SAFETY)
def during_leases(probe: Probe) -> None:
    found: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                path = probe.path()
                if probe.ask(path).json.get("status") == "ok":
                    found.append(probe.fqrn + path)

    def kill() -> None:
        try:
            probe.until("some leases are granted", lambda: len(found) >= 20)
            probe.restart()
        finally:
            stop.set()

    probe.together(ask, kill)
    missing = [path for path in found if path not in probe.listing()]
    expect(not missing, f"{len(missing)} of {len(found)} granted leases are lost")


@_case("restart.during.commits", "killed five times in a stream of commits: all acknowledged ones are there", SAFETY)
def during_commits(probe: Probe) -> None:
    kept: list[str] = []
    for _ in range(_KILLS):
        killed = threading.Event()

        def publish(killed: threading.Event = killed) -> None:
            while not killed.is_set():
                top = probe.path()
                try:
                    probe.publish(top, lambda tree, top=top: tree.make_directories(top))  # type: ignore[misc]
                except (OSError, Failed):
                    return
                kept.append(top)

        def kill(killed: threading.Event = killed, wanted: int = len(kept) + 2) -> None:
            try:
                probe.until("some commits are acknowledged", lambda: len(kept) >= wanted)
                probe.restart()
            finally:
                killed.set()

        probe.together(publish, kill)
    tree = check(probe.repository)
    missing = [top for top in kept if tree.get(top) is None]
    expect(not missing, f"{len(missing)} of {len(kept)} acknowledged commits are lost")
    probe.plant(probe.path())


@_case("restart.notification", "a new subscriber gets the last message that came before a restart", SAFETY)
def notification(probe: Probe) -> None:
    tell(probe, news(probe))
    probe.restart()
    with server(probe).subscribe(probe.fqrn) as subscription:
        hear(subscription, probe.repository.read(".cvmfspublished"))


@_case(
    "restart.stream.breaks",
    "a stream breaks at a restart; it must not end cleanly, or the client is gone for good",
    issue(3678),
)
def stream(probe: Probe) -> None:
    with server(probe).subscribe(probe.fqrn) as subscription:
        subscription.drain(0.3)
        probe.restart()
        subscription.drain(0.3)
        equal(subscription.ended, "broken", "end of the stream")


@_case("restart.enabled", "repositories are enabled or disabled as configured, and grant leases", SAFETY)
def enabled(probe: Probe) -> None:
    probe.restart()
    equal(probe.gateway.get(f"/repos/{probe.fqrn}").json["data"]["enabled"], True, "enabled")
    probe.acquire()
