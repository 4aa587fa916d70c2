"""Directory entries: path keys, flags, hard link data, xattr blobs, counters."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_objstore.errors import FormatError
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.entry import (
    COUNTER_NAMES,
    FLAG_BIND_MOUNTPOINT,
    FLAG_CHUNKED,
    FLAG_DIRECT_IO,
    FLAG_DIRECTORY,
    FLAG_EXTERNAL,
    FLAG_FILE,
    FLAG_HIDDEN,
    FLAG_LINK,
    FLAG_MOUNTPOINT,
    FLAG_NESTED_ROOT,
    FLAG_SPECIAL,
    Chunk,
    Counters,
    Entry,
    Kind,
    is_below,
    name_of,
    pack_xattrs,
    parent_path,
    path_key,
    storage_flags,
    unpack_xattrs,
)
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from tests.objstore import reference_databases as reference


def entry(
    flags: int, size: int = 0, hardlinks: int = 1, xattr: bytes | None = None, digest: bytes | None = None
) -> Entry:
    return Entry(hardlinks, digest, size, 0o644, 0, None, flags, "name", "", 0, 0, xattr)


def test_flag_bits() -> None:
    """The bits as clients know them."""
    bits = (
        FLAG_DIRECTORY,
        FLAG_MOUNTPOINT,
        FLAG_FILE,
        FLAG_LINK,
        FLAG_SPECIAL,
        FLAG_NESTED_ROOT,
        FLAG_CHUNKED,
        FLAG_EXTERNAL,
        FLAG_BIND_MOUNTPOINT,
        FLAG_HIDDEN,
        FLAG_DIRECT_IO,
    )
    assert bits == (1, 2, 4, 8, 16, 32, 64, 128, 1 << 14, 1 << 15, 1 << 16)


def test_path_keys_are_those_of_a_real_catalog() -> None:
    with Catalog.load(zlib.decompress(reference.ROOT_CATALOG)) as catalog:
        keys = set(catalog.connection.execute("SELECT md5path_1, md5path_2 FROM catalog"))
        paths = ["", *(path for path, _ in catalog.walk(""))]
    assert "/dir/n\udcff\udcfe" in paths
    assert {path_key(path) for path in paths} == keys
    # md5 of nothing: d41d8cd98f00b204e9800998ecf8427e
    assert path_key("") == (0x04B2008FD98C1DD4, 0x7E42F8EC980980E9)


@pytest.mark.parametrize(
    ("path", "parent", "name"),
    [("", "", ""), ("/a", "", "a"), ("/a/b", "/a", "b"), ("/a/b c/\udcff", "/a/b c", "\udcff")],
)
def test_path_parts(path: str, parent: str, name: str) -> None:
    assert parent_path(path) == parent
    assert name_of(path) == name


@pytest.mark.parametrize(
    ("path", "top", "below"),
    [
        ("", "", True),
        ("/a", "", True),
        ("/a", "/a", True),
        ("/a/b", "/a", True),
        ("/ab", "/a", False),
        ("/a-b", "/a", False),
        ("/a", "/a/b", False),
        ("", "/a", False),
    ],
)
def test_is_below(path: str, top: str, below: bool) -> None:
    assert is_below(path, top) is below


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        (FLAG_DIRECTORY, Kind.DIRECTORY),
        (FLAG_DIRECTORY | FLAG_MOUNTPOINT, Kind.DIRECTORY),
        (FLAG_DIRECTORY | FLAG_NESTED_ROOT | FLAG_HIDDEN, Kind.DIRECTORY),
        (FLAG_FILE, Kind.FILE),
        (FLAG_FILE | FLAG_CHUNKED | FLAG_EXTERNAL, Kind.FILE),
        (FLAG_FILE | FLAG_LINK, Kind.SYMLINK),
        (FLAG_FILE | FLAG_SPECIAL, Kind.SPECIAL),
    ],
)
def test_kinds(flags: int, kind: Kind) -> None:
    found = entry(flags)
    assert found.kind is kind
    assert found.is_directory is (kind is Kind.DIRECTORY)
    assert found.is_chunked is bool(flags & FLAG_CHUNKED)
    assert found.is_external is bool(flags & FLAG_EXTERNAL)


@given(group=st.integers(0, 2**31 - 1), count=st.integers(1, 2**32 - 1))
def test_hard_link_column(group: int, count: int) -> None:
    linked = entry(FLAG_FILE).with_links(count, group)
    assert (linked.hardlink_group, linked.linkcount) == (group, count)
    assert linked.hardlinks == group * 2**32 + count
    assert linked._replace(hardlinks=1) == entry(FLAG_FILE)


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("compression", [0, 1])
def test_storage_flags(algorithm: Algorithm, compression: int) -> None:
    digest = bytes(range(20))
    found = entry(FLAG_FILE | storage_flags(algorithm, compression), digest=digest)
    assert found.algorithm is algorithm
    assert found.compression == compression
    assert found.content_hash == ContentHash(digest, algorithm)
    assert found.chunk_hash(Chunk(0, 1, digest)) == ContentHash(digest, algorithm, Suffix.CHUNK)
    assert found.kind is Kind.FILE
    assert entry(found.flags).content_hash is None


def test_storage_flags_as_they_are_stored() -> None:
    assert storage_flags(Algorithm.SHA1, 0) == 0
    assert storage_flags(Algorithm.RMD160, 0) == 1 << 8
    assert storage_flags(Algorithm.SHAKE128, 1) == 2 << 8 | 1 << 11


def test_unknown_algorithm() -> None:
    with pytest.raises(FormatError, match="unknown hash algorithm 8"):
        entry(FLAG_FILE | 7 << 8).algorithm  # noqa: B018


# -- extended attributes

keys = st.binary(min_size=1, max_size=255).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
xattrs = st.dictionaries(keys, st.binary(max_size=255), max_size=8)


@given(attributes=xattrs)
def test_xattrs_both_ways(attributes: dict[str, bytes]) -> None:
    blob = pack_xattrs(attributes)
    assert (blob is None) is (not attributes)
    assert unpack_xattrs(blob) == attributes
    assert pack_xattrs(unpack_xattrs(blob)) == blob


@given(blob=st.binary(max_size=60) | st.binary(max_size=60).map(lambda rest: b"\x01" + rest))
def test_any_blob_is_read_or_refused(blob: bytes) -> None:
    try:
        attributes = unpack_xattrs(blob)
    except FormatError:
        return
    assert len(attributes) <= (blob[1] if blob else 0)


def test_xattrs_of_a_real_catalog() -> None:
    with Catalog.load(zlib.decompress(reference.ROOT_CATALOG)) as catalog:
        file, directory, plain = (catalog.get(path) for path in ("/dir/file", "/dir", "/links"))
    assert file is not None
    assert directory is not None
    assert plain is not None
    assert unpack_xattrs(file.xattr) == {"user.colour": b"blue", "user.size": b"a" * 200}
    assert directory.xattr == b"\x01\x01\x06\x01user.d1"
    assert unpack_xattrs(plain.xattr) == {}
    for found in (file, directory, plain):
        assert pack_xattrs(unpack_xattrs(found.xattr)) == found.xattr


def test_xattr_limits() -> None:
    longest = {"k" * 255: b"v" * 255}
    assert unpack_xattrs(pack_xattrs(longest)) == longest
    many = {f"user.{number}": b"" for number in range(255)}
    assert unpack_xattrs(pack_xattrs(many)) == many
    for bad in ({"": b""}, {"k" * 256: b""}, {"ä" * 128: b""}, {"k": bytes(256)}, many | {"one.more": b""}):
        with pytest.raises(FormatError):
            pack_xattrs(bad)


@pytest.mark.parametrize(
    "blob",
    [b"\x02\x00", b"\x01", b"\x01\x01", b"\x01\x01\x01", b"\x01\x01\x02\x01ab", b"\x01\x00x", b"\x01\x01\x01\x01abc"],
)
def test_broken_xattrs(blob: bytes) -> None:
    with pytest.raises(FormatError):
        unpack_xattrs(blob)


# -- counters

COUNTED = [
    (entry(FLAG_DIRECTORY, 4096), 0, Counters(dir=1)),
    (entry(FLAG_DIRECTORY | FLAG_MOUNTPOINT, 4096), 0, Counters(dir=1)),
    (entry(FLAG_DIRECTORY | FLAG_BIND_MOUNTPOINT, 4096), 0, Counters(dir=1)),
    (entry(FLAG_FILE, 10, xattr=b"\x01\x00"), 0, Counters(regular=1, file_size=10, xattr=1)),
    (entry(FLAG_FILE | FLAG_LINK, 10), 0, Counters(symlink=1)),
    (entry(FLAG_FILE | FLAG_SPECIAL, 259), 0, Counters(special=1)),
    (
        entry(FLAG_FILE | FLAG_CHUNKED, 30),
        3,
        Counters(regular=1, file_size=30, chunked=1, chunks=3, chunked_size=30),
    ),
    (
        entry(FLAG_FILE | FLAG_EXTERNAL, 20),
        0,
        Counters(regular=1, file_size=20, external=1, external_file_size=20),
    ),
]


@pytest.mark.parametrize(("counted", "chunks", "expected"), COUNTED)
def test_what_an_entry_counts_for(counted: Entry, chunks: int, expected: Counters) -> None:
    counters = Counters()
    counters.count(counted, chunks)
    assert counters == expected
    assert counters.entries == 1
    assert counters
    counters.count(counted, chunks, -1)
    assert counters == Counters()
    assert not counters


def test_counter_names() -> None:
    """Exactly those that clients and ``check`` expect."""
    with Catalog.load(zlib.decompress(reference.ROOT_CATALOG)) as catalog:
        stored = {row[0] for row in catalog.connection.execute("SELECT counter FROM statistics")}
    assert {f"{scope}_{name}" for scope in ("self", "subtree") for name in COUNTER_NAMES} == stored


counter_values = st.builds(Counters, *[st.integers(-100, 100)] * len(COUNTER_NAMES))


@given(one=counter_values, other=counter_values)
def test_sums(one: Counters, other: Counters) -> None:
    total = Counters()
    total.add(one)
    total.add(other)
    assert all(getattr(total, name) == getattr(one, name) + getattr(other, name) for name in COUNTER_NAMES)
    total.add(other, -1)
    assert total == one
