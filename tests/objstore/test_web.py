"""The HTTP server: what it serves, with which headers, and what it does not."""

from __future__ import annotations

import asyncio
import errno
import io
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from cvmfs_objstore.compression import PIECE
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.memory import MemoryStorage
from cvmfs_objstore.storage import Storage
from cvmfs_objstore.web import LocalRepositories, add_routes, web_app

Client = TestClient[web.Request, web.Application]

OBJECT = "data/ab/" + "c" * 38
FQRN = "test.example.org"
BASE = f"/cvmfs/{FQRN}"
REFLOG = bytes(range(256)) * 3000  # more than two pieces
FILES = {
    ".cvmfspublished": b"manifest",
    ".cvmfswhitelist": b"whitelist",
    ".cvmfsreflog": REFLOG,
    ".cvmfs_master_replica": b"",
    "stats/stats.db": b"statistics",
    OBJECT: b"0123456789",
    OBJECT + "C": REFLOG,
    OBJECT + "-rmd160P": b"rmd",
}
HIDDEN = [".secret", "data/ab/short", "data/ab/" + "c" * 38 + "CC", "plain", "data/AB/" + "c" * 38, ".htaccess"]


@pytest.fixture(params=["directory", "memory"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    storage: Storage
    info = tmp_path / "info/v1"
    info.mkdir(parents=True)
    (info / "repositories.json").write_text('{"schema": 1}')
    (info / "secret.txt").write_text("secret")
    (tmp_path / "outside.json").write_text("{}")
    if request.param == "directory":
        storage = LocalStorage.create(str(tmp_path / FQRN), durable=False)
        (tmp_path / FQRN / "data/txn/staged").write_bytes(b"half")
        app = web_app(str(tmp_path))
    else:
        memory = storage = MemoryStorage()
        app = web_app(lambda fqrn: memory if fqrn == FQRN else None, str(info))
    for path, data in FILES.items():
        storage.write(path, data)
    for path in HIDDEN:
        storage.write(path, b"hidden")
    async with TestClient(TestServer(app)) as test_client:
        yield test_client


@pytest.mark.parametrize("path", FILES)
async def test_files(client: Client, path: str) -> None:
    async with client.get(f"{BASE}/{path}") as reply:
        assert reply.status == 200
        assert await reply.read() == FILES[path]
        headers = reply.headers
    kind = "application/x-cvmfs" if path.startswith(".") else "application/octet-stream"
    assert headers["Content-Type"] == kind
    assert headers["Cache-Control"] == ("max-age=259200" if path.startswith("data/") else "max-age=61")
    assert headers["Content-Length"] == str(len(FILES[path]))
    assert headers["Accept-Ranges"] == "bytes"
    assert {"Last-Modified", "ETag", "Transfer-Encoding", "Content-Encoding"}.isdisjoint(headers)
    async with client.head(f"{BASE}/{path}") as head:
        assert head.status == 200
        assert await head.read() == b""
        for name in ("Content-Type", "Cache-Control", "Content-Length", "Accept-Ranges"):
            assert head.headers[name] == headers[name]


@pytest.mark.parametrize(
    ("manifest", "age"),
    [(b"Cx\nD240\nS1\n--\n", 61), (b"Cx\nD15\nS1\n--\n", 15), (b"D0\n", 0), (b"x\nxD5\n", 61), (b"", 61)],
)
async def test_the_manifest_is_cached_for_no_longer_than_clients_poll(manifest: bytes, age: int) -> None:
    storage = MemoryStorage()
    storage.write(".cvmfspublished", manifest)
    async with TestClient(TestServer(web_app(lambda fqrn: storage))) as client:
        for method in ("GET", "HEAD"):
            async with client.request(method, f"{BASE}/.cvmfspublished") as reply:
                assert reply.headers["Cache-Control"] == f"max-age={age}"
                assert await reply.read() == (manifest if method == "GET" else b"")


async def test_info(client: Client) -> None:
    async with client.get("/cvmfs/info/v1/repositories.json") as reply:
        assert reply.status == 200
        assert await reply.json() == {"schema": 1}
        assert reply.headers["Cache-Control"] == "max-age=61"
        assert reply.headers["Content-Type"] == "application/json"
        assert {"Last-Modified", "ETag"}.isdisjoint(reply.headers)


@pytest.mark.parametrize("path", [".cvmfsreflog", OBJECT + "C"])
@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=100-", 100, len(REFLOG)),
        ("bytes=5-99999999", 5, len(REFLOG)),
        ("bytes=-7", len(REFLOG) - 7, len(REFLOG)),
        ("bytes=-99999999", 0, len(REFLOG)),
        (f"bytes=1-{PIECE + 5}", 1, PIECE + 6),
    ],
)
async def test_ranges(client: Client, path: str, wanted: str, start: int, end: int) -> None:
    for method in ("GET", "HEAD"):
        async with client.request(method, f"{BASE}/{path}", headers={"Range": wanted}) as reply:
            assert reply.status == 206
            assert reply.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(REFLOG)}"
            assert reply.headers["Content-Length"] == str(end - start)
            assert {"Last-Modified", "ETag"}.isdisjoint(reply.headers)
            assert await reply.read() == (REFLOG[start:end] if method == "GET" else b"")


