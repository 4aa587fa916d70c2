"""Archives of every kind become what is in them, and hostile ones nothing."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import random
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfs_gw.ingest import archive, inputs, tarheader, tarsparse
from cvmfs_gw.ingest.archive import ArchiveSource, normalized
from cvmfs_gw.ingest.errors import BadArchive, BadSource, IngestError, SourceTooLarge
from cvmfs_gw.ingest.gather import Devices, GatherOptions
from cvmfs_gw.ingest.inputs import Readable
from cvmfs_gw.ingest.items import Item, Whiteout
from tests.ingest.support import Seen, read_source, tree_of

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
COMPRESSIONS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "two gzip members": lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
    "two zstd frames": lambda data: zstandard.compress(data[:700]) + zstandard.compress(data[700:]),
}
REGULAR: Final = stat.S_IFREG | 0o644


class Dribble:
    """A pipe that gives little at a time."""

    def __init__(self, data: bytes, most: int = 97) -> None:
        self._file, self._most = io.BytesIO(data), most

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._most))


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def packed(members: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT, end: bool = True) -> bytes:
    """An archive of headers as they are given, each with its content."""
    out = io.BytesIO()
    for info, content in members:
        if info.isreg():
            info.size = len(content)
        out.write(info.tobuf(form, "utf-8", "surrogateescape"))  # type: ignore[arg-type]
        out.write(content + bytes(-len(content) % 512))
    return out.getvalue() + (bytes(1024) if end else b"")


def read(data: bytes, **options: object) -> dict[str, Seen | None]:
    return tree_of(ArchiveSource(io.BytesIO(data)), GatherOptions(**options))  # type: ignore[arg-type]


def one_of_everything() -> list[tuple[tarfile.TarInfo, bytes]]:
    large = random.Random(1).randbytes(archive.AT_ONCE + 4321)
    return [
        (member("./", tarfile.DIRTYPE, mode=0o755), b""),
        (member("./d/", tarfile.DIRTYPE, mode=0o1777, uid=7, gid=8, mtime=12), b""),
        (member("./d/file", mode=0o4755, uid=1000, gid=1001, mtime=1_600_000_000), b"content"),
        (member("./d/empty"), b""),
        (member("./d/large"), large),
        (member("d/exactly"), bytes(512)),
        (member("d/" + "n" * 90 + "/" + "m" * 90), b"long name"),
        (member("d/link", tarfile.SYMTYPE, linkname="../elsewhere"), b""),
        (member("d/hard", tarfile.LNKTYPE, linkname="./d/file"), b""),
        (member("d/fifo", tarfile.FIFOTYPE, mode=0o600), b""),
        (member("d/null", tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
        (member("d/disk", tarfile.BLKTYPE, devmajor=259, devminor=1 << 17), b""),
    ]


def expected() -> dict[str, Seen | None]:
    file = Seen(stat.S_IFREG | 0o4755, (1000, 1001), 1_600_000_000 * 10**9, b"content")
    return {
        "": Seen(stat.S_IFDIR | 0o755),
        "/d": Seen(stat.S_IFDIR | 0o1777, (7, 8), 12 * 10**9),
        "/d/file": file,
        "/d/empty": Seen(REGULAR, content=b""),
        "/d/large": Seen(REGULAR, content=random.Random(1).randbytes(archive.AT_ONCE + 4321)),
        "/d/exactly": Seen(REGULAR, content=bytes(512)),
        "/d/" + "n" * 90: None,
        "/d/" + "n" * 90 + "/" + "m" * 90: Seen(REGULAR, content=b"long name"),
        "/d/link": Seen(stat.S_IFLNK | 0o777, content="../elsewhere"),
        "/d/hard": file,
        "/d/fifo": Seen(stat.S_IFIFO | 0o600, content=0),
        "/d/null": Seen(stat.S_IFCHR | 0o644, content=os.makedev(1, 3)),
        "/d/disk": Seen(stat.S_IFBLK | 0o644, content=os.makedev(259, 1 << 17)),
    }


@pytest.mark.parametrize("form", FORMATS)
def test_formats(form: str) -> None:
    assert read(packed(one_of_everything(), FORMATS[form])) == expected()


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("wrap", [io.BytesIO, Dribble], ids=["file", "pipe"])
def test_compressions(name: str, wrap: Callable[[bytes], Readable]) -> None:
    """Told by the first bytes; also from something that gives little at a time."""
    data = COMPRESSIONS[name](packed(one_of_everything()))
    assert tree_of(ArchiveSource(wrap(data))) == expected()


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_cut_off_anywhere(name: str) -> None:
    """No part of an archive is taken for all of it, also where it ends between two members."""
    plain = packed(one_of_everything()[:4] + one_of_everything()[5:], end=False)
    data = COMPRESSIONS[name](plain + bytes(512))
    read(data)
    ends = range(0, len(plain) + 1, 512) if name == "plain" else range(0, len(data) - 20, 7)
    for end in ends:
        with pytest.raises(BadArchive):
            read(data[:end])


def test_without_the_empty_blocks_at_the_end() -> None:
    source = ArchiveSource(io.BytesIO(packed(one_of_everything(), end=False)), is_verified=True)
    assert tree_of(source) == expected()


def test_what_follows_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cares, but it is read, as there may be a checksum behind it; unless it is too much."""
    data = packed(one_of_everything()) + b"x" * 5000
    assert read(data) == expected()
    monkeypatch.setattr(inputs, "MAX_TRAILING", 1000)
    with pytest.raises(BadArchive):
        read(data)


