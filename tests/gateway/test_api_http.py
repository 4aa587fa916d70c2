"""What publishers' HTTP client needs of a reply, down to the bytes on the wire."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from cvmfs_gw.api import bodies, context
from cvmfs_gw.api.logs import mask_token, mask_url
from cvmfs_gw.api.messages import reply
from cvmfs_gw.gateway.authorization import sign
from cvmfs_gw.gateway.service import GatewayService
from tests.gateway.support import FQRN, KEY, Api, FakeEngine, digest_of, pack


def address(api: Api) -> tuple[str, int]:
    host, port = api.url.split("/")[2].split(":")
    return host, int(port)


class Pieces(asyncio.Protocol):
    """What arrives, read by read."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.pieces.put_nowait(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/repos", "/api/v1/leases", "/api/v1/nowhere", "/nowhere"])
async def test_replies_come_in_one_piece(api: Api, path: str) -> None:
    transport, pieces = await asyncio.get_running_loop().create_connection(Pieces, *address(api))
    for _ in range(5):
        transport.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = (await pieces.pieces.get()).partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head.lower()
        json.loads(body)
    transport.close()
    await pieces.closed.wait()


async def test_expect_is_answered_before_the_body_comes(api: Api) -> None:
    token = await api.token()
    header, body = pack([b"data"])
    fields = {"session_token": token, "payload_digest": digest_of(header), "header_size": str(len(header))}
    head = json.dumps(fields).encode()
    transport, pieces = await asyncio.get_running_loop().create_connection(Pieces, *address(api))
    size = len(head) + len(header) + len(body)
    transport.write(
        f"POST /api/v1/payloads HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {size}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nMessage-Size: {len(head)}\r\n"
        f"Authorization: {sign(KEY, head)}\r\n\r\n".encode()
    )
    assert (await pieces.pieces.get()).startswith(b"HTTP/1.1 100 ")
    transport.write(head + header + body)
    assert (await pieces.pieces.get()).endswith(b'{"status":"ok"}')
    transport.close()
    await pieces.closed.wait()


@pytest.mark.parametrize(
    ("route", "sent", "expected"),
    [
        ("payloads", 0, "the publisher stopped sending"),
        ("payloads", 50, "the publisher stopped sending"),
        ("leases", 1, "invalid request body: it did not arrive in time"),
    ],
)
async def test_publishers_that_stop_sending(
    api: Api, monkeypatch: pytest.MonkeyPatch, route: str, sent: int, expected: str
) -> None:
    monkeypatch.setattr(bodies, "IDLE_S", 0.01)
    monkeypatch.setattr(context, "BODY_S", 0.01)
    transport, pieces = await asyncio.get_running_loop().create_connection(Pieces, *address(api))
    transport.write(
        f"POST /api/v1/{route} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nMessage-Size: 100\r\n\r\n".encode()
        + b"x" * sent
    )
    assert expected.encode() in await pieces.pieces.get()
    transport.abort()


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/nowhere", 404, "not found"),
        ("GET", "/../../etc/passwd", 404, "not found"),
        ("PUT", "/leases", 405, "method not allowed"),
        ("DELETE", "/repos", 405, "method not allowed"),
        ("POST", "", 405, "method not allowed"),
        ("GET", "/payloads", 405, "method not allowed"),
    ],
)
async def test_routes_that_do_not_exist(api: Api, method: str, path: str, status: int, reason: str) -> None:
    assert await api.call(method, path) == (status, {"status": "error", "reason": reason})


async def test_a_breakdown(
    api: Api, service: GatewayService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("what nobody should read")

    monkeypatch.setattr(service, "lease_views", broken)
    assert await api.call("GET", "/leases") == (500, {"status": "error", "reason": "internal error"})
    assert "what nobody should read" in caplog.text


async def test_no_token_in_the_log(api: Api, engine: FakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = [await api.token(f"{FQRN}/{name}") for name in "ab"]
    for token in tokens:
        await api.call("GET", f"/leases/{token}")
        await api.call("PATCH", f"/leases/{token}", key=KEY, signed=token.encode())
        await api.payload(token, *pack([b"x"]), in_url=True)
        await api.payload(token, b"nonsense", b"")
        engine.failures.append(ValueError("broken"))
        await api.commit(token)
        await api.commit(token)
        await api.call("DELETE", f"/leases/{token}", key=KEY, signed=token.encode())
    assert "POST /api/v1/leases/" in caplog.text
    for token in tokens:
        assert token not in caplog.text
        assert token[:8] not in caplog.text
    assert "secret1" not in caplog.text


def test_masking() -> None:
    token = "ABCDEFGHIJKLMNOP===="
    assert mask_token(token) == "ABCD..."
    assert mask_token("ABCD") == "..."
    assert mask_url(f"/api/v1/leases/{token}?x=1") == "/api/v1/leases/ABCD...?x=1"
    assert mask_url(f"/api/v1/payloads/{token}") == "/api/v1/payloads/ABCD..."
    assert mask_url(f"/api/v1/objects/{token}") == "/api/v1/objects/ABCD..."
    assert mask_url(f"/api/v1/leases-by-path/{FQRN}/a") == f"/api/v1/leases-by-path/{FQRN}/a"


def test_replies_are_always_text() -> None:
    assert reply({"a": "x\udcff", "b": ["\ud800y"]}).body == '{"a":"x\ufffd","b":["\ufffdy"]}'.encode()
