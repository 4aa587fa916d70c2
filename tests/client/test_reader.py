"""Reading over HTTP: revisions, paths and contents, whatever the connection does."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cvmfs_gw.client import reader, remote
from cvmfs_gw.client.errors import ClientError, GatewayUnreachable, NotThere, UntrustedRepository
from cvmfs_gw.client.location import Location, repository_path
from cvmfs_gw.client.reader import RepositoryReader
from cvmfs_gw.client.remote import RemoteStorage
from cvmfs_gw.client.trust import fetch_public_key, find_public_keys, fingerprint, remember_key
from cvmfs_gw.engine.changelist import list_changes
from cvmfs_gw.engine.changes import Put
from cvmfs_gw.engine.edit import edit
from cvmfs_gw.engine.rules import Rules
from cvmfs_gw.engine.statistics import PublishCounts
from cvmfs_gw.engine.transaction import Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.chunksizes import ChunkSizes
from cvmfs_objstore.errors import ObjectNotFound
from cvmfs_objstore.formats.entry import Kind
from tests.client.support import Server, fill
from tests.engine.repositories import FQRN
from tests.engine.trees import Item, make_entry


class Cutting:
    """A web server of one file, whose replies end after *most* bytes, with or without ranges."""

    def __init__(self, body: bytes, most: int, ranges: bool) -> None:
        self.starts: list[int] = []
        self.most = most
        cutting = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                asked = self.headers.get("Range", "bytes=0-")
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                cutting.starts.append(start)
                rest = body[start:] if ranges else body
                self.send_response(206 if ranges and start else 200)
                self.send_header("Content-Length", str(len(rest)))
                self.end_headers()
                self.wfile.write(rest[: cutting.most])
                self.close_connection = True
                if not ranges:
                    cutting.most *= 2

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSE_S", 0.0)


@pytest.mark.parametrize("ranges", [True, False])
def test_connection_that_breaks(ranges: bool) -> None:
    """The file is read on where it was cut off; a server that knows no ranges is read anew."""
    body = os.urandom(300_000)
    cutting = Cutting(body, 100_000, ranges)
    storage = RemoteStorage(cutting.url)
    try:
        assert storage.read("file") == body
    finally:
        storage.close()
        cutting.close()
    assert cutting.starts[0] == 0
    assert len(cutting.starts) in (3, 4)


def test_connection_that_always_breaks() -> None:
    cutting = Cutting(b"x" * 100, 0, True)
    storage = RemoteStorage(cutting.url)
    try:
        with pytest.raises(GatewayUnreachable, match="to its end"):
            storage.read("file")
    finally:
        storage.close()
        cutting.close()


def test_storage_without_a_local_folder(server: Server) -> None:
    storage = RemoteStorage(server.stratum0)
    assert storage.exists(".cvmfspublished")
    assert storage.size(".cvmfspublished") == len(storage.read(".cvmfspublished"))
    assert not storage.exists("data/00/" + "0" * 38)
    with pytest.raises(ObjectNotFound):
        storage.open("data/00/" + "0" * 38)
    with pytest.raises(io.UnsupportedOperation):
        storage.put("data/00/" + "0" * 38, b"")
    storage.close()


@pytest.fixture
def past(server: Server, tmp_path: Path) -> Server:
    """Three revisions with tags."""
    for number in (1, 2, 3):
        files = {"same": b"same", "file": b"%d" % number, **({"late/x": b"x"} if number == 3 else {})}
        folder = fill(tmp_path / f"source{number}", files)
        os.utime(folder / "same", (1, 1))
        server.publish(folder, tag=f"v{number}")
    return server


def test_revisions(past: Server) -> None:
    with past.reader() as opened:
        assert opened.read("/t/file") == b"3"
        for what in ("v1", "@2", next(tag.root_hash.bare for tag in opened.tags() if tag.name == "v1")):
            opened.select(what)
            assert opened.read("/t/file") == b"1"
        opened.select(2e9 * 100)
        assert opened.read("/t/file") == b"3"
        for nothing in ("v9", "@9", 17.0):
            with pytest.raises(NotThere):
                opened.select(nothing)
        tags = [tag for tag in opened.tags() if tag.name.startswith("v")]
        assert [tag.name for tag in opened.changes_of("/t/file", tags)] == ["v3", "v2", "v1"]
        assert [tag.name for tag in opened.changes_of("/t/same", tags)] == ["v1"]
        assert [tag.name for tag in opened.changes_of("/t/late", tags)] == ["v3"]
        assert [tag.name for tag in opened.changes_of("/nothing", tags)] == []


def test_large_content(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, and never more in memory than is allowed: the rest is held in files."""
    monkeypatch.setattr(reader, "HELD", 100)
    data = os.urandom(70_001)
    folder = fill(tmp_path / "source", {"large": data, "small": b"s" * 999, "empty": b""})
    server.publish(folder, chunks=ChunkSizes(500, 700, 1000))
    with server.reader() as opened:
        assert opened.read("/t/large") == data
        assert opened.read("/t/small") == b"s" * 999
        assert opened.read("/t/empty") == b""
        with pytest.raises(ClientError):
            opened.read("/t")
        part = opened.parts("/t/large", opened.entry("/t/large"))[50]
        path = server.storage_file(part.name.path)
        path.chmod(0o644)
        path.write_bytes(b"damaged")
        got = io.BytesIO()
        with pytest.raises(UntrustedRepository):
            opened.copy("/t/large", got)
        assert data.startswith(got.getvalue())