def test_fractions_of_seconds() -> None:
    info = member("f")
    info.pax_headers = {"mtime": "1350244992.023960108"}
    old = member("g")
    old.pax_headers = {"mtime": "-1.5"}
    found = read(packed([(info, b""), (old, b"")]))
    assert [found[path].mtime for path in ("/f", "/g")] == [1350244992023960108, -1_500_000_000]  # type: ignore[union-attr]


def test_attributes() -> None:
    """As GNU tar and bsdtar write them; only those of the kinds that are asked for, and none that is too long."""
    info = member("f")
    info.pax_headers = {
        "SCHILY.xattr.user.a": "1=2\n3",
        "SCHILY.xattr.user.long": "x" * 256,
        "SCHILY.xattr.security.selinux": "label",
        "SCHILY.xattr.security.capability": "c",
        "LIBARCHIVE.xattr.user.b%20c": "AAE",
    }
    data = packed([(info, b"")])
    seen = read(data)["/f"]
    assert seen is not None
    assert dict(seen.xattrs) == {"user.a": b"1=2\n3", "security.capability": b"c", "user.b c": b"\x00\x01"}
    [item] = ArchiveSource(io.BytesIO(data), xattrs=()).items()
    assert isinstance(item, Item)
    assert item.xattrs is None


def test_names_that_are_not_utf8() -> None:
    found = read(
        packed([(member("a\udcff"), b"x"), (member("l", tarfile.SYMTYPE, linkname="\udcfe"), b"")], FORMATS["gnu"])
    )
    assert set(found) == {"", "/a\udcff", "/l"}
    assert found["/l"] == Seen(stat.S_IFLNK | 0o777, content="\udcfe")


def test_common_records() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"uid": "1234"}) as made:
        made.addfile(member("a"))
        one = member("b")
        one.pax_headers = {"uid": "5"}
        made.addfile(one)
    found = read(out.getvalue())
    assert [found[path].owner for path in ("/a", "/b")] == [(1234, 0), (5, 0)]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["gnu", "0.0", "0.1", "1.0"])
