"""``/payloads``: object packs, streamed into the store.

::

    Message-Size: n
    body = n bytes of JSON, then the object pack

A publisher aborts when its connection is closed early, so a refused payload is read to its end before it is answered.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from cvmfs_gw.api.bodies import Body
from cvmfs_gw.api.context import authorization, service
from cvmfs_gw.api.describe import Paths, in_header, in_path, operation
from cvmfs_gw.api.messages import PayloadHead, decode, number, reply
from cvmfs_gw.gateway.authorization import Key
from cvmfs_gw.gateway.errors import InvalidMessageSize
from cvmfs_gw.gateway.protocol import MAX_DRAIN_UNSIGNED, MAX_PAYLOAD, MAX_PAYLOAD_HEAD


async def submit(request: web.Request) -> web.Response:
    """``POST /payloads/<token>``, and ``POST /payloads`` with the token in the head."""
    payloads = service(request).payloads
    body = Body(request, payloads.blocks)
    key: Key | None = None
    try:
        head_bytes = await body.exactly(_message_size(request))
        url_token = request.match_info.get("token")
        signed = head_bytes if url_token is None else url_token.encode()
        key = service(request).access.authorize(authorization(request), signed)
        head = decode(head_bytes, PayloadHead)
        await payloads.receive(
            url_token or head.session_token or "",
            key,
            digest=head.payload_digest,
            header_size=number(head.header_size, "header_size"),
            chunks=body.chunks(),
            size=request.content_length or 0,
        )
    except Exception:
        await (body.drain_unsigned(MAX_DRAIN_UNSIGNED) if key is None else body.drain(MAX_PAYLOAD))
        body.close()
        raise
    # not where this is cancelled: blocks may be in use then
    body.close()
    return reply({"status": "ok"})


_PACK: Final = {
    "required": True,
    "description": "Message-Size bytes of JSON (payload_digest, header_size, session_token), then the object pack",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}
_SIZE: Final = in_header("Message-Size", {"type": "integer", "minimum": 0, "maximum": MAX_PAYLOAD_HEAD}, required=True)

PATHS: Final[Paths] = {
    "/payloads": {"post": operation("Send an object pack", _SIZE, body=_PACK, signed="head")},
    "/payloads/{token}": {
        "post": operation("Send an object pack", in_path("token"), _SIZE, body=_PACK, signed="token")
    },
}


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
