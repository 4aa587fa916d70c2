"""The codecs: stock bytes, bounded and strict inflating."""

from __future__ import annotations

import io
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfs_objstore.compression import (
    PIECE,
    STOCK_ZLIB,
    Compression,
    Deflater,
    FastDeflater,
    Inflater,
    deflate,
    deflate_fast,
    inflate,
    inflate_stream,
)
from cvmfs_objstore.errors import FormatError, ObjectCorrupt, ObjectTooLarge

HELLO = b"hello, hello, hello\n"
HELLO_STOCK = bytes.fromhex("789ccb48cdc9c9d751c840a2b8004b0706df")
EMPTY_STOCK = bytes.fromhex("789c030000000001")

plain = st.one_of(
    st.binary(max_size=2000),
    st.builds(lambda unit, count: unit * count, st.binary(min_size=1, max_size=50), st.integers(0, 20_000)),
)


def inflate_in_steps(data: bytes, max_size: int, step: int) -> bytes:
    inflater = Inflater(max_size)
    out = [p for i in range(0, len(data), step) for p in inflater.update(data[i : i + step])]
    inflater.finish()
    assert all(0 < len(p) <= PIECE for p in out)
    assert inflater.size == sum(map(len, out))
    return b"".join(out)


@pytest.mark.skipif(not STOCK_ZLIB, reason="this Python runs on zlib-ng, whose bytes differ")
def test_stock_bytes() -> None:
    assert deflate(b"") == EMPTY_STOCK
    assert deflate(HELLO) == HELLO_STOCK
    assert inflate(EMPTY_STOCK, 0) == b""
    assert inflate(HELLO_STOCK, len(HELLO)) == HELLO


def test_config_names() -> None:
    assert Compression.from_config("default") is Compression.ZLIB
    assert Compression.from_config("zlib") is Compression.ZLIB
    assert Compression.from_config("none") is Compression.NONE
    for codec in Compression:
        assert Compression.from_config(codec.config_name) is codec
    with pytest.raises(FormatError):
        Compression.from_config("zstd")


@given(plain)
def test_round_trips(data: bytes) -> None:
    for stored in (deflate(data), deflate_fast(data)):
        assert zlib.decompress(stored) == data
        assert inflate(stored, len(data)) == data
        out = io.BytesIO()
        assert inflate_stream(io.BytesIO(stored), out.write, len(data)) == len(data)
        assert out.getvalue() == data
    for codec in Compression:
        assert codec.decode(codec.encode(data), len(data)) == data


@given(plain, st.integers(1, 4000))
@settings(deadline=None)
def test_streaming_gives_the_same_bytes_however_cut(data: bytes, step: int) -> None:
    deflater = Deflater()
    stored = b"".join(deflater.update(data[i : i + step]) for i in range(0, len(data), step)) + deflater.finish()
    assert stored == deflate(data)
    assert inflate_in_steps(stored, len(data), step) == data


@given(plain, st.integers(1000, 40_000))
@settings(deadline=None)
def test_fast_streaming(data: bytes, step: int) -> None:
    """Any zlib inflates it; how it was cut shows."""
    deflater = FastDeflater()
    stored = b"".join(deflater.update(data[i : i + step]) for i in range(0, len(data), step)) + deflater.finish()
    assert inflate(stored, len(data)) == data


@given(plain.filter(bool))
def test_too_large(data: bytes) -> None:
    stored = deflate(data)
    with pytest.raises(ObjectTooLarge):
        inflate(stored, len(data) - 1)
    with pytest.raises(ObjectTooLarge):
        inflate_in_steps(stored, len(data) - 1, 7)
    with pytest.raises(ObjectTooLarge):
        Compression.NONE.decode(data, len(data) - 1)
    with pytest.raises(ObjectTooLarge):
        list(Compression.NONE.decoder(len(data) - 1).update(data))


@given(st.binary(min_size=1, max_size=300), st.data())
def test_truncated_or_trailing(data: bytes, draw: st.DataObject) -> None:
    stored = deflate(data)
    cut = stored[: draw.draw(st.integers(0, len(stored) - 1))]
    longer = stored + draw.draw(st.binary(min_size=1, max_size=5))
    for bad in (cut, longer):
        with pytest.raises(ObjectCorrupt):
            inflate(bad, 1000)
        with pytest.raises(ObjectCorrupt):
            inflate_in_steps(bad, 1000, 1)
        with pytest.raises(ObjectCorrupt):
            inflate_stream(io.BytesIO(bad), lambda piece: None, 1000)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"plain text, not compressed",
        HELLO_STOCK[:-1] + b"\0",  # checksum
        HELLO_STOCK[2:],  # raw deflate
        zlib.compress(HELLO, wbits=31),  # gzip
        b"\x78\xbb" + HELLO_STOCK[2:],  # preset dictionary
    ],
)
def test_not_zlib(bad: bytes) -> None:
    with pytest.raises(ObjectCorrupt):
        inflate(bad, 1000)
    with pytest.raises(ObjectCorrupt):
        inflate_in_steps(bad, 1000, 3)


@given(st.binary(min_size=1, max_size=300), st.data())
def test_refuses_what_zlib_refuses(data: bytes, draw: st.DataObject) -> None:
    """Clients inflate with zlib: nothing may pass here that they cannot read."""
    stored = bytearray(deflate(data))
    for place in draw.draw(st.lists(st.integers(0, len(stored) - 1), min_size=1, max_size=3)):
        stored[place] = draw.draw(st.integers(0, 255))
    engine = zlib.decompressobj()
    try:
        expected = engine.decompress(bytes(stored))
    except zlib.error:
        expected = None
    if expected is None or not engine.eof or engine.unused_data:
        with pytest.raises(ObjectCorrupt):
            inflate(stored, 1 << 20)
    else:
        assert inflate(stored, 1 << 20) == expected


def test_references_to_before_the_beginning() -> None:
    # one block with fixed codes: the letter a, and three bytes from five before
    stored = bytes.fromhex("789c4b04120000000001")
    with pytest.raises(zlib.error, match="too far back"):
        zlib.decompressobj().decompress(stored)
    with pytest.raises(ObjectCorrupt):
        inflate(stored, 1000)


def test_bomb_is_not_expanded() -> None:
    bomb = deflate(bytes(50_000_000))
    with pytest.raises(ObjectTooLarge):
        inflate(bomb, 1000)
    inflater = Inflater(1_000_000)
    made: list[int] = []
    with pytest.raises(ObjectTooLarge):
        made.extend(map(len, inflater.update(bomb)))
    assert sum(made) <= 1_000_000


def test_negative_limit() -> None:
    with pytest.raises(ValueError, match="negative"):
        inflate(EMPTY_STOCK, -1)
    with pytest.raises(ValueError, match="negative"):
        Inflater(-1)


def test_uncompressed_codec_streams() -> None:
    encoder = Compression.NONE.encoder()
    assert encoder.update(b"abc") + encoder.finish() == b"abc"
    data = bytes(PIECE + 5)
    decoder = Compression.NONE.decoder(len(data))
    assert [len(p) for p in decoder.update(data)] == [PIECE, 5]
    decoder.finish()


def test_zlib_codec_streams() -> None:
    encoder = Compression.ZLIB.encoder()
    stored = encoder.update(HELLO) + encoder.finish()
    assert stored == deflate(HELLO)
    decoder = Compression.ZLIB.decoder(100)
    assert b"".join(decoder.update(stored)) == HELLO
    decoder.finish()
