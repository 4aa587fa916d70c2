"""Streams in pieces: what any zlib inflates, and the same whatever was taken over from an earlier version."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_objstore import piecewise
from cvmfs_objstore.compression import inflate
from cvmfs_objstore.piecewise import LENGTH, OTHER_HEADER, Deflated

SIZES = [0, 1, LENGTH - 1, LENGTH, LENGTH + 1, 5 * LENGTH + 7, (piecewise.TWO_THREADS + 3) * LENGTH + 1]


def rows(size: int) -> bytes:
    """Something that deflates as a catalog does."""
    return b"".join(b"row %d of a large catalog\0" % n for n in range(size // 20 + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_every_length(size: int) -> None:
    plain = rows(size)
    deflated = Deflated.of(plain)
    stored = deflated.stream()
    assert inflate(stored, size) == plain
    assert zlib.decompress(stored) == plain
    other = deflated.stream(OTHER_HEADER)
    assert inflate(other, size) == plain
    assert other != stored
    assert other[2:] == stored[2:]
    assert len(stored) < size / 2 + 16
    assert len(plain) <= deflated.size <= size + len(stored)


@given(
    st.lists(st.tuples(st.integers(0, 6 * LENGTH), st.binary(min_size=1, max_size=9)), max_size=4), st.integers(0, 7)
)
def test_the_same_with_and_without_an_earlier_version(changes: list[tuple[int, bytes]], pieces: int) -> None:
    before = rows(4 * LENGTH + 99)
    earlier = Deflated.of(before)
    changed = bytearray(before)
    for at, data in changes:
        changed[at : at + len(data)] = data
    plain = bytes(changed[: pieces * LENGTH])
    later = Deflated.of(plain, earlier)
    assert later == Deflated.of(plain)
    assert zlib.decompress(later.stream()) == plain


def test_pieces_that_did_not_change_are_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = Deflated.of(rows(6 * LENGTH))
    made = []
    deflate = piecewise._deflate

    def counted(plain: memoryview) -> object:
        made.append(len(plain))
        return deflate(plain)

    monkeypatch.setattr(piecewise, "_deflate", counted)
    plain = bytearray(earlier.plain)
    plain[3 * LENGTH] ^= 1
    plain += b"more"
    assert zlib.decompress(Deflated.of(bytes(plain), earlier).stream()) == plain
    assert made == [LENGTH, 4]
