"""Copies on the local disk: what is in them, what is not fetched twice, and what must not happen."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cvmfs_gw.client.download import Download, DownloadReport
from cvmfs_gw.client.errors import ClientError, NotThere, UntrustedRepository
from cvmfs_gw.engine.changes import Put
from cvmfs_gw.engine.transaction import Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.chunksizes import ChunkSizes
from tests.client.support import Server, fill

CHUNKS = ChunkSizes(500, 700, 1000)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    files = {"a/one": b"one", "a/b/large": os.urandom(50_000), "empty": b"", "ro/file": b"x"}
    folder = fill(tmp_path / "source", files)
    (folder / "link").symlink_to("a/one")
    (folder / "nothing").mkdir()
    (folder / "a/one").chmod(0o750)
    (folder / "ro").chmod(0o555)
    os.mkfifo(folder / "fifo")
    for place, directories, names in os.walk(folder, topdown=False):
        for name in (*names, *directories):
            os.utime(os.path.join(place, name), ns=(10**18, 10**18 + 5), follow_symlinks=False)
    return folder


def seen(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        if stat.S_ISFIFO(status.st_mode):
            continue
        data = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (stat.filemode(status.st_mode), status.st_mtime_ns, data)
    return found


def get(server: Server, path: str, target: Path) -> DownloadReport:
    with server.reader() as reader:
        return Download(reader).run(path, str(target))


def test_tree(server: Server, source: Path, tmp_path: Path) -> None:
    server.publish(source, chunks=CHUNKS)
    target = tmp_path / "deep/target"
    report = get(server, "/t", target)
    assert seen(target) == seen(source)
    assert (report.files, report.kept, report.skipped) == (4, 0, ["/t/fifo"])
    assert report.size == 50_004


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
