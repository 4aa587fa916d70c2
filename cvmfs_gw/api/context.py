"""Helpers of all routes: the service, the request's body and its signature."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

from aiohttp import web

from cvmfs_gw.api.running import PATIENCE_S, RUNNING
from cvmfs_gw.gateway.errors import BodyTooLarge, InvalidBody
from cvmfs_gw.gateway.protocol import MAX_JSON_BODY
from cvmfs_gw.gateway.service import GatewayService

SERVICE: web.AppKey[GatewayService] = web.AppKey("service", GatewayService)


BODY_S: Final = PATIENCE_S
"""How long a JSON body may take to arrive, in seconds."""


def service(request: web.Request) -> GatewayService:
    return request.app[SERVICE]


def authorization(request: web.Request) -> str | None:
    """The ``Authorization`` header."""
    return request.headers.get("Authorization")


def token(request: web.Request) -> str:
    """The lease's token in the URL, decoded."""
    return request.match_info["token"]


async def json_body(request: web.Request) -> bytes:
    """The whole body, whatever its content type claims; raises :exc:`BodyTooLarge`, :exc:`InvalidBody`."""
    if (request.content_length or 0) > MAX_JSON_BODY:
        raise BodyTooLarge
    body = bytearray(request.content.read_nowait())
    if request.content.is_eof() and len(body) <= MAX_JSON_BODY:
        return bytes(body)  # most come together with their head
    try:
        async with request.app[RUNNING].waiting(BODY_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MAX_JSON_BODY:
                    raise BodyTooLarge
    except TimeoutError:
        raise InvalidBody("it did not arrive in time") from None
    return bytes(body)


def url_path(request: web.Request) -> bytes:
    """The URL's path with percent-escapes decoded, which is the signed message of some routes."""
    target = request.raw_path
    # an absolute target is what a client sends through a proxy
    path = target.partition("?")[0] if target.startswith("/") else urlsplit(target).path
    return unquote_to_bytes(path)
