"""Copies on the local disk: what is in them, what is not fetched twice, and what must not happen."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cvmfs_gw.client.download import Download, DownloadReport
from cvmfs_gw.client.errors import ClientError, GatewayUnreachable, NotThere, UntrustedRepository
from cvmfs_gw.client.localtree import PREFIX
from cvmfs_gw.client.reader import RepositoryReader
from cvmfs_gw.engine.changes import Put
from cvmfs_gw.engine.transaction import Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.chunksizes import ChunkSizes
from cvmfs_objstore.compression import Compression
from cvmfs_objstore.formats.entry import FLAG_EXTERNAL, Chunks, Entry
from tests.client.support import Server, fill
from tests.client.webfolder import served
from tests.engine.repositories import FQRN

CHUNKS = ChunkSizes(500, 700, 1000)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    files = {"a/one": b"one", "a/b/large": os.urandom(50_000), "empty": b"", "ro/file": b"x"}
    folder = fill(tmp_path / "source", files)
    (folder / "link").symlink_to("a/one")
    (folder / "nothing").mkdir()
    (folder / "a/one").chmod(0o750)
    os.setxattr(folder / "ro/file", "user.colour", b"blue")
    (folder / "ro/file").chmod(0o444)
    (folder / "ro").chmod(0o555)
    os.link(folder / "a/one", folder / "a/two")
    os.link(folder / "a/b/large", folder / "a/b/again")
    os.mkfifo(folder / "fifo")
    for place, directories, names in os.walk(folder, topdown=False):
        for name in (*names, *directories):
            os.utime(os.path.join(place, name), ns=(10**18, 10**18 + 5), follow_symlinks=False)
    return folder


def seen(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        data = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        names = status.st_nlink if path.is_file() else 0
        xattrs = {name: os.getxattr(path, name, follow_symlinks=False) for name in user_xattrs(path)}
        found[str(path.relative_to(folder))] = (stat.filemode(status.st_mode), status.st_mtime_ns, data, names, xattrs)
    return found


def user_xattrs(path: Path) -> list[str]:
    return [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user.")]


def get(server: Server, path: str, target: Path) -> DownloadReport:
    with server.reader() as reader:
        return Download(reader).run(path, str(target))


def test_tree(server: Server, source: Path, tmp_path: Path) -> None:
    server.publish(source, chunks=CHUNKS)
    target = tmp_path / "deep/target"
    report = get(server, "/t", target)
    assert seen(target) == seen(source)
    assert (report.files, report.kept, report.skipped) == (4, 0, [])
    assert report.size == 50_004
    assert (target / "a/two").samefile(target / "a/one")
    assert (target / "a/b/again").samefile(target / "a/b/large")


def changed(server: Server, *puts: Put, external: tuple[str, ...] = ()) -> RepositoryReader:
    """A reader of a tree in which there is more than a directory could hold."""
    reader = RepositoryReader(FQRN, server.stratum0, server.public_keys, external)
    Transaction(reader.tree).apply(puts)
    return reader


def external(reader: RepositoryReader, path: str, entry: Entry, chunks: Chunks = ()) -> Put:
    return Put(path, entry._replace(name=path.rpartition("/")[2], flags=entry.flags | FLAG_EXTERNAL), chunks)


def test_devices_are_for_root_who_wants_them(server: Server, source: Path, tmp_path: Path) -> None:
    server.publish(source, chunks=CHUNKS)
    with server.reader() as plain:
        fifo = plain.entry("/t/fifo")
    device = fifo._replace(name="null", mode=stat.S_IFCHR | 0o666, size=os.makedev(1, 3))
    with changed(server, Put("/t/null", device)) as reader:
        report = Download(reader).run("/t", str(tmp_path / "target"))
        assert [path for path, _ in report.skipped] == ["/t/null"]
        if os.geteuid() == 0:
            assert not Download(reader, owners=True).run("/t", str(tmp_path / "target")).skipped
            assert (tmp_path / "target/null").lstat().st_rdev == os.makedev(1, 3)


@pytest.mark.parametrize("ranges", [True, False])
def test_external_files(server: Server, tmp_path: Path, ranges: bool) -> None:
    """What the storage does not hold comes from where clients take it, verified; or it is said what is missing."""
    elsewhere = tmp_path / "elsewhere"
    data = {"whole": os.urandom(300), "in parts ä": os.urandom(9000), "empty": b""}
    fill(elsewhere, {f"t/{name}": content for name, content in data.items()})
    server.publish(fill(tmp_path / "other", data), chunks=CHUNKS, compression=Compression.NONE)
    with server.reader() as plain:
        puts = []
        for name in data:
            path = f"/t/{name}"
            entry = plain.entry(path)
            assert entry.is_chunked == (name == "in parts ä")
            chunks = plain.tree.chunks(path) if entry.is_chunked else ()
            puts.append(external(plain, path, entry, chunks))
            for part in plain.parts(path, entry):
                server.storage_file(part.name.path).unlink(missing_ok=True)
    with changed(server, *puts) as reader:
        report = Download(reader).run("/t", str(tmp_path / "none"))
        assert sorted(path for path, _ in report.skipped) == sorted(f"/t/{name}" for name in data)
        with pytest.raises(ClientError, match="external server"):
            reader.read("/t/whole")
    with (
        served(elsewhere, ranges=ranges) as web,
        changed(server, *puts, external=(f"{web}/nowhere", f"{web}/")) as reader,
    ):
        assert not Download(reader).run("/t", str(tmp_path / "target")).skipped
        assert {name: (tmp_path / "target" / name).read_bytes() for name in data} == data
        assert reader.read("/t/in parts ä") == data["in parts ä"]
        (elsewhere / "t/whole").write_bytes(b"damaged")
        with pytest.raises(UntrustedRepository):
            reader.read("/t/whole")
        (elsewhere / "t/whole").unlink()
        with pytest.raises(GatewayUnreachable):
            Download(reader).run("/t", str(tmp_path / "gone"))
    assert not list(tmp_path.rglob(f"{PREFIX}*"))


def test_again(server: Server, source: Path, tmp_path: Path) -> None:
    """What has come is not fetched again; what was changed here is; what is in the way goes."""
    server.publish(source, chunks=CHUNKS)
    target = tmp_path / "target"
    get(server, "/t", target)
    (target / "a/one").write_bytes(b"changed here")
    (target / "empty").unlink()
    (target / "empty").symlink_to("nowhere")
    (target / "nothing").rmdir()
    (target / "nothing").symlink_to(tmp_path)
    (target / "more").write_bytes(b"stays")
    report = get(server, "/t", target)
    assert (report.files, report.kept) == (2, 2)
    (target / "more").unlink()
    assert seen(target) == seen(source)
    assert not (tmp_path / "nothing").exists()


def test_one_file(server: Server, source: Path, tmp_path: Path) -> None:
    server.publish(source, chunks=CHUNKS)
    get(server, "/t/a/b/large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (source / "a/b/large").read_bytes()
    get(server, "/t/link", tmp_path / "link")
    assert os.readlink(tmp_path / "link") == "a/one"
    with pytest.raises(NotThere):
        get(server, "/t/none", tmp_path / "none")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ClientError, match="is a directory"):
        get(server, "/t/a/one", tmp_path / "folder")


def test_target_is_a_link_to_a_directory(server: Server, source: Path, tmp_path: Path) -> None:
    server.publish(source, chunks=CHUNKS)
    (tmp_path / "real").mkdir()
    (tmp_path / "target").symlink_to("real")
    get(server, "/t", tmp_path / "target")
    assert seen(tmp_path / "real") == seen(source)


def test_damage(server: Server, source: Path, tmp_path: Path) -> None:
    """Nothing wrong gets its name, and what has come before it stays."""
    server.publish(source, chunks=CHUNKS)
    with server.reader() as reader:
        part = reader.parts("/t/a/b/large", reader.entry("/t/a/b/large"))[3]
    path = server.storage_file(part.name.path)
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    with pytest.raises(UntrustedRepository):
        get(server, "/t", tmp_path / "target")
    assert not (tmp_path / "target/a/b/large").exists()
    assert not list(tmp_path.rglob(f"{PREFIX}*"))
    path.write_bytes(good)
    get(server, "/t", tmp_path / "target")
    assert seen(tmp_path / "target") == seen(source)


@pytest.mark.parametrize("name", ["..", "."])
def test_names_that_lead_out(server: Server, source: Path, tmp_path: Path, name: str) -> None:
    server.publish(source, chunks=CHUNKS)
    with server.reader() as reader:
        tree: CatalogTree = reader.tree
        entry = reader.entry("/t/empty")._replace(name=name)
        Transaction(tree).apply([Put(f"/t/{name}", entry)])
        with pytest.raises(UntrustedRepository, match="no name"):
            Download(reader).run("/t", str(tmp_path / "target"))


def test_links_that_lead_out(server: Server, source: Path, tmp_path: Path) -> None:
    """Whatever an entry is called and links to, nothing is written but below the target."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"mine")
    before = secret.stat()
    server.publish(source, chunks=CHUNKS)
    with server.reader() as plain:
        link = plain.entry("/t/link")._replace(symlink=str(secret), size=len(str(secret)))
    names = ("empty", "a/one.cvmfs-get", "a/b/large.cvmfs-get", "a/b/large.new", f"a/b/{PREFIX}0")
    puts = [Put(f"/t/{name}", link._replace(name=name.rpartition("/")[2])) for name in names]
    target = tmp_path / "target"
    for _ in range(2):  # also over the links of the first time, where they were files before
        with changed(server, *puts) as reader:
            Download(reader).run("/t", str(target))
        assert [os.readlink(target / name) for name in names] == [str(secret)] * len(names)
        get(server, "/t", target)
        assert (target / "empty").read_bytes() == b""
    after = secret.stat()
    assert (secret.read_bytes(), after.st_mtime_ns, after.st_mode) == (b"mine", before.st_mtime_ns, before.st_mode)