@pytest.mark.parametrize("path", [".cvmfsreflog", OBJECT + "C"])
async def test_unsatisfiable_range(client: Client, path: str) -> None:
    async with client.get(f"{BASE}/{path}", headers={"Range": f"bytes={len(REFLOG)}-"}) as reply:
        assert reply.status == 416
        assert reply.headers["Content-Range"] == f"bytes */{len(REFLOG)}"
        assert reply.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("wanted", ["bytes=1-2,4-5", "lines=1-2", "bytes=-", "nonsense"])
async def test_a_range_that_is_not_understood_is_ignored(client: Client, wanted: str) -> None:
    async with client.get(f"{BASE}/.cvmfspublished", headers={"Range": wanted}) as reply:
        assert reply.status == 200
        assert await reply.read() == b"manifest"


async def test_mutable_files_are_never_unmodified(client: Client) -> None:
    future = "Fri, 01 Jan 2100 00:00:00 GMT"
    for headers in ({"If-Modified-Since": future}, {"If-None-Match": "*"}, {"If-Range": future, "Range": "bytes=0-1"}):
        async with client.get(f"{BASE}/.cvmfspublished", headers=headers) as reply:
            assert reply.status == 200
            assert await reply.read() == b"manifest"


async def is_not_found(client: Client, url: str) -> None:
    for method in ("GET", "HEAD"):
        async with client.request(method, URL(url, encoded=True)) as reply:
            assert reply.status == 404, url
            assert reply.headers["Cache-Control"] == "no-cache"
            assert reply.headers["Content-Type"] == "application/json"
            if method == "GET":
                assert await reply.json() == {"status": "error", "reason": "not found"}


@pytest.mark.parametrize(
    "path",
    [
        *HIDDEN, "", "data", "data/", "data/ab", "data/ab/", "data/txn", "data/txn/", "data/txn/staged", "stats/",
        "stats/../.secret", ".cvmfsmissing", "data/00/" + "0" * 38, ".cvmfs/../.secret", ".cvmfspublished/",
        "%2e%2e/outside.json", "..%2foutside.json", "data%2ftxn%2fstaged", ".cvmfs%00", ".cvmfspublished%0a",
        "data/ab/..%2f..%2f.secret", "%ff", ".cvmfs" + "a" * 300, "stats/" + "a" * 300,
    ],
)  # fmt: skip
async def test_what_is_not_public(client: Client, path: str) -> None:
    await is_not_found(client, f"{BASE}/{path}")


