"""Sets of object names in little memory."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from cvmfs_gw.care.digests import (
    FOLDERS,
    DigestSet,
    compression_of,
    file_names,
    name_of_record,
    record_of,
    size_of,
)
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix

names = st.builds(
    ContentHash, st.binary(min_size=20, max_size=20), st.sampled_from(list(Algorithm)), st.sampled_from(list(Suffix))
)


@given(st.lists(names, max_size=50))
def test_as_a_set(found: list[ContentHash]) -> None:
    made = DigestSet()
    for name in found * 2:
        made.add(name)
    assert {name_of_record(record) for record in made} == set(found)
    assert len(made) == len(set(found))
    for name in found:
        assert name in made
        assert record_of(name) in made.folder(name.digest[0])
    assert ContentHash.of(b"none of them") not in made


@given(st.lists(names, max_size=20), st.lists(names, max_size=20))
def test_update(first: list[ContentHash], second: list[ContentHash]) -> None:
    made, other = DigestSet(), DigestSet()
    for name in first:
        made.add(name)
    for name in second:
        other.add(name)
    made.update(other)
    assert {name_of_record(record) for record in made} == {*first, *second}
    assert {name_of_record(record) for record in other} == {*second}


@given(names, st.integers(0, 7), st.integers(0, (1 << 48) - 1))
def test_sizes(name: ContentHash, compression: int, size: int) -> None:
    made = DigestSet(sizes=True)
    made.add(name, compression, size)
    (record,) = made
    assert (name_of_record(record), compression_of(record), size_of(record)) == (name, compression, size)


def test_memory() -> None:
    """Repeated names cost nothing in the end, and different ones a little more than their bytes."""
    tracemalloc.start()
    try:
        made = DigestSet()
        for _ in range(3):
            for number in range(30_000):
                digest = (number * 0x9E3779B97F4A7C15 % (1 << 160)).to_bytes(20, "little")
                made.add(ContentHash(digest))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(made) == 30_000
    assert size < FOLDERS * 4096 * 21 * 2


@given(st.lists(names, max_size=20))
def test_file_names(found: list[ContentHash]) -> None:
    made = DigestSet()
    for name in found * 2:
        made.add(name)
    for number in range(FOLDERS):
        wanted = {name.path.rsplit("/", 1)[1] for name in found if name.digest[0] == number}
        assert file_names(made.packed(number)) == wanted
