"""The client side: publishing to a server, and where the manifest comes from. Subscribing is in test_server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from cvmfs_notify.authorization import sign
from cvmfs_notify.cli import main
from cvmfs_notify.client import fetch_manifest, publish
from cvmfs_notify.errors import MessageRefused, NotifyError, ServerUnreachable
from cvmfs_notify.messages import MAX_MANIFEST, Activity
from tests.notify.support import FQRN, Keys


class Server:
    """A server with one reply to whatever is published, and one file as everybody's manifest."""

    def __init__(self) -> None:
        self.reply: object = {"status": "ok"}
        self.manifest = b""
        self.status = 200
        self.url = ""
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.published: list[tuple[bytes, str | None]] = []

    async def publish(self, request: web.Request) -> web.Response:
        self.published.append((await request.read(), request.headers.get("Authorization")))
        return web.json_response(self.reply)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """The manifest in two pieces, the second not before :attr:`go_on`."""
        response = web.StreamResponse(status=self.status)
        await response.prepare(request)
        await response.write(self.manifest[:10])
        await self.go_on.wait()
        await response.write(self.manifest[10:])
        await response.write_eof()
        return response


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_post("/api/v1/notifications/publish", server.publish)
    app.router.add_get("/cvmfs/{fqrn}/.cvmfspublished", server.file)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


ACTIVITY = Activity(FQRN, b"manifest", "now")


async def test_publish() -> None:
    async with serving() as server, aiohttp.ClientSession() as session:
        await publish(session, f"{server.url}/api/v1/", ACTIVITY)
        await publish(session, f"{server.url}/api/v1", ACTIVITY, ("ci", b"secret"))
        body = ACTIVITY.serialize()
        assert server.published == [(body, None), (body, sign("ci", b"secret", body))]


@pytest.mark.parametrize(
    "reply", [{"status": "error", "reason": "older_revision"}, {"status": "timeout"}, {}, [], "ok"]
)
async def test_a_publish_that_is_refused(reply: object) -> None:
    async with serving() as server, aiohttp.ClientSession() as session:
        server.reply = reply
        with pytest.raises(MessageRefused):
            await publish(session, f"{server.url}/api/v1", ACTIVITY)


async def test_no_server() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ServerUnreachable):
            await publish(session, "http://127.0.0.1:1/api/v1", ACTIVITY)
        with pytest.raises(ServerUnreachable):
            await fetch_manifest(session, "http://127.0.0.1:1/cvmfs/a.b")


async def test_manifests() -> None:
    async with serving() as server, aiohttp.ClientSession() as session:
        url = f"{server.url}/cvmfs/{FQRN}"
        server.manifest = b"m" * MAX_MANIFEST
        assert await fetch_manifest(session, url) == server.manifest
        server.manifest += b"m"
        with pytest.raises(NotifyError):
            await fetch_manifest(session, url)
        server.manifest, server.status = b"gone", 404
        with pytest.raises(NotifyError):
            await fetch_manifest(session, url)


async def test_a_manifest_that_arrives_in_pieces() -> None:
    async with serving() as server:
        server.manifest = b"0123456789" * 70
        server.go_on.clear()

        async def headers_are_there(*arguments: object) -> None:
            server.go_on.set()

        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(headers_are_there)
        async with aiohttp.ClientSession(trace_configs=[trace]) as session:
            assert await fetch_manifest(session, f"{server.url}/cvmfs/{FQRN}") == server.manifest


async def test_the_command(tmp_path: Path, keys: Keys, capsys: pytest.CaptureFixture[str]) -> None:
    """What it sends is the manifest as it is served; a file that is no manifest is not sent."""
    key = tmp_path / "key.gw"
    key.write_text("plain_text ci secret\n")
    async with serving() as server:
        arguments = ["publish", server.url, f"{server.url}/cvmfs/{FQRN}", "--key", str(key)]
        server.manifest = Activity.parse(keys.message(3)).manifest
        assert await asyncio.to_thread(main, arguments) == 0
        body, signature = server.published[0]
        assert Activity.parse(body).repository == FQRN
        assert Activity.parse(body).manifest == server.manifest
        assert signature == sign("ci", b"secret", body)
        server.manifest = b"<html>"
        assert await asyncio.to_thread(main, arguments) == 1
        assert "invalid_message" in capsys.readouterr().err
        key.write_text("something else\n")
        assert await asyncio.to_thread(main, arguments) == 1
        assert "not a gateway key file" in capsys.readouterr().err
    assert len(server.published) == 1
