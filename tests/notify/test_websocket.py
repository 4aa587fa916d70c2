from __future__ import annotations

import json

import pytest
import websockets
from websockets.typing import Subprotocol

from cvmfs_notify.hub import NotificationHub
from tests.notify.support import FQRN, OTHER, Keys, until, within
from tests.notify.test_api_notifications import stand_alone


def request(fqrn: str) -> bytes:
    return json.dumps({"version": 1, "repository": fqrn}).encode()


async def test_messages(hub: NotificationHub, keys: Keys) -> None:
    async with (
        stand_alone(hub, keys) as server,
        websockets.connect(f"ws://127.0.0.1:{server.port}/api/v1/subscribe") as ws,
    ):
        assert ws.subprotocol is None
        await server.publish(1)
        await ws.send(request(FQRN))
        assert await within(ws.recv()) == keys.message(1)
        await ws.send(request(OTHER))
        await ws.send(request(FQRN).decode())
        assert json.loads(await within(ws.recv())) == {"status": "error", "reason": "already subscribed"}
        await server.publish(3, OTHER)
        assert await within(ws.recv()) == keys.message(3, OTHER)
        await server.publish(2)
        assert await within(ws.recv()) == keys.message(2)
        await server.stop()
        with pytest.raises(websockets.ConnectionClosed) as caught:
            await within(ws.recv())
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "message is not valid JSON"),
        (b"{", "message is not valid JSON"),
        (b"[]", "invalid subscription message"),
        (b'{"repository":"a/b"}', "invalid subscription message"),
    ],
)
async def test_refusals(hub: NotificationHub, keys: Keys, data: bytes, reason: str) -> None:
    async with (
        stand_alone(hub, keys) as server,
        websockets.connect(f"ws://127.0.0.1:{server.port}/api/v1/subscribe") as ws,
    ):
        await ws.send(data)
        assert (
            await within(ws.recv()) == json.dumps({"status": "error", "reason": reason}, separators=(",", ":")).encode()
        )
        await ws.send(request(FQRN))
        await server.publish(1)
        assert await within(ws.recv()) == keys.message(1)


async def test_sub_protocols(hub: NotificationHub, keys: Keys) -> None:
    async with stand_alone(hub, keys) as server:
        url = f"ws://127.0.0.1:{server.port}/api/v1/subscribe"
        offered = [Subprotocol("xml"), Subprotocol("json")]
        async with websockets.connect(url, subprotocols=offered) as ws:
            assert ws.subprotocol == "json"
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(url, subprotocols=offered[:1])
        assert caught.value.response.status_code == 400


async def test_who_is_gone_is_forgotten(hub: NotificationHub, keys: Keys) -> None:
    async with stand_alone(hub, keys) as server:
        async with websockets.connect(f"ws://127.0.0.1:{server.port}/api/v1/subscribe") as ws:
            await ws.send(request(FQRN))
            await until("it is there", lambda: hub.subscribers == 1)
        await until("it is gone", lambda: hub.subscribers == 0)
