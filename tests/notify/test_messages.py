from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from cvmfs_notify.errors import InvalidMessage, InvalidSubscription
from cvmfs_notify.messages import (
    MAX_MANIFEST,
    MAX_MESSAGE,
    Activity,
    format_subscription,
    format_timestamp,
    parse_subscription,
    topics,
)

WIRE = b'{"version":1,"timestamp":"t","type":"activity","repository":"a.b","manifest":"TQo="}'
FIELDS: dict[str, Any] = json.loads(WIRE)


def test_both_ways() -> None:
    activity = Activity("a.b", b"M\n", "t")
    assert Activity.parse(WIRE) == activity
    assert activity.serialize() == WIRE


def test_as_the_reference_writes_it() -> None:
    text = (
        b'{ "version" : 1, "timestamp" : "20 Nov 2026 09:30:00", "type" : "activity", "repository" : "a.b",'
        b' "manifest" : "TQo="}'
    )
    assert Activity.parse(text) == Activity("a.b", b"M\n", "20 Nov 2026 09:30:00")


def test_a_usual_message_fits_into_one_segment() -> None:
    assert len(Activity("software.experiment.example.org", bytes(750), "2026-11-20T09:30:00.000Z").serialize()) < 1300


@pytest.mark.parametrize("change", [{"timestamp": 5}, {"timestamp": None}, {"more": [1]}])
def test_what_is_passed_over(change: dict[str, Any]) -> None:
    assert Activity.parse(json.dumps(FIELDS | change).encode()).manifest == b"M\n"


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": "1"},
        {"type": "gossip"},
        {"repository": ""},
        {"repository": "a/b"},
        {"repository": "../a"},
        {"repository": "*"},
        {"repository": "a\n"},
        {"repository": "a" * 256},
        {"repository": 5},
        {"manifest": ""},
        {"manifest": "T"},
        {"manifest": "T Qo="},
        {"manifest": "ä"},
        {"manifest": None},
        {"manifest": base64.b64encode(bytes(MAX_MANIFEST + 1)).decode()},
    ],
)
def test_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage):
        Activity.parse(json.dumps(FIELDS | change).encode())


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, WIRE + b"x", b" " * MAX_MESSAGE + WIRE, b'"\\ud800"']
)
def test_not_even_json(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        Activity.parse(data)


def test_the_reply_can_be_sent() -> None:
    with pytest.raises(InvalidMessage) as caught:
        Activity.parse(json.dumps(FIELDS | {"version": "\ud800"}).encode())
    assert json.dumps(caught.value.reply()).encode()


def test_subscriptions() -> None:
    assert parse_subscription(b'{"version":1,"repository":"a.b"}') == "a.b"
    assert format_subscription("a.b") == b'{"version":1,"repository":"a.b"}'
    assert parse_subscription(format_subscription("*")) == "*"


@pytest.mark.parametrize("data", [b"", b"{}", b'{"repository":""}', b'{"repository":"a b"}', b'{"repository":["a"]}'])
def test_malformed_subscriptions(data: bytes) -> None:
    with pytest.raises(InvalidSubscription):
        parse_subscription(data)


def test_topics() -> None:
    assert topics(["a", "b", "a"]) == frozenset({"a", "b"})
    assert topics(["a", "*"]) is None
    for names in ([], ["a", ""], [str(n) for n in range(1001)]):
        with pytest.raises(InvalidSubscription):
            topics(names)


def test_timestamp() -> None:
    assert format_timestamp(datetime(2026, 11, 20, 9, 30, 0, 1500, tzinfo=UTC)) == "2026-11-20T09:30:00.001Z"
