"""The stand-alone server as a Starlette application, and how uvicorn serves it.

::

    GET  /api/v1                            a greeting
    POST /api/v1/notifications/publish      activity message
    GET  /api/v1/notifications/subscribe    event stream
    POST /api/v1/publish                    activity message  }  as in the older
    WS   /api/v1/subscribe                  messages          }  stand-alone server

Standard clients are served by sse-starlette. Deployed clients need their connection aborted when the server stops,
which an ASGI response cannot do, so they get a :class:`~cvmfs_notify.stream.EventStream` on the transport itself, which
:class:`TransportProtocol` gets from uvicorn.

Source: on ``/api/v1/publish``, the older server answered 400 to everything that it refused; so does this one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import contextmanager
from typing import Any, Final

import uvicorn
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.protocols.http.h11_impl import H11Protocol

from cvmfs_notify import keepalive
from cvmfs_notify.authorization import check_publisher
from cvmfs_notify.errors import InvalidMessage, InvalidSubscription, NotifyError
from cvmfs_notify.hub import NotificationHub
from cvmfs_notify.messages import MAX_MESSAGE, parse_subscription, topics
from cvmfs_notify.sse import GREETING, PING, Dialect, frame
from cvmfs_notify.stream import PING_S, STUCK_S
from cvmfs_notify.websocket import serve_websocket

log = logging.getLogger(__name__)

API_ROOT: Final = "/api/v1"
WELCOME: Final = "This is a notification server for CernVM-FS repositories."


class TransportProtocol(H11Protocol):
    """Gives the application the connection of a request, as ``request.state.connection``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {**self.app_state, "connection": self}
        super().connection_made(transport)

    def hand_over(self) -> asyncio.Transport:
        """Detach the transport from uvicorn, which treats the connection as lost but does not close it."""
        transport = self.transport
        self.connection_lost(ConnectionResetError("handed over"))
        return transport


class _HandedOver(Response):
    """The response on a connection that was handed over."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        return None


class NotificationApp:
    """The routes. *keys* (id -> secret) are those of publishers; if there are none, everybody may publish."""

    def __init__(
        self, hub: NotificationHub, keys: Mapping[str, bytes] | None = None, *, ping_s: float = PING_S
    ) -> None:
        self._hub = hub
        self._keys = keys or {}
        self._ping_s = ping_s

    def asgi(self) -> Starlette:
        return Starlette(
            routes=[
                Route(API_ROOT, self._welcome),
                Route(f"{API_ROOT}/notifications/publish", self._publish, methods=["POST"]),
                Route(f"{API_ROOT}/notifications/subscribe", _GetOnly(self._subscribe)),
                Route(f"{API_ROOT}/publish", self._publish_as_before, methods=["POST"]),
                WebSocketRoute(f"{API_ROOT}/subscribe", self._websocket),
            ],
        )

    async def _welcome(self, request: Request) -> Response:
        return JSONResponse({"welcome": WELCOME, "subscribers": self._hub.subscribers})

    async def _publish(self, request: Request) -> Response:
        try:
            await self._take_in(request)
        except NotifyError as error:
            return JSONResponse(error.reply(), error.http_status)
        return JSONResponse({"status": "ok"})

    async def _publish_as_before(self, request: Request) -> Response:
        try:
            await self._take_in(request)
        except NotifyError as error:
            return JSONResponse(error.reply(), 400)
        return JSONResponse({"status": "ok"})

    async def _take_in(self, request: Request) -> None:
        body = await _body(request, InvalidMessage)
        try:
            check_publisher(request.headers.get("authorization"), body, self._keys)
            await self._hub.publish(body)
        except NotifyError as error:
            log.info("a message from %s is refused: %s", request.client and request.client.host, error)
            raise

    async def _subscribe(self, request: Request) -> Response:
        dialect = Dialect.of(request.headers.get("user-agent"))
        connection = getattr(request.state, "connection", None)
        if dialect is Dialect.STRICT and isinstance(connection, TransportProtocol):
            return await self._strict(request, connection)
        try:
            wanted = await _wanted(request)
            self._hub.admit()
        except NotifyError as error:
            return JSONResponse(error.reply(), error.http_status)
        return EventSourceResponse(
            self._events(wanted, request.headers.get("last-event-id"), dialect),
            headers={"Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*"},
            ping=self._ping_s if dialect is Dialect.STANDARD else 0,
            ping_message_factory=lambda: PING,  # type: ignore[arg-type, return-value]
            sep="\n",
            send_timeout=STUCK_S,
        )

    async def _strict(self, request: Request, connection: TransportProtocol) -> Response:
        """Whatever happens, no answer in words."""
        transport: asyncio.Transport | None = None
        try:
            wanted = await _wanted(request)
            if wanted is None or len(wanted) > 1:
                raise InvalidSubscription("one repository for each stream")
            transport = connection.hand_over()
            self._hub.open_stream(transport, wanted, Dialect.STRICT, chunked=request.scope["http_version"] != "1.0")
        except Exception as error:
            known = isinstance(error, (NotifyError, ClientDisconnect))
            level = logging.INFO if known else logging.ERROR
            log.log(level, "a subscriber is refused: %s", error, exc_info=not known)
            keepalive.cut(transport or connection.hand_over())
        return _HandedOver()

    async def _events(
        self, wanted: frozenset[str] | None, last_event_id: str | None, dialect: Dialect
    ) -> AsyncIterator[bytes]:
        if dialect is Dialect.STANDARD:
            yield GREETING
        async with self._hub.listen(wanted, last_event_id=last_event_id) as events:
            async for event in events:
                yield frame(event, dialect, self._hub.broker.epoch)

    async def _websocket(self, websocket: WebSocket) -> None:
        await serve_websocket(websocket, self._hub)


class _GetOnly:
    """An endpoint that refuses HEAD: Starlette would answer it with the endless stream of GET."""

    def __init__(self, handler: Callable[[Request], Any]) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            response = await self._handler(Request(scope, receive, send))
        else:
            response = JSONResponse({"status": "error", "reason": "method not allowed"}, 405, {"Allow": "GET"})
        await response(scope, receive, send)


class Server(uvicorn.Server):
    """uvicorn, which on shutdown first cuts the streams, then waits for connections; signals are left to the caller."""

    def __init__(self, app: ASGIApp, hub: NotificationHub, log_level: str = "info") -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=TransportProtocol,
                ws="websockets-sansio",
                log_config=None,
                log_level=log_level,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=10,
                ws_max_size=MAX_MESSAGE,
            )
        )
        self._hub = hub

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        self._hub.cut()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Any:
        yield


async def _wanted(request: Request) -> frozenset[str] | None:
    """The repositories named in the URL or the body, None for all; raises :exc:`InvalidSubscription`."""
    named = request.query_params.getlist("repository")
    if not named:
        named = [parse_subscription(await _body(request, InvalidSubscription))]
    return topics(named)


async def _body(request: Request, too_large: type[NotifyError]) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_MESSAGE:
            raise too_large(f"over {MAX_MESSAGE} bytes")
    return bytes(body)
