"""The form of notifications, which deployed clients are particular about."""

from __future__ import annotations

import base64

from conformance.notices import QUIET_S, WAIT_S, hear, listen, news, server, tell
from conformance.outcomes import equal, expect
from conformance.probe import Probe
from conformance.registry import CLIENT, case, each
from conformance.stream import parse_event
from conformance.trust import Manifest


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
        chunk = subscription.next(WAIT_S)
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
        equal(subscription.drain(QUIET_S), [], "messages after the newest")
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
