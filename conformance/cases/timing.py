"""How long things may take. Bounds are wide: they find locks and pauses, not slow machines."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

from conformance.notices import hear, listen, news, tell
from conformance.outcomes import Failed, expect
from conformance.pack import Pack
from conformance.probe import Probe, accepted
from conformance.registry import PUBLISHER, case, each, issue
from conformance.wire import head, parse_head


def _median(job: Callable[[], object], rounds: int = 9) -> float:
    found = []
    for _ in range(rounds):
        started = time.monotonic()
        job()
        found.append(time.monotonic() - started)
    return statistics.median(found)


def _lease(probe: Probe) -> Callable[[], object]:
    return lambda: accepted(probe.gateway.drop(probe.acquire()), "drop")


def within(seconds: float, limit: float, what: str) -> None:
    expect(seconds <= limit, f"{what} takes {seconds * 1000:.0f} ms, more than {limit * 1000:.0f} ms")


@each(
    "timing.quiet",
    "publishers and people wait for it",
    {
        "repos": ("GET /repos takes under 200 ms", lambda p: accepted(p.gateway.get("/repos"), "GET /repos"), 0.2),
        "leases": ("GET /leases takes under 200 ms", lambda p: p.listing(), 0.2),
        "lease": (
            "taking and dropping a lease takes under 400 ms",
            lambda p: accepted(p.gateway.drop(p.acquire()), "drop"),
            0.4,
        ),
        "manifest": ("GET .cvmfspublished takes under 200 ms", lambda p: p.repository.manifest(), 0.2),
        "payload": (
            "a payload of one small object takes under 1 s",
            lambda p: accepted(p.gateway.payload(p.acquire(), Pack.of([p.new_object()])), "payload"),
            1.0,
        ),
    },
)
def quiet(probe: Probe, job: Callable[[Probe], object], limit: float) -> None:
    within(_median(lambda: job(probe)), limit, "it")


@case("timing.commit", "a small commit takes under 5 s", "publishers and people wait for it")
def commit(probe: Probe) -> None:
    found = []
    for _ in range(3):
        top = probe.path()
        found.append(probe.publish(top, lambda tree, p=top: tree.make_directories(p)).reply.seconds)  # type: ignore[misc]
    within(statistics.median(found), 5.0, "a commit")


@case("timing.continue", "Expect: 100-continue is answered within half a second; publishers wait for one", PUBLISHER)
def expects(probe: Probe) -> None:
    token, pack = probe.acquire(), Pack.of([probe.new_object()])
    route, lead = probe.gateway.payload_parts(token, pack)
    url = probe.gateway.url
    headers = {"Authorization": probe.target.key.authorization(lead), "Message-Size": str(len(lead))}
    headers["Expect"] = "100-continue"
    with url.connect(probe.target.timeout) as connection:
        target = probe.gateway.root + route
        connection.sendall(head("POST", target, url.netloc, headers, len(lead) + len(pack.bytes)))
        connection.settimeout(0.5)
        try:
            status, _, _ = parse_head(connection.recv(65536))
        except TimeoutError:
            raise Failed("no answer within half a second") from None
        expect(status == 100, f"it is HTTP {status}")


def _during(probe: Probe, work: Callable[[], object], ask: Callable[[], object]) -> float:
    """The slowest *ask* while *work* goes on, in seconds."""
    done = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=run)
    thread.start()
    slowest = 0.0
    while not done.is_set():
        started = time.monotonic()
        ask()
        slowest = max(slowest, time.monotonic() - started)
    thread.join()
    if errors:
        raise errors[0]
    return slowest


def _large_commit(probe: Probe, top: str) -> Callable[[], object]:
    built = probe.build(lambda tree: tree.fill(top, 20_000))
    token = probe.acquire(top)
    probe.send(token, built)
    return lambda: probe.commit(token, built)


@each(
    "timing.during.commit",
    issue(3460, 4103),
    {
        "leases": ("GET /leases takes under 250 ms while a commit of 20,000 files goes on", "leases"),
        "lease": ("a lease takes under 250 ms while a commit of 20,000 files goes on", "lease"),
        "repos": ("GET /repos takes under 250 ms while a commit of 20,000 files goes on", "repos"),
    },
)
def during_commit(probe: Probe, what: str) -> None:
    top = probe.path()
    work = _large_commit(probe, top)
    ask = _lease(probe) if what == "lease" else lambda: accepted(probe.gateway.get(f"/{what}"), what)
    slowest = _during(probe, work, ask)
    probe.publish(top, lambda tree: tree.clear(top))
    within(slowest, 0.25, f"the slowest {what}")


@case("timing.during.payload", "a lease takes under 500 ms while 48 MB are uploaded", issue(3400))
def during_payload(probe: Probe) -> None:
    token = probe.acquire()
    pack = Pack.of([probe.new_object(6_000_000) for _ in range(8)])
    seconds = _during(
        probe,
        lambda: accepted(probe.gateway.payload(token, pack), "payload"),
        _lease(probe),
    )
    within(seconds, 0.5, "the slowest lease")


@case("timing.notification", "a subscriber is told within one second", "what notifications are for")
def notification(probe: Probe) -> None:
    text = news(probe)
    manifest = probe.repository.read(".cvmfspublished")
    with listen(probe) as subscription:
        started = time.monotonic()
        tell(probe, text)
        if not subscription.chunks:
            hear(subscription, manifest)
        within(time.monotonic() - started, 1.0, "it")
