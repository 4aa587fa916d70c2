"""The routes of the gateway and of the stand-alone server, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from cvmfs_gw.api import notifications
from cvmfs_gw.api.app import errors, make_runner
from cvmfs_gw.gateway.protocol import API_ROOT
from cvmfs_notify.hub import NotificationHub
from cvmfs_notify.messages import MAX_MESSAGE, Activity
from cvmfs_notify.server import NotificationApp
from cvmfs_notify.server import Server as StandAlone
from cvmfs_notify.sockets import listen
from cvmfs_notify.sse import Reader, Received
from tests.notify.support import FQRN, OTHER, UNKNOWN, FakeSource, Keys, RawClient, until, within

SUBSCRIBE = f"{API_ROOT}/notifications/subscribe"
PUBLISH = f"{API_ROOT}/notifications/publish"
AGENT = "cvmfs/2.12.0"


@dataclass
class Server:
    """A server that can do nothing but notify. ``busy`` tells how many connections the HTTP server knows of."""

    hub: NotificationHub
    port: int
    keys: Keys
    stop: Callable[[], Awaitable[None]]
    busy: Callable[[], int]

    async def strict(self, fqrn: str = FQRN, agent: str = AGENT) -> RawClient:
        """Subscribe as the deployed client does."""
        body = json.dumps({"version": 1, "repository": fqrn}).encode()
        return await RawClient.get(self.port, SUBSCRIBE, body=body, agent=agent)

    async def post(self, body: bytes) -> tuple[int, dict[str, str]]:
        client = await RawClient.connect(self.port)
        head = f"POST {PUBLISH} HTTP/1.1\r\nHost: x\r\nUser-Agent: {AGENT}\r\nContent-Length: {len(body)}\r\n\r\n"
        client.writer.write(head.encode() + body)
        await client.head()
        reply = await within(client.reader.readexactly(int(client.headers["content-length"])))
        client.close()
        return client.status, json.loads(reply)

    async def publish(self, revision: int, fqrn: str = FQRN) -> None:
        assert await self.post(self.keys.message(revision, fqrn)) == (200, {"status": "ok"})

    def event(self, revision: int, fqrn: str = FQRN) -> bytes:
        return b"data: " + self.keys.message(revision, fqrn) + b"\n\n"


@asynccontextmanager
async def gateway(
    hub: NotificationHub, keys: Keys, ping_s: float = 60, context: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """The routes as they are in the gateway."""
    app = web.Application(middlewares=[errors])
    notifications.install(app, hub, API_ROOT)
    runner = make_runner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    http = runner._server
    assert http is not None
    yield Server(hub, runner.addresses[0][1], keys, runner.cleanup, lambda: len(http.connections))
    await RawClient.close_all()
    await runner.cleanup()


@asynccontextmanager
async def stand_alone(hub: NotificationHub, keys: Keys, ping_s: float = 60) -> AsyncIterator[Server]:
    """The routes as they are in the stand-alone server."""
    server = StandAlone(NotificationApp(hub, ping_s=ping_s).asgi(), hub, "error")
    listeners = listen("127.0.0.1", 0)
    port = listeners[0].getsockname()[1]
    task = asyncio.create_task(server.serve(sockets=listeners))

    async def stop() -> None:
        server.should_exit = True
        await task

    await until("it has started", lambda: server.started)
    yield Server(hub, port, keys, stop, lambda: len(server.server_state.connections))
    await RawClient.close_all()
    await stop()


SERVERS = {"gateway": gateway, "stand-alone": stand_alone}


@pytest.fixture(params=SERVERS)
async def server(request: pytest.FixtureRequest, hub: NotificationHub, keys: Keys) -> AsyncIterator[Server]:
    async with SERVERS[request.param](hub, keys) as server:
        yield server


# --- deployed clients -------------------------------------------------------------------------------------------------


async def test_strict_dialect(server: Server) -> None:
    await server.publish(1)
    client = await server.strict()
    assert client.status == 200
    assert client.headers["content-type"] == "text/event-stream"
    assert client.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in client.headers
    assert await client.chunk() == server.event(1)
    for revision in (2, 3):
        await server.publish(revision)
        assert await client.chunk() == server.event(revision)
    client.close()


async def test_nothing_before_there_is_something(server: Server) -> None:
    client = await server.strict()
    await server.publish(1, OTHER)
    await server.publish(1)
    assert await client.chunk() == server.event(1)


async def test_newest_wins_within_the_gap(server: Server) -> None:
    client = await server.strict()
    for revision in range(1, 21):
        await server.publish(revision)
    heard: list[bytes] = []
    while heard[-1:] != [server.event(20)]:
        heard.append(await client.chunk())
    assert len(heard) < 20
    assert heard == [event for event in map(server.event, range(1, 21)) if event in heard]


async def test_another_subscriber_wakes_nobody(server: Server) -> None:
    await server.publish(1)
    first = await server.strict()
    await first.chunk()
    await (await server.strict()).chunk()
    await server.publish(2)
    assert await first.chunk() == server.event(2)


async def test_repositories_that_nobody_serves(server: Server) -> None:
    client = await server.strict(UNKNOWN)
    await server.publish(5, UNKNOWN)
    assert await client.chunk() == server.event(5, UNKNOWN)


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"version":1,"repository":"a/b"}', b'{"version":1,"repository":"*"}', b"x" * 2_000_000]
)
async def test_a_deployed_client_is_refused_by_a_reset(server: Server, body: bytes) -> None:
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError, BrokenPipeError)):
        await RawClient.get(server.port, SUBSCRIBE, body=body, agent=AGENT)
    assert server.hub.subscribers == 0


async def test_a_deployed_client_gets_no_answer_of_an_accident_either(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(server.hub, "open_stream", broken)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await server.strict()
    assert "ZeroDivisionError" in caplog.text


async def test_stopping_resets_and_never_ends(server: Server) -> None:
    await server.publish(1)
    strict, standard = await server.strict(), await RawClient.get(server.port, f"{SUBSCRIBE}?repository=*")
    await strict.chunk()
    while not (await standard.chunk()).startswith(b"data"):
        pass
    late = await server.strict(UNKNOWN)
    await server.stop()
    for client in (strict, late):
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)) as caught:
            await client.chunk()
        assert getattr(caught.value, "partial", b"") == b""
    # these come back in either case
    with contextlib.suppress(ConnectionResetError, asyncio.IncompleteReadError):
        assert await standard.chunk() == b""
    assert server.hub.subscribers == 0


async def test_publishing_goes_on_while_stopping(server: Server, hub: NotificationHub, keys: Keys) -> None:
    hub.cut()
    await hub.announce(FQRN, keys.manifest(3))
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await server.strict()
    newest = hub.broker.newest(FQRN)
    assert newest is not None
    assert newest.revision == 3


@pytest.mark.parametrize("how", ["close", "reset", "half"])
async def test_who_is_gone_is_noticed(server: Server, how: str) -> None:
    client = await server.strict()
    assert server.hub.subscribers == 1
    connection: socket.socket = client.writer.get_extra_info("socket")
    if how == "half":
        client.writer.write_eof()
    elif how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.transport.abort()
    else:
        client.close()
    async with asyncio.timeout(1):
        await until("it is noticed", lambda: not server.hub.subscribers)
    assert not server.hub.broker._by_topic


async def test_the_http_server_keeps_nothing_of_a_stream(server: Server) -> None:
    clients = [await server.strict() for _ in range(3)]
    await until("the requests are over", lambda: not server.busy())
    await server.publish(1)
    for client in clients:
        assert await client.chunk() == server.event(1)


async def test_tls(hub: NotificationHub, keys: Keys, tmp_path: Path) -> None:
    """The stream takes over the encrypted side of the connection."""
    for name, data in (("key", keys.key.pem), ("crt", keys.certificate.pem)):
        (tmp_path / name).write_bytes(data)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    async with gateway(hub, keys, context=context) as server:
        client = RawClient(*await asyncio.open_connection("127.0.0.1", server.port, ssl=anybody))
        RawClient.opened.append(client)
        client.writer.write(
            f"GET {SUBSCRIBE}?repository={FQRN} HTTP/1.1\r\nHost: x\r\nUser-Agent: {AGENT}\r\n\r\n".encode()
        )
        await client.head()
        for revision in (1, 2):
            await hub.publish(keys.message(revision))
            assert await client.chunk() == server.event(revision)
        hub.cut()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await client.chunk()


@pytest.mark.parametrize("server", ["gateway"], indirect=True)
async def test_a_subscriber_that_never_reads(server: Server) -> None:
    """Its kernel buffers fill, then its slot is overwritten; nobody else notices, and in the end it has the newest."""
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    stuck.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(stuck, ("127.0.0.1", server.port))
    await loop.sock_sendall(stuck, f"GET {SUBSCRIBE}?repository={FQRN} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    reader = await RawClient.get(server.port, f"{SUBSCRIBE}?repository={FQRN}")
    await until("both are there", lambda: server.hub.subscribers == 2)
    await reader.chunk()
    revision = 0
    while not any(stream._full for stream in server.hub._streams):
        revision += 1
        await server.publish(revision)
        assert server.keys.message(revision) in await reader.chunk()
    for _ in range(50):
        revision += 1
        await server.publish(revision)
        assert server.keys.message(revision) in await reader.chunk()
    text = b""
    while server.keys.message(revision) not in text:
        text += await within(loop.sock_recv(stuck, 65536))
    assert server.keys.message(revision - 1) not in text
    stuck.close()


async def test_a_subscriber_that_does_not_stop_talking(server: Server) -> None:
    client = await server.strict()
    client.writer.write(b"x" * 5000)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await client.chunk()


async def test_the_socket(server: Server) -> None:
    await server.strict()
    (stream,) = server.hub._streams
    connection: socket.socket = stream._transport.get_extra_info("socket")
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# --- standard clients -------------------------------------------------------------------------------------------------


async def test_standard_dialect(server: Server) -> None:
    await server.publish(1)
    await server.publish(1, OTHER)
    client = await RawClient.get(server.port, f"{SUBSCRIBE}?repository={FQRN}&repository={OTHER}", agent="Mozilla/5.0")
    assert client.headers["access-control-allow-origin"] == "*"
    reader = Reader()
    events: list[Received] = []
    while len(events) < 2:
        events += list(reader.feed(await client.chunk()))
    assert {Activity.parse(event.data).repository for event in events} == {FQRN, OTHER}
    assert events[-1].id == f"{server.hub.broker.epoch}-{server.hub.broker.last_number}"
    client.close()

    await server.publish(2)
    again = await RawClient.get(server.port, f"{SUBSCRIBE}?repository=*", f"Last-Event-ID: {reader.last_id}")
    text = b""
    while b"id: " not in text:
        text += await again.chunk()
    assert server.keys.message(2) in text
    assert server.keys.message(1, OTHER) not in text


@pytest.mark.parametrize("kind", SERVERS)
async def test_pings(kind: str, source: FakeSource, keys: Keys) -> None:
    hub = NotificationHub(None, source, ping_s=0.01)
    async with SERVERS[kind](hub, keys, 0.01) as server:
        strict = await server.strict()
        standard = await RawClient.get(server.port, f"{SUBSCRIBE}?repository={FQRN}")
        for _ in range(3):
            while await standard.chunk() != b": ping\n\n":
                pass
        await server.publish(1)
        assert await strict.chunk() == server.event(1)  # not a byte before it
    await hub.close()


async def test_http_1_0(server: Server) -> None:
    client = await RawClient.get(server.port, f"{SUBSCRIBE}?repository={FQRN}", version="1.0")
    assert "transfer-encoding" not in client.headers
    await server.publish(1)
    assert await within(client.reader.readuntil(b"data: ")) == b"retry: 1000\n\ndata: "


@pytest.mark.parametrize("target", ["", "?repository=", "?repository=a/b", "?repository=a&repository=..%2F"])
async def test_malformed_subscriptions(server: Server, target: str) -> None:
    client = await RawClient.get(server.port, SUBSCRIBE + target)
    assert client.status == 400
    reply = json.loads(await within(client.reader.readexactly(int(client.headers["content-length"]))))
    assert (reply["status"], reply["reason"]) == ("error", "invalid_subscription")


async def test_head_does_not_open_a_stream(server: Server) -> None:
    client = await RawClient.connect(server.port)
    client.writer.write(f"HEAD {SUBSCRIBE}?repository=* HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await client.head()
    assert client.status == 405


async def test_full(source: FakeSource, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.hub, "_max_subscribers", 1)
    await server.strict()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await server.strict()
    assert (await RawClient.get(server.port, f"{SUBSCRIBE}?repository=*")).status == 503


# --- publishers -------------------------------------------------------------------------------------------------------


async def test_what_is_refused(server: Server) -> None:
    await server.publish(5)
    client = await server.strict()
    assert await client.chunk() == server.event(5)
    assert (await server.post(server.keys.message(6, key=server.keys.forger)))[1]["reason"] == "untrusted_manifest"
    assert (await server.post(server.keys.message(4)))[1]["reason"] == "older_revision"
    wrong = Activity(FQRN, server.keys.manifest(9, OTHER)).serialize()
    assert (await server.post(wrong))[1]["reason"] == "wrong_repository"
    for body in (b"", b"{", b"[]", b"\xff", b"x" * (MAX_MESSAGE + 1), b"x" * 2_000_000):
        status, reply = await server.post(body)
        assert status in (400, 413)
        assert reply["status"] == "error"
    await server.publish(5)  # the same again
    await server.publish(6)
    assert await client.chunk() == server.event(6)


async def test_parallel_publishers(server: Server) -> None:
    """In whatever order they come, subscribers hear ever newer revisions, and the newest last."""
    client = await RawClient.get(server.port, f"{SUBSCRIBE}?repository={FQRN}")
    replies = await asyncio.gather(*(server.post(server.keys.message(revision)) for revision in range(1, 65)))
    assert {status for status, _ in replies} == {200}
    assert {reply.get("reason", "ok") for _, reply in replies} <= {"ok", "older_revision"}
    newest = server.hub.broker.newest(FQRN)
    assert newest is not None
    assert newest.revision == 64
    text = b""
    while server.keys.message(64) not in text:
        text += await client.chunk()
    heard = [Activity.parse(event.data).manifest for event in Reader().feed(text)]
    revisions = [int(manifest.split(b"\nS")[1].split(b"\n")[0]) for manifest in heard]
    assert revisions == sorted(set(revisions))
