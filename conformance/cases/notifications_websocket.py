"""The WebSocket of the older stand-alone notification server, on port 4930, and what publishers told it.

No deployed program of release 2.12 speaks it any more; these cases follow the older server.
"""

from __future__ import annotations

import base64
import time
from typing import Final

from conformance.gateway import AGENT, API_ROOT
from conformance.notices import news
from conformance.outcomes import Failed, equal, expect
from conformance.probe import Probe
from conformance.registry import case, each
from conformance.websocket import WebSocketSubscriber
from conformance.wire import Reply, Url, request

OLDER: Final = "the stand-alone notification server of release 2.6"
_WAIT_S: Final = 5.0


def _url(probe: Probe) -> str:
    return probe.need(probe.target.websocket, "--websocket").rstrip("/").removesuffix(API_ROOT)


def _connect(probe: Probe, *offered: str) -> WebSocketSubscriber:
    return WebSocketSubscriber(_url(probe), probe.target.timeout, offered)


def _publish(probe: Probe, message: bytes) -> Reply:
    url = Url(_url(probe))
    headers = {"User-Agent": AGENT, "Content-Type": "application/json"}
    return request(url, "POST", f"{url.path}{API_ROOT}/publish", message, headers, timeout=probe.target.timeout)


def _hear(subscriber: WebSocketSubscriber, manifest: bytes) -> None:
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        if base64.b64decode(str(subscriber.message(_WAIT_S).get("manifest", ""))) == manifest:
            return
    raise Failed("the message did not come")


@case("notifications.websocket.message", "what is published is told in a binary frame to who has subscribed", OLDER)
def message(probe: Probe) -> None:
    with _connect(probe) as subscriber:
        subscriber.subscribe(probe.fqrn)
        text = news(probe)
        reply = _publish(probe, text)
        equal((reply.status, reply.json.get("status")), (200, "ok"), "the reply to the publisher")
        _hear(subscriber, probe.repository.read(".cvmfspublished"))


@case(
    "notifications.websocket.two", "two subscribers are told of each revision, and one that leaves harms nobody", OLDER
)
def two(probe: Probe) -> None:
    with _connect(probe) as stays:
        stays.subscribe(probe.fqrn)
        with _connect(probe) as leaves:
            leaves.subscribe(probe.fqrn)
            _publish(probe, news(probe))
            for subscriber in (stays, leaves):
                _hear(subscriber, probe.repository.read(".cvmfspublished"))
        _publish(probe, news(probe))
        _hear(stays, probe.repository.read(".cvmfspublished"))


@each(
    "notifications.websocket.malformed",
    OLDER,
    {
        "text": (
            "a subscription that is not JSON gets an error frame, and the next one counts",
            b"rubbish",
        ),
        "list": ("a subscription that is a list gets an error frame, and the next one counts", b"[]"),
        "empty": (
            "a subscription without a repository gets an error frame, and the next one counts",
            b"{}",
        ),
    },
)
def malformed(probe: Probe, content: bytes) -> None:
    with _connect(probe) as subscriber:
        subscriber.ask(content)
        found = subscriber.message(_WAIT_S)
        equal(found.get("status"), "error", "status")
        expect(found.get("reason"), "there is no reason")
        subscriber.subscribe(probe.fqrn)
        _publish(probe, news(probe))
        _hear(subscriber, probe.repository.read(".cvmfspublished"))


@case("notifications.websocket.protocol", "the sub-protocol json is echoed if it is offered", OLDER)
def protocol(probe: Probe) -> None:
    with _connect(probe, "xml", "json") as subscriber:
        equal(subscriber.protocol, "json", "sub-protocol")
    with _connect(probe) as subscriber:
        equal(subscriber.protocol, None, "sub-protocol where none was offered")


@case("notifications.websocket.protocol.other", "who offers other sub-protocols only is refused", OLDER)
def other_protocol(probe: Probe) -> None:
    _url(probe)
    try:
        _connect(probe, "xml").__exit__()
    except Failed as failure:
        expect("400" in str(failure), f"refused in another way: {failure}")
        return
    raise Failed("it was accepted")


@case("notifications.websocket.publish.malformed", "a message that is no message is refused as invalid_message", OLDER)
def publish_malformed(probe: Probe) -> None:
    reply = _publish(probe, b"{}")
    said = (reply.status, reply.json.get("status"), reply.json.get("reason"))
    equal(said, (400, "error", "invalid_message"), "reply")
