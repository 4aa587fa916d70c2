"""Large payloads, which are read straight from the connection, over HTTP and HTTPS."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from cvmfs_gw.api import bodies
from cvmfs_gw.api.app import make_app, make_runner
from cvmfs_gw.api.tls import TlsFiles
from cvmfs_gw.gateway.authorization import sign
from cvmfs_gw.gateway.protocol import API_ROOT
from cvmfs_gw.gateway.service import GatewayService
from cvmfs_objstore.hashes import ContentHash
from cvmfs_objstore.objects import ObjectStore
from tests.gateway.support import FQRN, KEY, Api, digest_of, make_certificate, pack, until

MIB = 1 << 20
LARGE = [bytes([n]) * size for n, size in enumerate((5 * MIB + 17, 100, 0, 3 * MIB, MIB, 700_000, 700_001))]


@dataclass
class SecureApi(Api):
    """An HTTP client that knows whom to trust."""

    trust: ssl.SSLContext | bool


@pytest.fixture(params=["http", "https"])
async def any_api(request: pytest.FixtureRequest, service: GatewayService, tmp_path: Path) -> AsyncIterator[SecureApi]:
    secure = request.param == "https"
    certificate, key = make_certificate(tmp_path, "server") if secure else ("", "")
    runner = make_runner(make_app(service))
    await runner.setup()
    context = TlsFiles(certificate, key).context if secure else None
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    host, port = runner.addresses[0][:2]
    trust = ssl.create_default_context(cafile=certificate) if secure else True
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session:
        yield SecureApi(session, f"{request.param}://{host}:{port}{API_ROOT}", trust)
    await runner.cleanup()


async def test_large_payloads(any_api: Api, stores: dict[str, ObjectStore]) -> None:
    token = await any_api.token()
    for _ in range(2):
        assert await any_api.payload(token, *pack(LARGE)) == (200, {"status": "ok"})
    for data in LARGE:
        assert stores[FQRN].get(ContentHash.of(data)) == data
    assert (await any_api.call("GET", "/leases"))[1]["data"][f"{FQRN}/a"]["objects"] == 2 * len(LARGE)


async def test_bad_payloads_are_read_to_their_end(any_api: Api) -> None:
    token = await any_api.token()
    header, data = pack(LARGE)
    wrong = bytearray(data)
    wrong[-1] ^= 1
    assert (await any_api.payload(token, header, bytes(wrong)))[1]["reason"] == "other_error"
    wrong = bytearray(data)
    wrong[0] ^= 1
    assert (await any_api.payload(token, header, bytes(wrong)))[1]["reason"] == "other_error"
    assert (await any_api.payload(token, header, data + b"x"))[1]["reason"] == "other_error"
    assert (await any_api.payload(token, header, data[:-1]))[1]["reason"] == "other_error"
    assert await any_api.payload(token, header, data) == (200, {"status": "ok"})


class Connection:
    """A payload that is sent by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def begin(cls, api: Api, token: str, header: bytes, data: bytes, *, sent: int) -> Connection:
        host, port = api.url.removeprefix("http://").removesuffix(API_ROOT).split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        fields = {"session_token": token, "payload_digest": digest_of(header), "header_size": str(len(header))}
        head = json.dumps(fields).encode()
        size = len(head) + len(header) + len(data)
        writer.write(
            f"POST {API_ROOT}/payloads HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\nMessage-Size: {len(head)}\r\n"
            f"Authorization: {sign(KEY, head)}\r\n\r\n".encode()
        )
        writer.write(head + header + data[:sent])
        await writer.drain()
        return cls(reader, writer)


async def test_one_connection_for_many_payloads(any_api: SecureApi) -> None:
    """Also one that is refused, and requests without a body in between."""
    token = await any_api.token()
    made: list[object] = []

    async def note(*arguments: object) -> None:
        made.append(arguments)

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(note)
    header, data = pack(LARGE)
    connector = aiohttp.TCPConnector(ssl=any_api.trust)
    async with aiohttp.ClientSession(connector=connector, trace_configs=[trace]) as session:
        api = Api(session, any_api.url)
        for _ in range(3):
            assert await api.payload(token, header, data) == (200, {"status": "ok"})
            assert (await api.payload(token, header, data[:-1] + b"x"))[1]["status"] == "error"
            assert (await api.call("GET", "/leases"))[0] == 200
    assert len(made) == 1


async def test_requests_that_are_sent_before_the_reply(api: Api) -> None:
    header, data = pack(LARGE)
    connection = await Connection.begin(api, await api.token(), header, data, sent=len(data))
    connection.writer.write(f"GET {API_ROOT}/repos HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    replies = await connection.reader.read()
    assert replies.count(b"HTTP/1.1 200 OK") == 2
    assert FQRN.encode() in replies
    connection.writer.close()


async def test_what_comes_in_is_shown(api: Api, service: GatewayService) -> None:
    header, data = pack(LARGE)
    connection = await Connection.begin(api, await api.token(), header, data, sent=4 * MIB)
    await until(lambda: service.lease_views() and service.lease_views()[0].uploads.bytes_added >= 3 * MIB)
    (view,) = service.lease_views()
    assert view.running == 1
    assert service.payloads.running == 1
    connection.writer.write(data[4 * MIB :])
    assert b'"ok"' in await connection.reader.readuntil(b"}")
    connection.writer.close()
    assert service.payloads.running == 0
    assert service.payloads.received_bytes() == len(header) + len(data)


async def test_who_goes_away_leaves_nothing_behind(api: Api, service: GatewayService) -> None:
    token = await api.token()
    header, data = pack(LARGE)
    for sent in (MIB, 4 * MIB):
        connection = await Connection.begin(api, token, header, data, sent=sent)
        await until(lambda: service.lease_views()[0].running)
        connection.writer.transport.abort()
        await until(lambda: not service.lease_views()[0].running)
    assert service.payloads.running == 0
    assert await api.payload(token, header, data) == (200, {"status": "ok"})


async def test_who_stops_sending(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    header, data = pack(LARGE)
    token = await api.token()
    monkeypatch.setattr(bodies, "IDLE_S", 0.05)
    connection = await Connection.begin(api, token, header, data, sent=4 * MIB + 5)
    reply = await connection.reader.read()
    assert b"Connection: close" in reply
    assert b"the publisher stopped sending" in reply
    connection.writer.close()
