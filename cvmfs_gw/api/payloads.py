"""``/payloads``: object packs, streamed into the store.

::

    Message-Size: n
    body = n bytes of JSON, then the object pack

A publisher takes a connection that ends early for the end of its publish, so that a refused payload is read to its
end, and then answered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final

import aiohttp
from aiohttp import web

from cvmfs_gw.api.context import authorization, service
from cvmfs_gw.api.messages import PayloadHead, decode, number, reply
from cvmfs_gw.gateway.authorization import Key
from cvmfs_gw.gateway.errors import BadPack, InvalidBody, InvalidMessageSize
from cvmfs_gw.gateway.protocol import MAX_DRAIN_UNSIGNED, MAX_PAYLOAD, MAX_PAYLOAD_HEAD

IDLE_S: Final = 900.0
"""How long a publisher may send nothing in the middle of a payload, in seconds."""


class _Body:
    """A request's body, read in order. No wait for the network lasts longer than :data:`IDLE_S`."""

    def __init__(self, request: web.Request) -> None:
        self._content = request.content
        self._stuck = False

    async def exactly(self, size: int) -> bytes:
        """The next *size* bytes; raises :exc:`InvalidBody` if there are fewer."""
        try:
            return await self._patiently(self._content.readexactly(size))
        except asyncio.IncompleteReadError:
            raise InvalidBody("shorter than message-size") from None

    async def chunks(self) -> AsyncIterator[bytes]:
        """What is left, in pieces as they come."""
        while chunk := await self._patiently(self._content.readany()):
            yield chunk

    async def drain(self, limit: int) -> None:
        """Read what is left and throw it away, up to *limit* bytes."""
        with contextlib.suppress(BadPack, OSError, aiohttp.ClientError):
            while not self._stuck and limit > 0:
                chunk = await self._patiently(self._content.readany())
                if not chunk:
                    return
                limit -= len(chunk)

    async def _patiently(self, read: Coroutine[Any, Any, bytes]) -> bytes:
        try:
            async with asyncio.timeout(IDLE_S):
                return await read
        except TimeoutError:
            self._stuck = True
            raise BadPack("the publisher stopped sending") from None


async def submit(request: web.Request) -> web.Response:
    """``POST /payloads/<token>``, and ``POST /payloads`` with the token in the head."""
    body = _Body(request)
    key: Key | None = None
    try:
        head_bytes = await body.exactly(_message_size(request))
        url_token = request.match_info.get("token")
        signed = head_bytes if url_token is None else url_token.encode()
        key = service(request).access.authorize(authorization(request), signed)
        head = decode(head_bytes, PayloadHead)
        await service(request).payload(
            url_token or head.session_token or "",
            key,
            digest=head.payload_digest,
            header_size=number(head.header_size, "header_size"),
            chunks=body.chunks(),
        )
    except Exception:
        await body.drain(MAX_DRAIN_UNSIGNED if key is None else MAX_PAYLOAD)
        raise
    return reply({"status": "ok"})


def routes(root: str) -> list[web.RouteDef]:
    return [web.post(f"{root}/payloads", submit), web.post(f"{root}/payloads/{{token}}", submit)]


def _message_size(request: web.Request) -> int:
    text = request.headers.get("Message-Size")
    if text is None:
        raise InvalidMessageSize
    text = text.strip()
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise InvalidMessageSize("invalid message-size header")
    size = int(text)
    if size > MAX_PAYLOAD_HEAD:
        raise InvalidMessageSize(f"message-size over {MAX_PAYLOAD_HEAD} bytes")
    return size
