"""Cuts: those of deployed publishers, however the input is divided."""

from __future__ import annotations

import random
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfs_objstore.chunking import Chunker, rolling_value
from cvmfs_objstore.chunksizes import DEFAULT_SIZES, WINDOW, ChunkSizes
from cvmfs_objstore.errors import FormatError
from tests.objstore.large_files import LARGE_FILES

RECORDED: Final[dict[str, list[int]]] = {
    "noise": [4445387, 18564757],
    "patchwork": [4202522, 8396829, 12591133, 17047577, 21241885],
    "zeros": [16777216],
    "ones": [4194304],
    "ones in noise": [5242913, 11788560],
    "shortest": [],
    "shortest and one": [],
    "longest": [],
    "longest and one": [16777216],
    "twice": [12405569],
    "twice, shifted": [12405576],
}
"""Where ``cvmfs_server publish`` of 2.12 cuts these files; ``tests/e2e/test_ingest_names.py`` asks it again."""

CENTRE: Final = (1 << 31) - 1
SMALL: Final = ChunkSizes(64, 256, 1024)
FEW_BITS: Final = ChunkSizes(40, 3_000_000, 4_000_000)
"""With a threshold so low that the search by halves is used; cuts are then rare."""


def cuts_of(data: bytes, sizes: ChunkSizes, steps: list[int] | None = None) -> list[int]:
    """The cuts of *data*, given in pieces of these lengths, again and again."""
    chunker = Chunker(sizes)
    steps = steps or [len(data) or 1]
    found: list[int] = []
    at = turn = 0
    while at < len(data):
        step = steps[turn % len(steps)]
        found += chunker.feed(memoryview(data)[at : at + step])
        at, turn = at + step, turn + 1
    return [cut for cut in found if cut < len(data)]


def slowly(data: bytes, sizes: ChunkSizes) -> list[int]:
    """The definition, byte by byte."""
    found: list[int] = []
    last = value = 0
    for at, byte in enumerate(data):
        value = (value << 1 ^ byte) & 0xFFFFFFFF
        length = at - last
        near = abs(value - CENTRE) < sizes.threshold or value == 0xFFFFFFFF
        if length >= sizes.smallest and (near or length == sizes.largest):
            found.append(at)
            last = at
    return found


@pytest.mark.parametrize("name", LARGE_FILES)
def test_recorded_cuts(name: str) -> None:
    assert cuts_of(LARGE_FILES[name](), DEFAULT_SIZES, [1 << 20]) == RECORDED[name]


@given(
    seed=st.integers(0, 1000),
    size=st.integers(0, 200_000),
    steps=st.lists(st.sampled_from([1, 2, 30, 31, 32, 33, 63, 64, 1000, 32768, 40_000]), min_size=1, max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_any_division_of_the_input(seed: int, size: int, steps: list[int]) -> None:
    data = random.Random(seed).randbytes(size)
    if max(steps) < 30:
        data = data[:5000]
    assert cuts_of(data, SMALL, steps) == slowly(data, SMALL)


@given(data=st.binary(max_size=3000), step=st.integers(1, 500))
@settings(deadline=None)
def test_any_bytes(data: bytes, step: int) -> None:
    assert cuts_of(data * 3, SMALL, [step]) == slowly(data * 3, SMALL)


def window_of(value: int) -> bytes:
    """Bytes after which the rolling value is *value*, whatever was before: each gives its lowest bit."""
    return bytes(value >> bit & 1 for bit in reversed(range(WINDOW)))


@given(st.integers(0, 0xFFFFFFFF))
def test_window_of(value: int) -> None:
    assert rolling_value(b"before" + window_of(value)) == value


@pytest.mark.parametrize("sizes", [FEW_BITS, SMALL], ids=["by halves", "as a whole"])
@pytest.mark.parametrize("at", [100, 32767, 32768, 32769, 40_000, 70_000])
def test_how_close_is_close(sizes: ChunkSizes, at: int) -> None:
    """Right at the threshold, on both sides, wherever in the input and however that is divided."""
    near = sizes.threshold
    for value in (CENTRE - near, CENTRE - near + 1, CENTRE, CENTRE + 1, CENTRE + near - 1, CENTRE + near):
        # Sixteens change the value but keep it far from the centre.
        data = b"\x10" * (at - WINDOW + 1) + window_of(value) + b"\x10" * 100
        expected = slowly(data, sizes)
        assert (at in expected) is (abs(value - CENTRE) < near) or sizes is SMALL
        for steps in ([len(data)], [at], [at + 1], [at - 7, 3]):
            assert cuts_of(data, sizes, steps) == expected


@pytest.mark.parametrize("sizes", [FEW_BITS, SMALL], ids=["by halves", "as a whole"])
def test_all_bits_set(sizes: ChunkSizes) -> None:
    """As far from the centre as can be, and still a cut."""
    assert rolling_value(b"\1" * WINDOW) == 0xFFFFFFFF
    assert cuts_of(b"\1" * 200, sizes) == slowly(b"\1" * 200, sizes) != []


@given(st.binary(min_size=1, max_size=40), st.sampled_from([FEW_BITS, SMALL]))
@settings(deadline=None)
def test_repeated_bytes(pattern: bytes, sizes: ChunkSizes) -> None:
    """Where many positions look like a cut and none, or each, is one."""
    data = pattern * (5000 // len(pattern))
    assert cuts_of(data, sizes) == slowly(data, sizes)


def test_cut_by_length_at_the_end_of_a_piece() -> None:
    sizes = ChunkSizes(40, 3_000_000, 3_000_001)
    data = bytes(9_000_003)
    for step in (3_000_001, 1_000_000, len(data)):
        assert cuts_of(data, sizes, [step]) == [3_000_001, 6_000_002]


@pytest.mark.parametrize("sizes", [(31, 100, 200), (100, 100, 200), (100, 200, 200), (300, 200, 100), (1, 2, 1 << 32)])
def test_sizes_out_of_order(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(FormatError):
        ChunkSizes(*sizes)
