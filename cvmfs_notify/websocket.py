"""The WebSocket of the older stand-alone server.

::

    client   binary frame {"version":1,"repository":"<fqrn>"}       subscribes; may be repeated for other repositories
    server   binary frame: an activity message
             binary frame {"status":"error","reason":"..."}          the connection stays open

A client that offers sub-protocols must offer ``json``, which is then selected; otherwise it gets a 400.

Source: the older server and its test client.
Divergence: a new subscriber gets the last message at once, as with event streams; text frames, which crashed the older
server's connection, are read like binary ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Final

import msgspec
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from cvmfs_notify.errors import InvalidSubscription, SubscriberRefused
from cvmfs_notify.hub import NotificationHub
from cvmfs_notify.messages import MAX_TOPICS, parse_subscription, topics

log = logging.getLogger(__name__)

PROTOCOL: Final = "json"
CLOSE_RESTART: Final = 1012
"""The close code "Service Restart", see the registry of RFC 6455."""


async def serve_websocket(websocket: WebSocket, hub: NotificationHub) -> None:
    """Serve one WebSocket until it is closed."""
    offered = websocket.scope.get("subprotocols") or []
    if offered and PROTOCOL not in offered:
        await websocket.send_denial_response(Response(status_code=400))
        return
    await websocket.accept(PROTOCOL if offered else None)
    tasks: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            await _receive(websocket, hub, tasks)
    except WebSocketDisconnect:
        pass
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def _receive(websocket: WebSocket, hub: NotificationHub, tasks: dict[str, asyncio.Task[None]]) -> None:
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    data: bytes = message.get("bytes") or (message.get("text") or "").encode()
    try:
        repository = parse_subscription(data)
    except InvalidSubscription:
        await _refuse(websocket, "invalid subscription message" if _is_json(data) else "message is not valid JSON")
        return
    if repository in tasks:
        await _refuse(websocket, "already subscribed")
    elif len(tasks) >= MAX_TOPICS:
        await _refuse(websocket, "too many subscriptions")
    else:
        tasks[repository] = asyncio.create_task(_forward(websocket, hub, repository))


async def _forward(websocket: WebSocket, hub: NotificationHub, repository: str) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it is gone
        try:
            async with hub.listen(topics([repository])) as events:
                async for event in events:
                    await websocket.send_bytes(event.publication.message)
            await websocket.close(CLOSE_RESTART)
        except SubscriberRefused as error:
            await _refuse(websocket, error.reason)


async def _refuse(websocket: WebSocket, reason: str) -> None:
    await websocket.send_bytes(json.dumps({"status": "error", "reason": reason}, separators=(",", ":")).encode())


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True
