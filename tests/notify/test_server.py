"""What the stand-alone server has besides the routes that the gateway has, too."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from cvmfs_notify.authorization import sign
from cvmfs_notify.client import Subscriber
from cvmfs_notify.hub import NotificationHub
from cvmfs_notify.server import NotificationApp, Server
from cvmfs_notify.sockets import listen
from tests.notify.support import FQRN, Keys, until
from tests.notify.test_api_notifications import stand_alone


async def test_the_older_publish_route(hub: NotificationHub, keys: Keys) -> None:
    async with stand_alone(hub, keys) as server, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{server.port}/api/v1/publish"
        for body, status, expected in (
            (keys.message(2), 200, {"status": "ok"}),
            (b"{", 400, {"status": "error", "reason": "invalid_message"}),
            (keys.message(1), 400, {"status": "error", "reason": "older_revision"}),
        ):
            async with session.post(url, data=body) as reply:
                assert reply.status == status
                assert expected.items() <= (await reply.json()).items()
        async with session.get(f"http://127.0.0.1:{server.port}/api/v1") as reply:
            assert (await reply.json())["subscribers"] == 0


async def test_publishers_that_must_sign(hub: NotificationHub, keys: Keys) -> None:
    server = Server(NotificationApp(hub, {"ci": b"secret"}).asgi(), hub, "error")
    listeners = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listeners[0].getsockname()[1]}/api/v1/notifications/publish"
    task = asyncio.create_task(server.serve(sockets=listeners))
    await until("it has started", lambda: server.started)
    body = keys.message(1)
    async with aiohttp.ClientSession() as session:
        async with session.post(url, data=body) as reply:
            assert (await reply.json())["reason"] == "invalid_hmac"
        async with session.post(url, data=body, headers={"Authorization": sign("ci", b"secret", body)}) as reply:
            assert await reply.json() == {"status": "ok"}
    server.should_exit = True
    await task


@pytest.mark.parametrize("repository", [FQRN, "*"])
async def test_a_standard_client_comes_back(hub: NotificationHub, keys: Keys, repository: str) -> None:
    states: list[str] = []
    async with stand_alone(hub, keys) as server, aiohttp.ClientSession() as session:
        await server.publish(1)
        subscriber = Subscriber(session, f"http://127.0.0.1:{server.port}/api/v1", repository, states.append)
        messages = subscriber.messages()
        assert await anext(messages) == keys.message(1)
        await server.publish(2)
        assert await anext(messages) == keys.message(2)
        assert subscriber._last_id == f"{hub.broker.epoch}-1"
        await messages.aclose()