@pytest.mark.parametrize("segments", [0, 1, 3, 40])
def test_sparse(tmp_path: Path, kind: str, segments: int) -> None:
    """In all four formats, with a hole at the front and at the end, as GNU tar writes them."""
    if shutil.which("tar") is None:
        pytest.skip("no tar program")
    with open(tmp_path / "s", "wb") as file:
        for number in range(segments):
            file.seek(65536 * (2 * number + 1))
            file.write(bytes([number + 1]) * 5000)
        file.truncate(65536 * (2 * segments + 1))
    (tmp_path / "z").write_bytes(b"after it")
    form = ["-H", "gnu"] if kind == "gnu" else ["-H", "pax", f"--sparse-version={kind}"]
    command = ["tar", "-C", str(tmp_path), *form, "--hole-detection=raw", "-Scf", "-", "s", "z"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    assert len(data) < 65536 * (2 * segments + 1) or not segments
    for wrap in (io.BytesIO, Dribble):
        found = tree_of(ArchiveSource(wrap(data)))
        assert set(found) == {"", "/s", "/z"}
        for name in ("s", "z"):
            seen = found[f"/{name}"]
            assert seen is not None
            assert seen.content == (tmp_path / name).read_bytes()


def test_repeated_names() -> None:
    """What comes last counts; directories keep what is in them, and their last attributes."""
    found = read(
        packed(
            [
                (member("f"), b"old"),
                (member("d/x"), b"kept"),
                (member("d", tarfile.DIRTYPE, mode=0o700), b""),
                (member("f"), b"new"),
                (member("d", tarfile.DIRTYPE, mode=0o711), b""),
                (member("was", tarfile.SYMTYPE, linkname="f"), b""),
                (member("was", tarfile.DIRTYPE, mode=0o755), b""),
                (member("was/in"), b"y"),
                (member("gone", tarfile.DIRTYPE), b""),
                (member("gone"), b"a file"),
            ]
        )
    )
    assert found == {
        "": None,
        "/f": Seen(REGULAR, content=b"new"),
        "/d": Seen(stat.S_IFDIR | 0o711),
        "/d/x": Seen(REGULAR, content=b"kept"),
        "/was": Seen(stat.S_IFDIR | 0o755),
        "/was/in": Seen(REGULAR, content=b"y"),
        "/gone": Seen(REGULAR, content=b"a file"),
    }


def test_hard_links() -> None:
    """To what came before, at that time; to what comes later; to links."""
    found = read(
        packed(
            [
                (member("one"), b"first"),
                (member("two", tarfile.LNKTYPE, linkname="/one"), b""),
                (member("one"), b"second"),
                (member("three", tarfile.LNKTYPE, linkname="four"), b""),
                (member("four", tarfile.LNKTYPE, linkname="./five"), b""),
                (member("five", tarfile.SYMTYPE, linkname="x"), b""),
            ]
        )
    )
    assert [found[f"/{name}"].content for name in ("one", "two", "three", "four")] == [b"second", b"first", "x", "x"]  # type: ignore[union-attr]


HOSTILE: Final[dict[str, list[tuple[tarfile.TarInfo, bytes]]]] = {
    "climbs": [(member("../out"), b"")],
    "climbs in the middle": [(member("a/../../out"), b"")],
    "climbs behind a slash": [(member("/.."), b"")],
    "through a symbolic link": [(member("l", tarfile.SYMTYPE, linkname="/etc"), b""), (member("l/passwd"), b"")],
    "through a link of a link": [
        (member("a", tarfile.SYMTYPE, linkname="."), b""),
        (member("b", tarfile.LNKTYPE, linkname="a"), b""),
        (member("b/x"), b""),
    ],
    "into a file": [(member("f"), b""), (member("f/x"), b"")],
    "a file in place of a full directory": [(member("d/x"), b""), (member("d"), b"")],
    "a link out": [(member("l", tarfile.LNKTYPE, linkname="../../etc/passwd"), b"")],
    "a link to nothing": [(member("l", tarfile.LNKTYPE, linkname="missing"), b"")],
    "a link to itself": [(member("l", tarfile.LNKTYPE, linkname="l"), b"")],
    "links to one another": [
        (member("l", tarfile.LNKTYPE, linkname="m"), b""),
        (member("m", tarfile.LNKTYPE, linkname="l"), b""),
    ],
    "a link to a directory": [
        (member("d", tarfile.DIRTYPE), b""),
        (member("l", tarfile.LNKTYPE, linkname="d"), b""),
    ],
    "no name": [(member(""), b"")],
    "the top as a file": [(member("."), b"")],
    "an empty symbolic link": [(member("l", tarfile.SYMTYPE), b"")],
    "an unknown type": [(member("f", b"M"), b"")],
    "an owner beyond all": [(member("f", uid=1 << 40), b"")],
    "too many attributes": [
        (member("f", pax_headers={f"SCHILY.xattr.user.{number}": "1" for number in range(256)}), b"")
    ],
    "a link to a long path": [(member("l", tarfile.SYMTYPE, linkname="x" * 4096), b"")],
    "a long name": [(member("n" * 256), b"")],
    "a long path": [(member("/".join(["n" * 250] * 20)), b"")],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_members(case: str) -> None:
    with pytest.raises(IngestError):
        read(packed(HOSTILE[case]))


def _header(**fields: bytes) -> bytes:
    """A header with some fields as given, and the right checksum."""
    places = {"size": 124, "uid": 108, "mtime": 136, "kind": 156, "checksum": 148}
    raw = bytearray(member("f").tobuf(tarfile.USTAR_FORMAT))
    for name, value in fields.items():
        raw[places[name] : places[name] + len(value)] = value
    if "checksum" not in fields:
        raw[148:156] = b"        "
        raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


DAMAGED: Final[dict[str, bytes]] = {
    "nothing": b"",
    "text": b"this is no archive\n" * 100,
    "zeros and one": bytes(511) + b"\1",
    "checksum": _header(checksum=b"000000\0 "),
    "checksum of letters": _header(checksum=b"abcdefgh"),
    "size of letters": _header(size=b"twelve bytes"),
    "negative size": _header(size=b"\xff" * 12),
    "size of exabytes": _header(size=b"\x80" + b"\x7f" * 11),
    "negative owner": _header(uid=b"\xff" * 8),
    "time": _header(mtime=b"\x80" + b"\x7f" * 11),
    "huge pax header": _header(size=b"77777777777\0", kind=b"x"),
    "huge name": _header(size=b"77777777777\0", kind=b"L"),
    "header of nothing": packed([(member("n" * 200), b"")], tarfile.GNU_FORMAT)[:1024],
    "sparse": _header(kind=b"S", size=b"00000000001\0") + bytes(512),
    "gzip": gzip.compress(b"x" * 1000),
    "gzip cut off": gzip.compress(packed([(member("f"), b"x" * 9000)]))[:-9],
    "gzip, wrong sum": gzip.compress(packed([(member("f"), b"x" * 9000)]))[:-8] + bytes(8),
    "xz": b"\xfd7zXZ\0" + b"x" * 100,
    "bzip2": b"BZh9" + b"x" * 100,
    "zstd": b"\x28\xb5\x2f\xfd" + b"x" * 100,
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_archives(case: str) -> None:
    with pytest.raises((BadArchive, SourceTooLarge)):
        read(DAMAGED[case])


PAX_DAMAGE: Final = [
    b"",
    b"x",
    b"99 path=a\n",
    b"9 path=a",
    b"0 path=a\n",
    b"11 uid=1x3\n"[:11],
    b"12 mtime=1x\n",
    b"23 GNU.sparse.size=10\n\n",
    b"27 GNU.sparse.realsize=10\n" + b"22 GNU.sparse.major=1\n",
    b"27 GNU.sparse.realsize=10\n" + b"22 GNU.sparse.map=0,11\n",
]


@pytest.mark.parametrize("content", PAX_DAMAGE[1:])
def test_damaged_pax_headers(content: bytes) -> None:
    info = member("pax", tarfile.XHDTYPE)
    info.size = len(content)
    header = info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)
    with pytest.raises(IngestError):
        read(header + packed([(member("f"), b"12345")]))


def test_old_checksums() -> None:
    """Bytes taken for signed numbers, as some old programs did."""
    raw = bytearray(member("f\udcff").tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape"))
    raw[148:156] = b"        "
    raw[148:156] = b"%06o\0 " % sum(byte - 256 if byte > 127 else byte for byte in raw)
    assert set(read(bytes(raw) + bytes(1024))) == {"", "/f\udcff"}


def test_devices_by_policy() -> None:
    data = packed(one_of_everything())
    devices = {"/d/null", "/d/disk"}
    assert devices <= set(read(data, devices=Devices.KEEP))
    skipped = read(data, devices=Devices.SKIP)
    assert set(skipped) == set(expected()) - devices
    with pytest.raises(BadSource, match="is a device"):
        read(data, devices=Devices.REFUSE)


def test_limits() -> None:
    data = packed([(member("f"), bytes(100)), (member("g"), bytes(101))])
    assert len(read(data, max_file_size=101, max_entries=2)) == 3
    with pytest.raises(SourceTooLarge):
        read(data, max_file_size=100)
    with pytest.raises(SourceTooLarge):
        read(data, max_entries=1)


def test_sparse_file_over_the_limit() -> None:
    """What counts is the length that the file will have."""
    info = member("f")
    info.pax_headers = {"GNU.sparse.realsize": str(1 << 60), "GNU.sparse.map": "0,1"}
    with pytest.raises(SourceTooLarge):
        read(packed([(info, b"x")]), max_file_size=1 << 40)


def test_sparse_map_of_too_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarsparse, "MAX_SEGMENTS", 2)
    info = member("f")
    info.pax_headers = {"GNU.sparse.realsize": "6", "GNU.sparse.map": "0,1,2,1,4,1"}
    with pytest.raises(BadArchive):
        read(packed([(info, b"xyz")]))


def test_too_many_common_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each header is small, but what they say together is to be remembered."""
    monkeypatch.setattr(tarheader, "MAX_EXTENSION", 4000)
    headers = []
    for number in range(3):
        content = b"1515 key%d=%s\n" % (number, b"x" * 1504)
        info = member("g", tarfile.XGLTYPE)
        info.size = len(content)
        headers.append(info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512))
    assert set(read(b"".join(headers[:2]) + packed([(member("f"), b"")]))) == {"", "/f"}
    with pytest.raises(SourceTooLarge):
        read(b"".join(headers) + packed([(member("f"), b"")]))


def test_whiteouts() -> None:
    data = packed([(member("a/.wh.b"), b""), (member("a/.wh..wh..opq"), b""), (member(".wh.c"), b"")])
    assert read_source(ArchiveSource(io.BytesIO(data), whiteouts=True)) == [
        Whiteout("/a/b"),
        Whiteout("/a", opaque=True),
        Whiteout("/c"),
    ]
    assert "/a/.wh.b" in read(data)
    with pytest.raises(BadArchive):
        read_source(ArchiveSource(io.BytesIO(packed([(member(".wh.."), b"")])), whiteouts=True))


@given(st.text(alphabet="a./", max_size=12))
def test_names(name: str) -> None:
    """Against the same said in another way."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        with pytest.raises(BadArchive):
            normalized(name)
    else:
        assert normalized(name) == "".join(f"/{part}" for part in parts)


NAMES = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join)
MEMBERS = st.one_of(
    st.tuples(st.just("file"), NAMES, st.binary(max_size=1500)),
    st.tuples(st.just("directory"), NAMES, st.integers(0, 0o777)),
    st.tuples(st.just("symlink"), NAMES, st.sampled_from(["x", "../a"])),
    st.tuples(st.just("link"), NAMES, NAMES),
)


@given(
    members=st.lists(MEMBERS, max_size=12), form=st.sampled_from(sorted(FORMATS.values())), step=st.integers(1, 3000)
)
@settings(max_examples=150, deadline=None)
def test_any_archive(members: list[tuple[str, str, object]], form: int, step: int) -> None:
    """Against a model: a dictionary that members are put into one after the other."""
    model: dict[str, Seen | None] = {"": None}
    packable: list[tuple[tarfile.TarInfo, bytes]] = []
    wrong = False
    for kind, name, what in members:
        path, entry = f"/{name}", Seen(0)
        content = b""
        if kind == "file":
            assert isinstance(what, bytes)
            info, content, entry = member(name), what, Seen(REGULAR, content=what)
        elif kind == "directory":
            info, entry = member(name, tarfile.DIRTYPE, mode=what), Seen(stat.S_IFDIR | what)  # type: ignore[operator]
        elif kind == "symlink":
            info, entry = member(name, tarfile.SYMTYPE, linkname=what), Seen(stat.S_IFLNK | 0o777, content=str(what))
        else:
            target = model.get(f"/{what}")
            if target is None or stat.S_ISDIR(target.mode) or path == f"/{what}":
                continue  # links to what is not there yet have a test of their own
            info, entry = member(name, tarfile.LNKTYPE, linkname=what), target
        packable.append((info, content))
        for above in parents(path):
            there = model.setdefault(above, None)
            wrong |= there is not None and not stat.S_ISDIR(there.mode)
        full = any(other.startswith(f"{path}/") for other in model)
        wrong |= full and not stat.S_ISDIR(entry.mode)
        model[path] = entry
    source = ArchiveSource(Dribble(packed(packable, form), step))
    if wrong:
        with pytest.raises(BadSource):
            tree_of(source)
    else:
        assert tree_of(source) == model


def parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(2, len(parts))]


@given(data=st.binary(max_size=3000), at=st.integers(0, 4000), flip=st.binary(min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_damage(data: bytes, at: int, flip: bytes) -> None:
    """Nothing but our own errors, whatever an archive holds."""
    raw = bytearray(
        packed([(member("a/b"), data), (member("n" * 120), b"x"), (member("l", tarfile.SYMTYPE, linkname="q"), b"")])
    )
    raw[at : at + len(flip)] = flip
    with contextlib.suppress(IngestError):
        read(bytes(raw), max_file_size=1 << 20)
