from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from cvmfs_notify.authorization import webhook_signature
from cvmfs_notify.config import WebhookTarget
from cvmfs_notify.hub import NotificationHub
from cvmfs_notify.webhook import Webhook
from tests.notify.support import FQRN, OTHER, Keys, until, within


class Target:
    """A CI system. ``answers`` are the statuses of its next replies, 200 when there are none."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.heard: asyncio.Queue[tuple[bytes, dict[str, str]]] = asyncio.Queue()
        self.url = ""

    async def hook(self, request: web.Request) -> web.Response:
        await self.heard.put((await request.read(), dict(request.headers)))
        return web.Response(status=self.answers.pop(0) if self.answers else 204)


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    target = Target()
    app = web.Application()
    app.router.add_post("/hook", target.hook)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    target.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield target
    await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_signed_and_only_what_is_new(
    hub: NotificationHub, keys: Keys, target: Target, session: aiohttp.ClientSession
) -> None:
    await hub.publish(keys.message(1))
    webhook = Webhook(hub, session, WebhookTarget(target.url, "secret", [FQRN]), first_delay_s=0)
    task = asyncio.create_task(webhook.run())
    await until("it listens", lambda: hub.subscribers == 1)
    await hub.publish(keys.message(9, OTHER))
    await hub.publish(keys.message(2))
    body, headers = await within(target.heard.get())
    assert headers["X-CVMFS-Signature-256"] == webhook_signature(b"secret", body)
    assert headers["X-CVMFS-Delivery"] == f"{hub.broker.epoch}-3"
    fields = json.loads(body)
    assert (fields["repository"], fields["revision"]) == (FQRN, 2)
    assert base64.b64decode(fields["manifest"]) == keys.manifest(2)
    hub.cut()
    await within(task)


async def test_again_until_it_works(
    hub: NotificationHub, keys: Keys, target: Target, session: aiohttp.ClientSession
) -> None:
    target.answers = [500, 404, 302]
    event = await hub.publish(keys.message(1))
    assert event is not None
    webhook = Webhook(hub, session, WebhookTarget(target.url), first_delay_s=0)
    assert await webhook.deliver(event)
    deliveries = [target.heard.get_nowait() for _ in range(4)]
    assert len({headers["X-CVMFS-Delivery"] for _, headers in deliveries}) == 1
    assert "X-CVMFS-Signature-256" not in deliveries[0][1]


async def test_not_when_there_is_a_newer_one(
    hub: NotificationHub, keys: Keys, target: Target, session: aiohttp.ClientSession
) -> None:
    event = await hub.publish(keys.message(1))
    assert event is not None
    await hub.publish(keys.message(2))
    webhook = Webhook(hub, session, WebhookTarget(target.url), first_delay_s=0)
    assert not await webhook.deliver(event)
    assert target.heard.empty()


async def test_nobody_there(hub: NotificationHub, keys: Keys, session: aiohttp.ClientSession) -> None:
    event = await hub.publish(keys.message(1))
    assert event is not None
    webhook = Webhook(hub, session, WebhookTarget("http://127.0.0.1:1/"), first_delay_s=0)
    assert not await webhook.deliver(event)