@pytest.mark.parametrize(
    "url",
    [
        "/", "/cvmfs", "/cvmfs/", BASE, "/cvmfs/info/v1/", "/cvmfs/info/v1/secret.txt", "/cvmfs/info/v1/meta.json",
        "/cvmfs/info/v1/..%2f..%2foutside.json", "/cvmfs/other.example.org/.cvmfspublished",
        "/cvmfs/%2e%2e/.cvmfspublished", "/cvmfs/./.cvmfspublished", "/cvmfs/a..b/.cvmfspublished",
        "/cvmfs/%2fetc/.cvmfspublished", "/api/v1", f"/cvmfs/{'a' * 300}/.cvmfspublished",
        f"/cvmfs/info/v1/{'a' * 300}.json",
    ],
)  # fmt: skip
async def test_what_is_no_repository(client: Client, url: str) -> None:
    await is_not_found(client, url)


async def test_read_only(client: Client) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        async with client.request(method, f"{BASE}/.cvmfspublished", data=b"x") as reply:
            assert reply.status == 405
            assert reply.headers["Allow"] == "GET,HEAD"
            assert await reply.json() == {"status": "error", "reason": "method not allowed"}


async def test_replaced_files_are_seen_at_once(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path), durable=False)
    async with TestClient(TestServer(web_app(lambda fqrn: storage))) as client:
        for revision in range(5):
            storage.write(".cvmfspublished", b"%d" % revision)
            async with client.get(f"{BASE}/.cvmfspublished") as reply:
                assert await reply.read() == b"%d" % revision


async def test_new_repositories_are_seen_at_once(tmp_path: Path) -> None:
    repositories = LocalRepositories(str(tmp_path))
    assert repositories(FQRN) is None
    LocalStorage.create(str(tmp_path / FQRN), durable=False).write(".cvmfspublished", b"x")
    found = repositories(FQRN)
    assert found is not None
    assert found.read(".cvmfspublished") == b"x"
    assert repositories(FQRN) is found


async def test_beside_other_routes_without_info(tmp_path: Path) -> None:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello", headers={"ETag": '"kept"'})

    app = web.Application()
    app.router.add_get("/api/v1", hello)
    add_routes(app, lambda fqrn: None)
    async with TestClient(TestServer(app)) as client:
        async with client.get("/api/v1") as reply:
            assert (await reply.text(), reply.headers["ETag"]) == ("hello", '"kept"')
        await is_not_found(client, "/cvmfs/info/v1/repositories.json")
        await is_not_found(client, f"{BASE}/.cvmfspublished")


async def test_an_object_that_goes_away_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(str(tmp_path), durable=False)
    monkeypatch.setattr(storage, "exists", lambda path: True)
    server = TestServer(web_app(lambda fqrn: storage))
    async with TestClient(server) as client, client.get(f"{BASE}/{OBJECT}") as reply:
        assert reply.status == 404
        assert reply.headers["Cache-Control"] == "no-cache"


async def test_a_storage_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str) -> BinaryIO:
        raise OSError(errno.EIO, "Input/output error")

    storage = LocalStorage(str(tmp_path), durable=False)
    monkeypatch.setattr(storage, "open", broken)
    server = TestServer(web_app(lambda fqrn: storage))
    async with TestClient(server) as client, client.get(f"{BASE}/.cvmfspublished") as reply:
        assert (reply.status, reply.headers["Cache-Control"]) == (503, "no-cache")
        assert await reply.json() == {"status": "error", "reason": "the storage cannot be read"}


class ShorterThanItSays(MemoryStorage):
    def open(self, path: str) -> BinaryIO:
        class Short(io.BytesIO):
            def seek(self, offset: int, whence: int = 0, /) -> int:
                return super().seek(offset, whence) + (5 if whence else 0)

        return Short(self.read(path))


async def test_a_file_that_ends_early_breaks_the_connection() -> None:
    storage = ShorterThanItSays()
    storage.write(".cvmfsreflog", REFLOG)
    server = TestServer(web_app(lambda fqrn: storage))
    await server.start_server()

    def fetch(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(f"GET {BASE}/.cvmfsreflog HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            received = b""
            while data := connection.recv(1 << 16):
                received += data
            return received

    received = await asyncio.to_thread(fetch, server.port or 0)
    assert f"Content-Length: {len(REFLOG) + 5}".encode() in received
    assert received.endswith(REFLOG)
    await server.close()
