from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_notify.broker import Event, Publication
from cvmfs_notify.sse import (
    GREETING,
    MAX_LINE,
    PING,
    Dialect,
    Reader,
    Received,
    chunk,
    event_id,
    frame,
    parse_event_id,
)

EVENT = Event(12, Publication("a.b", 3, 0, b'{"version":1}'))


def test_frames() -> None:
    assert frame(EVENT, Dialect.STRICT, "e") == b'data: {"version":1}\n\n'
    assert frame(EVENT, Dialect.STANDARD, "abc") == b'data: {"version":1}\nid: abc-12\n\n'
    assert chunk(b"data: {}\n\n") == b"a\r\ndata: {}\n\n\r\n"


@pytest.mark.parametrize(
    ("agent", "dialect"),
    [
        ("cvmfs/2.12.0", Dialect.STRICT),
        ("cvmfs/", Dialect.STRICT),
        ("curl/8 cvmfs/2", Dialect.STANDARD),
        ("Mozilla/5.0", Dialect.STANDARD),
        ("", Dialect.STANDARD),
        (None, Dialect.STANDARD),
    ],
)
def test_dialects(agent: str | None, dialect: Dialect) -> None:
    assert Dialect.of(agent) is dialect


def test_ids() -> None:
    assert parse_event_id(event_id("abc", 12), "abc") == 12
    for text in (None, "", "12", "abc-", "abd-12", "abc-12x", "abc--1", "abc-١"):
        assert parse_event_id(text, "abc") is None


def test_what_we_send_as_a_client_reads_it() -> None:
    stream = GREETING + frame(EVENT, Dialect.STANDARD, "abc") + PING + frame(EVENT, Dialect.STRICT, "")
    reader = Reader()
    assert list(reader.feed(stream)) == [Received(b'{"version":1}', "abc-12"), Received(b'{"version":1}', "abc-12")]
    assert reader.last_id == "abc-12"


def test_the_standards_examples() -> None:
    stream = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\ndata\n\n"
    assert list(Reader().feed(stream)) == [
        Received(b"first event", "1"),
        Received(b"second event", ""),
        Received(b" third event", ""),
        Received(b"", ""),
    ]
    assert list(Reader().feed(b"data: YHOO\ndata: +2\ndata: 10\n\ndata: incomplete")) == [Received(b"YHOO\n+2\n10")]


@given(st.lists(st.integers(0, 60), max_size=8), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_in_pieces(cuts: list[int], end: bytes) -> None:
    stream = end.join([b": hello", b"data: one", b"id: 1", b"", b"retry: 5", b"data: two", b"id: 2", b"", b"data: x"])
    reader = Reader()
    received: list[Received] = []
    positions = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for start, stop in pairwise(positions):
        received += reader.feed(stream[start:stop])
    assert received == [Received(b"one", "1"), Received(b"two", "2")]


def test_a_line_without_an_end() -> None:
    with pytest.raises(ValueError, match="a line of over"):
        list(Reader().feed(b"x" * (MAX_LINE + 1)))
