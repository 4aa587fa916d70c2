"""Notifications: who is told of a new revision, and what."""

from __future__ import annotations

import base64
import contextlib

from conformance.notices import OTHER, QUIET_S, WAIT_S, hear, listen, message, news, server, tell
from conformance.outcomes import equal, expect
from conformance.probe import Probe
from conformance.registry import API, SAFETY, case, each


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
        found = subscription.message(WAIT_S)
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
        found = [subscription.message(WAIT_S), *subscription.drain(QUIET_S)]
    equal(len(found), 1, "messages")
    equal(base64.b64decode(found[0]["manifest"]), probe.repository.read(".cvmfspublished"), "manifest")


@case("notifications.neighbours", "a new subscriber does not wake the ones that are there", SAFETY)
def neighbours(probe: Probe) -> None:
    tell(probe, message(probe))
    with listen(probe) as first, server(probe).subscribe(probe.fqrn) as second:
        second.next(WAIT_S)
        equal(first.drain(QUIET_S), [], "messages to the first")


@case("notifications.others", "subscribers of other repositories are not told", API)
def others(probe: Probe) -> None:
    with listen(probe, OTHER) as subscription:
        tell(probe, news(probe))
        equal(subscription.drain(QUIET_S), [], "messages")


@case("notifications.many", "twenty subscribers are all told", API)
def many(probe: Probe) -> None:
    with contextlib.ExitStack() as stack:
        where = server(probe)
        listeners = [stack.enter_context(where.subscribe(probe.fqrn)) for _ in range(20)]
        listeners[-1].drain(QUIET_S)
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
        equal(subscription.drain(QUIET_S), [], "messages")


@case("notifications.commit", "a commit tells subscribers by itself, without notify -p", "forgotten by publishers")
def commit(probe: Probe) -> None:
    with listen(probe) as subscription:
        top = probe.path()
        probe.publish(top, lambda tree: tree.make_directories(top))
        hear(subscription, probe.repository.read(".cvmfspublished"))
