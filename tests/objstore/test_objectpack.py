"""Object packs: byte fixtures, any cut of the stream, everything that is refused."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_objstore.errors import ObjectPackError
from cvmfs_objstore.formats.objectpack import (
    MAX_HEADER_SIZE,
    MAX_PACK_SIZE,
    Batch,
    Event,
    ObjectBegin,
    ObjectEnd,
    ObjectSlice,
    PackBuilder,
    PackHeader,
    PackItem,
    PackParser,
    Share,
    header_digest,
)
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix

HEADER = (
    b"V2\nS8\nN3\n--\n"
    b"C a9993e364706816aba3e25717850c26c9cd0d89d 3\n"
    b"C da39a3ee5e6b4b0d3255bfef95601890afd80709C 0\n"
    b"C 2b8b815229aa8a61e483fb4ba0588b8b6c491890-rmd160P 5\n"
)
ITEMS = (
    PackItem(ContentHash(bytes.fromhex("a9993e364706816aba3e25717850c26c9cd0d89d")), 3),
    PackItem(
        ContentHash(bytes.fromhex("da39a3ee5e6b4b0d3255bfef95601890afd80709"), Algorithm.SHA1, Suffix.CATALOG),
        0,
    ),
    PackItem(
        ContentHash(bytes.fromhex("2b8b815229aa8a61e483fb4ba0588b8b6c491890"), Algorithm.RMD160, Suffix.CHUNK),
        5,
    ),
)


def pack_of(objects: Iterable[bytes], algorithm: Algorithm = Algorithm.SHA1) -> tuple[bytes, bytes]:
    builder = PackBuilder()
    for data in objects:
        builder.add(ContentHash.of(data, algorithm), data)
    header = builder.header()
    whole = b"".join(builder.stream())
    assert whole.startswith(header)
    return header, whole[len(header) :]


def run(header: bytes, body: bytes, *, step: int = 1 << 20, small: int = 1 << 20) -> list[tuple[str, bytes]]:
    """Parse a whole pack in steps; returns the verified objects."""
    parser = PackParser(header_digest(header), len(header), small_object=small)
    events: list[Event] = []
    stream = header + body
    for start in range(0, len(stream), step):
        assert not parser.done
        events += parser.feed(stream[start : start + step])
    parser.finish()
    assert parser.done
    return collect(events)


def collect(events: list[Event]) -> list[tuple[str, bytes]]:
    assert isinstance(events[0], PackHeader)
    objects: list[tuple[str, bytes]] = []
    current: PackItem | None = None
    parts: list[bytes] = []
    for event in events[1:]:
        match event:
            case Batch():
                assert current is None
                objects += [(str(name), bytes(data)) for name, data in event.verified()]
            case ObjectBegin(item):
                assert current is None
                current, parts = item, []
            case ObjectSlice(data):
                assert len(data) > 0
                parts.append(bytes(data))
            case ObjectEnd(item):
                assert item == current
                objects.append((str(item.name), b"".join(parts)))
                current = None
            case _:
                raise AssertionError(event)
    assert current is None
    return objects


def test_header_fixture_both_ways() -> None:
    assert PackHeader.parse(HEADER) == PackHeader(ITEMS, 8)
    assert PackHeader(ITEMS, 8).serialize() == HEADER
    assert str(header_digest(HEADER)) == hashlib.sha1(HEADER).hexdigest()


def test_empty_pack() -> None:
    header, body = pack_of([])
    assert (header, body) == (b"V2\nS0\nN0\n--\n", b"")
    assert run(header, body) == []
    assert run(header, body, step=1) == []


def test_whole_objects_are_slices_of_what_was_fed() -> None:
    header, body = pack_of([b"abc", b"", b"hello"])
    parser = PackParser(header_digest(header), len(header))
    stream = header + body
    head, batch = parser.feed(stream)
    assert isinstance(head, PackHeader)
    assert isinstance(batch, Batch)
    assert [view.obj is stream for _, view in batch.objects] == [True, True, True]
    parser.finish()


def test_empty_objects_at_the_end_need_no_more_bytes() -> None:
    header, body = pack_of([b"abc", b""])
    assert run(header, body, step=len(header) + 3) == run(header, body, step=1)
    only_empty, nothing = pack_of([b""])
    assert nothing == b""
    assert run(only_empty, b"") == [("da39a3ee5e6b4b0d3255bfef95601890afd80709", b"")]


@given(
    objects=st.lists(st.binary(max_size=40), max_size=12),
    parts=st.integers(1, 4),
    step=st.integers(1, 60),
    small=st.integers(0, 30),
)
def test_parsers_divide_the_objects_among_them(objects: list[bytes], parts: int, step: int, small: int) -> None:
    header, body = pack_of(objects)
    expected = run(header, body)
    for first in range(parts):
        parser = PackParser(header_digest(header), len(header), small_object=small, share=Share(first, parts))
        events: list[Event] = []
        for start in range(0, len(header + body), step):
            events += parser.feed((header + body)[start : start + step])
        parser.finish()
        assert collect(events) == expected[first::parts]


@pytest.mark.parametrize("first", [0, 1])
def test_a_share_reads_the_whole_header_and_counts_all_bytes(first: int) -> None:
    header, body = pack_of([b"abc", b"hello"])
    parser = PackParser(header_digest(header), len(header), share=Share(first, 2))
    parser.feed(header + body[:-1])
    with pytest.raises(ObjectPackError, match="ends early"):
        parser.finish()
    parser = PackParser(header_digest(header), len(header), share=Share(first, 2))
    with pytest.raises(ObjectPackError, match="bytes behind the end"):
        parser.feed(header + body + b"x")
    broken = header.replace(b"N2", b"N3")
    with pytest.raises(ObjectPackError, match="promises 3 objects"):
        PackParser(header_digest(broken), len(broken), share=Share(first, 2)).feed(broken)


def test_large_objects_come_in_slices_between_batches() -> None:
    large = bytes(range(256)) * 20
    objects = [b"a", b"b", large, b"c", large[::-1], large[:1000]]
    header, body = pack_of(objects)
    parser = PackParser(header_digest(header), len(header), small_object=1000)
    events = parser.feed(header + body)
    kinds = [type(event).__name__ for event in events]
    part = ["ObjectBegin", "ObjectSlice", "ObjectEnd"]
    assert kinds == ["PackHeader", "Batch", *part, "Batch", *part, "Batch"]
    assert [data for _, data in collect(events)] == objects


@given(
    st.lists(st.binary(max_size=60), unique=True, max_size=12),
    st.integers(1, 400),
    st.integers(0, 40),
    st.sampled_from(Algorithm),
)
def test_any_cut_gives_the_same_objects(objects: list[bytes], step: int, small: int, algorithm: Algorithm) -> None:
    header, body = pack_of(objects, algorithm)
    found = run(header, body, step=step, small=small)
    assert found == [(str(ContentHash.of(data, algorithm)), data) for data in objects]


@given(st.lists(st.binary(max_size=30), unique=True, min_size=1, max_size=6), st.data())
def test_any_changed_byte_of_an_object_is_noticed(objects: list[bytes], draw: st.DataObject) -> None:
    header, body = pack_of(objects)
    if not body:
        return
    position = draw.draw(st.integers(0, len(body) - 1))
    bad = body[:position] + bytes([body[position] ^ 0x20]) + body[position + 1 :]
    for small in (0, 1000):
        with pytest.raises(ObjectPackError, match="have the hash"):
            run(header, bad, small=small)


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(ObjectPackError):
        PackHeader.parse(data)


LINE = "C a9993e364706816aba3e25717850c26c9cd0d89d 3\n"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", "not the header"),
        ("V1\nS0\nN0\n--\n", "not the header"),
        ("V2\nS0\nN0\n", "not the header"),
        ("V2\nN0\nS0\n--\n", "not the header"),
        ("V2\nS-1\nN0\n--\n", "not the header"),
        ("V2\nS00\nN0\n--\n", "not the header"),
        ("V2\nS3\nN0\n--\n", "promises 3 bytes and lists 0"),
        ("V2\nS3\nN2\n--\n" + LINE, "promises 2 objects and lists 1"),
        ("V2\nS3\nN0\n--\n" + LINE, "promises 0 objects and lists 1"),
        ("V2\nS4\nN1\n--\n" + LINE, "promises 4 bytes and lists 3"),
        ("V2\nS3\nN1\n--\n" + LINE[:-1], "not a line"),
        ("V2\nS3\nN1\n--\n" + LINE + "\n", "not a line"),
        ("V2\nS3\nN1\n--\n" + LINE + "--\n", "not a line"),
        ("V2\nS3\nN1\n--\n" + LINE.upper(), "not a line"),
        ("V2\nS3\nN1\n--\n" + LINE.replace(" 3", "  3"), "not a line"),
        ("V2\nS3\nN1\n--\n" + LINE.replace(" 3", " +3"), "not a line"),
        ("V2\nS3\nN1\n--\n" + LINE.replace(" 3", " 03"), "not a line"),
        ("V2\nS3\nN1\n--\n" + LINE.replace(" 3", ""), "not a line"),
        ("V2\nS3\nN1\n--\n" + LINE.replace(" 3", " 3 name"), "not a line"),
        ("V2\nS3\nN1\n--\n" + LINE.replace("a9", "a"), "not a line"),
        ("V2\nS3\nN1\n--\n" + LINE.replace(" 3", "Z 3"), "not a line"),
        ("V2\nS3\nN1\n--\n" + LINE.replace(" 3", "-md5 3"), "not a line"),
        ("V2\nS3\nN1\n--\n" + LINE.replace(" 3", " " + "9" * 30), "not a line"),
        (
            "V2\nS3\nN1\n--\nN a9993e364706816aba3e25717850c26c9cd0d89d 3 LmN2bWZzcHVibGlzaGVk\n",
            "named files",
        ),
        ("V2\nS3\nN1\n--\nC " + "a" * 5000 + "\n", "not a line"),
    ],
)
def test_bad_headers(header: str, reason: str) -> None:
    with pytest.raises(ObjectPackError, match=reason) as caught:
        run(header.encode() or b"\n", b"abc")
    assert len(str(caught.value)) < 300


def test_header_size_limits() -> None:
    for size in (0, -1, MAX_HEADER_SIZE + 1):
        with pytest.raises(ObjectPackError, match="header of"):
            PackParser(header_digest(b""), size)
    PackParser(header_digest(b""), MAX_HEADER_SIZE)


def test_wrong_digest() -> None:
    header, _ = pack_of([b"abc"])
    parser = PackParser(header_digest(b"another"), len(header))
    with pytest.raises(ObjectPackError, match="digest"):
        parser.feed(header)


@pytest.mark.parametrize("shift", [-1, 1])
def test_wrong_header_size(shift: int) -> None:
    header, body = pack_of([b"abc"])
    parser = PackParser(header_digest(header), len(header) + shift)
    with pytest.raises(ObjectPackError, match="digest"):
        parser.feed(header + body)


@given(st.integers(0, 10_000), st.integers(1, 50), st.sampled_from([0, 1000]))
def test_early_end(cut: int, step: int, small: int) -> None:
    header, body = pack_of([b"abc", b"hello world", b""])
    stream = (header + body)[: cut % len(header + body)]
    parser = PackParser(header_digest(header), len(header), small_object=small)
    for start in range(0, len(stream), step):
        parser.feed(stream[start : start + step])
    with pytest.raises(ObjectPackError, match="ends early"):
        parser.finish()
    with pytest.raises(ObjectPackError, match="broken"):
        parser.feed(b"x")


def test_trailing_bytes() -> None:
    for objects in ([], [b"abc"], [b""]):
        header, body = pack_of(objects)
        for step in (1, 1000):
            parser = PackParser(header_digest(header), len(header))
            stream = header + body
            for start in range(0, len(stream), step):
                parser.feed(stream[start : start + step])
            with pytest.raises(ObjectPackError, match="behind the end"):
                parser.feed(b"x")
            assert not parser.done
        parser = PackParser(header_digest(header), len(header))
        with pytest.raises(ObjectPackError, match="behind the end"):
            parser.feed(header + body + b"x")


def test_feeding_nothing_changes_nothing() -> None:
    header, body = pack_of([b"abc"])
    parser = PackParser(header_digest(header), len(header))
    assert parser.feed(b"") == []
    assert len(parser.feed(header)) == 1
    assert parser.feed(b"") == []
    assert len(parser.feed(body)) == 1
    assert parser.feed(b"") == []
    parser.finish()


def test_builder_limits_and_repeats() -> None:
    builder = PackBuilder()
    name = ContentHash.of(b"abc")
    assert builder.fits(MAX_PACK_SIZE * 10)
    assert builder.add(name, b"abc") is True
    assert builder.add(name, b"abc") is False
    assert (len(builder), builder.size) == (1, 3)
    assert builder.fits(MAX_PACK_SIZE - 3)
    assert not builder.fits(MAX_PACK_SIZE - 2)


def test_builder_streams_files() -> None:
    data = b"0123456789" * 100_000
    builder = PackBuilder()
    builder.add(ContentHash.of(b"abc"), b"abc")
    builder.add_file(ContentHash.of(data), len(data), lambda: io.BytesIO(data))
    header = builder.header()
    pieces = list(builder.stream())
    assert len(pieces) > 3
    assert [found for _, found in run(header, b"".join(pieces)[len(header) :])] == [b"abc", data]


@pytest.mark.parametrize("size", [2, 4])
def test_builder_notices_a_file_that_changed(size: int) -> None:
    builder = PackBuilder()
    builder.add_file(ContentHash.of(b"abc"), size, lambda: io.BytesIO(b"abc"))
    with pytest.raises(ObjectPackError, match="any more"):
        b"".join(builder.stream())
