"""Notifications: who is told of a new revision, and in which form."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from conformance.model import Failed, equal, expect
from conformance.probe import Probe, accepted, turned_down
from conformance.registry import API, CLIENT, SAFETY, case, each, issue
from conformance.stream import Notifications, Subscription, activity, parse_event
from conformance.trust import Manifest

_WAIT_S: Final = 5.0
_QUIET_S: Final = 0.3
_OTHER: Final = "other-of-the-suite.example.org"


def server(probe: Probe) -> Notifications:
    return Notifications(probe.target.notify or probe.target.gateway, probe.target.timeout)


def message(probe: Probe) -> bytes:
    """A message that tells of the present revision; no two are the same."""
    return activity(probe.fqrn, probe.repository.read(".cvmfspublished"), datetime.now(UTC).isoformat())


def news(probe: Probe) -> bytes:
    """A message that tells of a revision that nobody was told of."""
    top = probe.path()
    probe.publish(top, lambda tree: tree.make_directories(top))
    return message(probe)


def tell(probe: Probe, text: bytes) -> None:
    accepted(server(probe).publish(text), "publish")


def listen(probe: Probe, fqrn: str | None = None) -> Subscription:
    """A subscriber that has heard all there was before."""
    subscription = server(probe).subscribe(fqrn or probe.fqrn)
    subscription.drain(_QUIET_S)
    if subscription.ended:
        raise Failed(f"the subscription ended at once: HTTP {subscription.status}, {subscription.ended}")
    return subscription


def hear(subscription: Subscription, manifest: bytes) -> None:
    """Wait for the message that holds *manifest*."""
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        found = subscription.message(_WAIT_S)
        if base64.b64decode(found.get("manifest", "")) == manifest:
            return
    raise Failed("the message did not come")


@case("notifications.publish", "POST /notifications/publish of an activity message answers ok", API)
def publish(probe: Probe) -> None:
    tell(probe, message(probe))


@case("notifications.receive", "a subscriber gets the message that is published", API)
def receive(probe: Probe) -> None:
    with listen(probe) as subscription:
        tell(probe, news(probe))
        hear(subscription, probe.repository.read(".cvmfspublished"))


@each(
    "notifications.message",
    API,
    {
        "version": ("a message has version 1", "version"),
        "type": ("a message has the type activity", "type"),
        "repository": ("a message names the repository", "repository"),
        "timestamp": ("a message has a timestamp", "timestamp"),
        "manifest": ("a message holds the whole signed manifest in base64", "manifest"),
    },
)
def members(probe: Probe, member: str) -> None:
    tell(probe, news(probe))
    with server(probe).subscribe(probe.fqrn) as subscription:
        found = subscription.message(_WAIT_S)
    if member == "manifest":
        equal(base64.b64decode(found[member]), probe.repository.read(".cvmfspublished"), "manifest")
    elif member == "timestamp":
        expect(found.get(member), "no timestamp")
    else:
        equal(found.get(member), {"version": 1, "type": "activity", "repository": probe.fqrn}[member], member)


@case("notifications.last", "a new subscriber gets the last message of its repository at once", API)
def last(probe: Probe) -> None:
    tell(probe, news(probe))
    with server(probe).subscribe(probe.fqrn) as subscription:
        hear(subscription, probe.repository.read(".cvmfspublished"))


@case("notifications.last.newest", "a new subscriber gets the newest message and none before it", API)
def newest(probe: Probe) -> None:
    for _ in range(3):
        tell(probe, news(probe))
    with server(probe).subscribe(probe.fqrn) as subscription:
        found = [subscription.message(_WAIT_S), *subscription.drain(_QUIET_S)]
    equal(len(found), 1, "messages")
    equal(base64.b64decode(found[0]["manifest"]), probe.repository.read(".cvmfspublished"), "manifest")


@case("notifications.neighbours", "a new subscriber does not wake the ones that are there", SAFETY)
def neighbours(probe: Probe) -> None:
    tell(probe, message(probe))
    with listen(probe) as first, server(probe).subscribe(probe.fqrn) as second:
        second.next(_WAIT_S)
        equal(first.drain(_QUIET_S), [], "messages to the first")


@case("notifications.others", "subscribers of other repositories are not told", API)
def others(probe: Probe) -> None:
    with listen(probe, _OTHER) as subscription:
        tell(probe, news(probe))
        equal(subscription.drain(_QUIET_S), [], "messages")


@case("notifications.many", "twenty subscribers are all told", API)
def many(probe: Probe) -> None:
    with contextlib.ExitStack() as stack:
        where = server(probe)
        listeners = [stack.enter_context(where.subscribe(probe.fqrn)) for _ in range(20)]
        listeners[-1].drain(_QUIET_S)
        tell(probe, news(probe))
        manifest = probe.repository.read(".cvmfspublished")
        for subscription in listeners:
            hear(subscription, manifest)


@case("notifications.same", "the same message again is not sent again", API)
def same(probe: Probe) -> None:
    text = news(probe)
    tell(probe, text)
    with listen(probe) as subscription:
        tell(probe, text)
        equal(subscription.drain(_QUIET_S), [], "messages")


@case("notifications.commit", "a commit tells subscribers by itself, without notify -p", "forgotten by publishers")
def commit(probe: Probe) -> None:
    with listen(probe) as subscription:
        top = probe.path()
        probe.publish(top, lambda tree: tree.make_directories(top))
        hear(subscription, probe.repository.read(".cvmfspublished"))


# --- the form, which deployed clients are particular about ---------------------------------------------------------


@each(
    "notifications.form",
    CLIENT,
    {
        "first.line": ("the first line of an event is data: {...}, with no comment, id or blank line before", "first"),
        "end": ("an event ends with an empty line", "end"),
        "chunked": ("the stream is chunked, with one event in each chunk", "chunked"),
        "size": ("an event is under 16 KiB", "size"),
        "type": ("the stream's content type is text/event-stream", "type"),
        "cache": ("the stream must not be cached", "cache"),
    },
)
def form(probe: Probe, what: str) -> None:
    tell(probe, news(probe))
    with server(probe).subscribe(probe.fqrn) as subscription:
        chunk = subscription.next(_WAIT_S)
        expect(chunk is not None, "nothing came")
        raw = chunk or b""
        if what == "first":
            expect(raw.startswith(b"data: {"), f"it begins with {raw[:30]!r}")
        elif what == "end":
            expect(raw.endswith(b"\n\n"), f"it ends with {raw[-30:]!r}")
        elif what == "chunked":
            equal(subscription.headers.get("transfer-encoding"), "chunked", "Transfer-Encoding")
            equal(raw.count(b"data: "), 1, "events in the chunk")
        elif what == "size":
            expect(len(raw) < 16384, f"{len(raw)} bytes")
        elif what == "type":
            expect(subscription.headers.get("content-type", "").startswith("text/event-stream"), "another type")
        else:
            expect("no-cache" in subscription.headers.get("cache-control", ""), "it may be cached")


@case("notifications.form.quiet", "a quiet stream says nothing to a cvmfs client: no keep-alive lines", CLIENT)
def quiet(probe: Probe) -> None:
    with listen(probe) as subscription:
        chunk = subscription.next(2.0)
        expect(chunk is None and not subscription.ended, f"it said {chunk!r} ({subscription.ended or 'open'})")


@case("notifications.form.gap", "messages published in quick succession are one chunk each, the newest last", CLIENT)
def gap(probe: Probe) -> None:
    with listen(probe) as subscription:
        for _ in range(5):
            tell(probe, news(probe))
        manifest = probe.repository.read(".cvmfspublished")
        hear(subscription, manifest)
        equal(subscription.drain(_QUIET_S), [], "messages after the newest")
        for chunk in subscription.chunks:
            equal(chunk.count(b"data: "), 1, "events in a chunk")


@case("notifications.order", "messages come in the order of their revisions", CLIENT)
def order(probe: Probe) -> None:
    with listen(probe) as subscription:
        for _ in range(4):
            tell(probe, news(probe))
        hear(subscription, probe.repository.read(".cvmfspublished"))
        events = subscription.chunks
    found = [Manifest.parse(base64.b64decode(parse_event(event)["manifest"])).revision for event in events]
    equal(found, sorted(found), "revisions")


# --- bad input, bad neighbours -------------------------------------------------------------------------------------


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
            lambda p: activity(_OTHER, p.repository.read(".cvmfspublished"), "now"),
        ),
    },
)
def untrue(probe: Probe, make: Callable[[Probe], bytes]) -> None:
    tell(probe, news(probe))
    with listen(probe) as subscription:
        reply = server(probe).publish(make(probe))
        equal(subscription.drain(_QUIET_S), [], "messages that were passed on")
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
        subscription.next(_QUIET_S)
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
