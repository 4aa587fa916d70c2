"""The gateway's REST API as the client speaks it, against servers that answer anything."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cvmfs_gw.client.errors import ClientError, CommitInDoubt, GatewayRefused, GatewayUnreachable, PathBusy
from cvmfs_gw.client.gateway import CommitReply, GatewayClient
from cvmfs_gw.gateway.authorization import Key
from cvmfs_objstore.formats.objectpack import PackBuilder
from cvmfs_objstore.hashes import ContentHash, Suffix

KEY = Key("key1", b"secret1")
TOKEN = "A" * 56
OLD, NEW = (ContentHash.of(text, suffix=Suffix.CATALOG) for text in (b"old", b"new"))


class Stub:
    """A server that notes requests and answers the same to each."""

    def __init__(self) -> None:
        self.status, self.body, self.headers = 200, b"{}", {"Content-Type": "application/json"}
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                assert "Transfer-Encoding" not in self.headers
                headers = dict(self.headers.items())
                stub.requests.append((self.command, self.path, headers, self.rfile.read(length)))
                self.send_response(stub.status)
                for name, value in stub.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(stub.body)))
                self.end_headers()
                self.wfile.write(stub.body)

            do_GET = do_POST = do_DELETE = do_PATCH = _answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/api/v1"

    def answer(self, reply: object, status: int = 200) -> None:
        self.body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.status = status

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.close()


@pytest.fixture
def client(stub: Stub) -> Iterator[GatewayClient]:
    client = GatewayClient(stub.url + "/", KEY, patience_s=0)
    yield client
    client.close()


def signature(message: bytes) -> str:
    """What the protocol says: base64 of the hex text of the HMAC."""
    return "key1 " + base64.b64encode(hmac.new(b"secret1", message, hashlib.sha1).hexdigest().encode()).decode()


def test_lease(stub: Stub, client: GatewayClient) -> None:
    stub.answer({"status": "ok", "session_token": TOKEN, "max_api_version": 3})
    assert client.acquire("test.example.org/a/b") == TOKEN
    method, path, headers, body = stub.requests[0]
    assert (method, path) == ("POST", "/api/v1/leases")
    sent = json.loads(body)
    assert sent["path"] == "test.example.org/a/b"
    assert isinstance(sent["api_version"], str)
    assert int(sent["api_version"]) >= 2
    assert isinstance(sent["hostname"], str)
    assert headers["Authorization"] == signature(body)


def test_release(stub: Stub, client: GatewayClient) -> None:
    stub.answer({"status": "ok"})
    client.release(TOKEN)
    method, path, headers, body = stub.requests[0]
    assert (method, path, body) == ("DELETE", f"/api/v1/leases/{TOKEN}", b"")
    assert headers["Authorization"] == signature(TOKEN.encode())


def test_upload(stub: Stub, client: GatewayClient) -> None:
    stub.answer({"status": "ok"})
    pack = PackBuilder()
    for data in (b"one", b"", b"three" * 1000):
        pack.add(ContentHash.of(data), data)
    header = pack.header()
    client.upload(TOKEN, pack)
    method, path, headers, body = stub.requests[0]
    assert (method, path) == ("POST", f"/api/v1/payloads/{TOKEN}")
    size = int(headers["Message-Size"])
    head = json.loads(body[:size])
    assert head["session_token"] == TOKEN
    assert head["payload_digest"] == hashlib.sha1(header).hexdigest()
    assert head["header_size"] == str(len(header))
    assert body[size : size + len(header)] == header
    assert body[size + len(header) :].replace(b"one", b"", 1) == b"three" * 1000
    assert headers["Authorization"] in (signature(TOKEN.encode()), signature(body[:size]))


@pytest.mark.parametrize("extra", [{}, {"tag_name": "generic-x"}])
def test_commit(stub: Stub, client: GatewayClient, extra: dict[str, Any]) -> None:
    stub.answer({"status": "ok", "final_revision": 7, **extra})
    reply = client.commit(TOKEN, OLD, NEW, "v1", "words")
    assert reply == CommitReply(7, extra.get("tag_name", ""))
    method, path, headers, body = stub.requests[0]
    assert (method, path) == ("POST", f"/api/v1/leases/{TOKEN}")
    assert json.loads(body) == {
        "old_root_hash": f"{OLD}",
        "new_root_hash": f"{NEW}",
        "tag_name": "v1",
        "tag_description": "words",
        "tag_channel": 0,
    }
    assert str(OLD).endswith("C")
    assert headers["Authorization"] == signature(TOKEN.encode())


@pytest.mark.parametrize("remaining", ["1h59m58s", 7198, None])
def test_busy(stub: Stub, client: GatewayClient, remaining: object) -> None:
    stub.answer({"status": "path_busy", "time_remaining": remaining})
    with pytest.raises(PathBusy) as info:
        client.acquire("test.example.org/")
    assert info.value.remaining == remaining
    assert info.value.exit_code == 2


@pytest.mark.parametrize("status", [200, 400, 404, 500])
@pytest.mark.parametrize("reason", ["invalid_hmac", "path_violation"])
def test_refused(stub: Stub, client: GatewayClient, status: int, reason: str) -> None:
    stub.answer({"status": "error", "reason": reason}, status)
    calls = (
        lambda: client.acquire("test.example.org/"),
        lambda: client.release(TOKEN),
        lambda: client.commit(TOKEN, OLD, NEW),
        lambda: client.upload(TOKEN, PackBuilder()),
    )
    for call in calls:
        with pytest.raises(GatewayRefused) as info:
            call()
        assert info.value.reason == reason
        assert info.value.exit_code == 1


@pytest.mark.parametrize("status", [200, 502])
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"ok"', b"null", b"\xff\xfe", b'{"status":'])
def test_answers_that_are_none(stub: Stub, client: GatewayClient, status: int, body: bytes) -> None:
    """As a proxy's: an error that names the server and never the token, which is a secret."""
    stub.answer(body, status)
    calls = (
        lambda: client.acquire("test.example.org/"),
        lambda: client.release(TOKEN),
        lambda: client.commit(TOKEN, OLD, NEW),
    )
    for call in calls:
        with pytest.raises(GatewayUnreachable) as info:
            call()
        assert stub.url in str(info.value)
        assert TOKEN not in str(info.value)
        assert info.value.exit_code == (5 if isinstance(info.value, CommitInDoubt) else 3)
    assert isinstance(info.value, CommitInDoubt)


@pytest.mark.parametrize("reply", [{"status": "ok"}, {"status": "ok", "session_token": 5}])
def test_lease_without_token(stub: Stub, client: GatewayClient, reply: object) -> None:
    stub.answer(reply)
    with pytest.raises(GatewayUnreachable):
        client.acquire("test.example.org/")


@pytest.mark.parametrize("extra", [{}, {"final_revision": "7"}])
def test_commit_without_revision(stub: Stub, client: GatewayClient, extra: dict[str, Any]) -> None:
    stub.answer({"status": "ok", **extra})
    with pytest.raises(GatewayUnreachable):
        client.commit(TOKEN, OLD, NEW)


def test_redirects_are_not_followed_with_the_signature(stub: Stub, client: GatewayClient) -> None:
    stub.headers["Location"] = "http://127.0.0.1:1/elsewhere"
    stub.answer(b"", 302)
    with pytest.raises(ClientError):
        client.acquire("test.example.org/")
    assert len(stub.requests) == 1
