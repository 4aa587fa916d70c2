"""Notifications: bad input, and neighbours that behave badly."""

from __future__ import annotations

from collections.abc import Callable

from conformance.notices import OTHER, QUIET_S, hear, listen, news, server, tell
from conformance.outcomes import equal, expect
from conformance.probe import Probe, turned_down
from conformance.registry import API, CLIENT, SAFETY, case, each, issue
from conformance.stream import activity


@each(
    "notifications.malformed",
    API,
    {
        "json": ("a published message that is no JSON is turned down", b"{", 400),
        "list": ("a published message that is a list is turned down", b"[]", 400),
        "empty": ("an empty message is turned down", b"", 400),
    },
)
def malformed(probe: Probe, text: bytes, status: int) -> None:
    equal(server(probe).publish(text).status, status, "HTTP status")


def _forged(probe: Probe) -> bytes:
    manifest = probe.repository.read(".cvmfspublished")
    revision = probe.repository.manifest().revision
    return activity(probe.fqrn, manifest.replace(b"S%d\n" % revision, b"S%d\n" % (revision + 1000)), "now")


@each(
    "notifications.untrue",
    "anybody can publish a message: mounted clients act on it",
    {
        "rubbish": (
            "a message whose manifest is rubbish is turned down",
            lambda p: activity(p.fqrn, b"rubbish", "now"),
        ),
        "forged": ("a message with a manifest that its certificate did not sign is turned down", _forged),
        "other": (
            "a message with another repository's manifest is turned down",
            lambda p: activity(OTHER, p.repository.read(".cvmfspublished"), "now"),
        ),
    },
)
def untrue(probe: Probe, make: Callable[[Probe], bytes]) -> None:
    tell(probe, news(probe))
    with listen(probe) as subscription:
        reply = server(probe).publish(make(probe))
        equal(subscription.drain(QUIET_S), [], "messages that were passed on")
    turned_down(reply, "publish")


@each(
    "notifications.subscribe.malformed",
    CLIENT,
    {
        "json": ("a cvmfs client whose subscription is no JSON is not answered in a way that ends it for good", b"{"),
        "empty": ("a cvmfs client without a body is not answered in a way that ends it for good", b"{}"),
    },
)
def malformed_subscription(probe: Probe, body: bytes) -> None:
    with server(probe).subscribe("", body=body) as subscription:
        while subscription.next(QUIET_S) is not None:
            pass
        complete = subscription.ended == "clean" or (subscription.status or 200) >= 400
        expect(not complete, f"HTTP {subscription.status}: a complete reply ends a subscription for good")


@case("notifications.slow", "a subscriber that reads nothing does not hold up the others", SAFETY)
def slow(probe: Probe) -> None:
    with server(probe).subscribe(probe.fqrn), listen(probe) as good:
        for _ in range(10):
            tell(probe, news(probe))
        hear(good, probe.repository.read(".cvmfspublished"))


@case("notifications.gone", "subscribers that went away with a reset do not hold up the others", SAFETY)
def gone(probe: Probe) -> None:
    lost = [server(probe).subscribe(probe.fqrn) for _ in range(10)]
    for subscription in lost:
        subscription.drain(0.01)
        subscription.abort()
    with listen(probe) as good:
        tell(probe, news(probe))
        hear(good, probe.repository.read(".cvmfspublished"))


@case(
    "notifications.parallel",
    "32 publishers at once do not bring the server down",
    "found with release 2.12: the process ends",
    destructive=True,
)
def parallel(probe: Probe) -> None:
    where, manifest = server(probe), probe.repository.read(".cvmfspublished")
    for _ in range(60):
        # Each for a repository of its own, so that whatever they are kept in has to grow.
        messages = [activity(f"{probe.name()}.example.org", manifest, "now") for _ in range(32)]
        try:
            where.flood(messages)
        except OSError:
            break
    expect(probe.answers(), "the gateway is gone")
    with listen(probe) as good:
        tell(probe, news(probe))
        hear(good, probe.repository.read(".cvmfspublished"))


@case("notifications.reconnect", "a subscriber that comes back twenty times within a second is served", issue(3678))
def reconnect(probe: Probe) -> None:
    tell(probe, news(probe))
    manifest = probe.repository.read(".cvmfspublished")
    for _ in range(20):
        with server(probe).subscribe(probe.fqrn) as subscription:
            hear(subscription, manifest)