def test_only_catalogs_on_the_way(server: Server, tmp_path: Path) -> None:
    files = {f"{name}/{more}": b"" for name in ("a", "b") for more in (".cvmfscatalog", "file")}
    server.publish(fill(tmp_path / "source", files))
    with server.repository.catalogs.load(server.repository.head().root_hash) as catalog:
        other = catalog.nested()["/t/b"].hash
    server.storage_file(other.path).unlink()
    with server.reader() as opened:
        assert [entry.name for entry in opened.entries("/t/a")] == [".cvmfscatalog", "file"]
        assert opened.find("/t/a/nothing") is None
        with pytest.raises(UntrustedRepository):
            opened.entries("/t/b")


def test_locations() -> None:
    web = "http://host:8000/cvmfs/sw.example.org"
    assert Location.parse(web) == Location("sw.example.org", web)
    assert Location.parse(web + "/") == Location("sw.example.org", web)
    assert Location.parse(web + "@v1@x/y") == Location("sw.example.org", web, "v1@x/y")
    assert Location.parse(web + "@@17") == Location("sw.example.org", web, "@17")
    login = "https://me:secret@host/sw.example.org"
    assert Location.parse(login + "@a") == Location("sw.example.org", login, "a")
    assert Location.parse("sw.example.org@3 days ago") == Location("sw.example.org", "", "3 days ago")
    for wrong in ("", "@tag", "/", "http://host/", "ftp://host/sw.example.org", "a/b", "http://host/cvmfs/..@x"):
        with pytest.raises(ClientError):
            Location.parse(wrong)
    assert [repository_path(text) for text in ("", "/", "a/b/", "//a")] == ["", "", "/a/b", "/a"]
    with pytest.raises(ClientError):
        repository_path("/a/../b")


@pytest.fixture
def meta() -> Iterator[Cutting]:
    served = Cutting(b"", 1 << 20, True)
    yield served
    served.close()


def test_keys(server: Server, tmp_path: Path, meta: Cutting) -> None:
    """By name or by domain; the first folder that has any."""
    (tmp_path / "keys/example.org").mkdir(parents=True)
    folders = (str(tmp_path / "nothing"), str(tmp_path / "keys"))
    assert find_public_keys(FQRN, folders) is None
    for name in ("one.pub", "two.pub", "three.txt"):
        (tmp_path / "keys/example.org" / name).write_bytes(name.encode())
    assert find_public_keys(FQRN, folders) == b"one.pub\ntwo.pub"
    path = remember_key(str(tmp_path / "new"), FQRN, server.public_keys)
    assert Path(path).read_bytes() == server.public_keys
    assert find_public_keys(FQRN, (str(tmp_path / "new"), *folders)) == server.public_keys
    assert len(fingerprint(server.public_keys)) == 64
    with pytest.raises(UntrustedRepository, match="not a public key"):
        fetch_public_key(f"{meta.url}/cvmfs/{FQRN}", FQRN)
    with pytest.raises(UntrustedRepository, match="HTTP 404"):
        fetch_public_key(server.stratum0.replace("/cvmfs/", "/wrong/cvmfs/"), FQRN)


def test_storage_of_this_machine(past: Server) -> None:
    with RepositoryReader(FQRN, past.repository.storage, past.public_keys) as opened:
        assert opened.read("/t/file") == b"3"
        opened.select("v2")
        assert dict(opened.walk("/t")).keys() == {"/t/file", "/t/same"}


def test_as_deep_as_a_path_can_be(server: Server) -> None:
    """Nothing that is done with a tree takes a Python frame for each of its levels."""
    paths = ["/d" * depth for depth in range(1, 2001)]

    def make(tree: CatalogTree, rules: Rules) -> PublishCounts:
        transaction = Transaction(tree)
        transaction.apply(Put(path, make_entry(path, Item(Kind.DIRECTORY, 1))[0]) for path in paths)
        return transaction.counts

    before = server.repository.head().root_hash
    after = edit(server.repository, make, time.time()).root_hash
    with RepositoryReader(FQRN, server.repository.storage, server.public_keys) as opened:
        assert [path for path, _ in opened.walk("")] == paths
    changes = [str(change) for change in list_changes(server.repository.catalogs, before, after)]
    assert changes == [f"A {path}" for path in paths]
