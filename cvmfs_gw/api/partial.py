"""``/repos/<name>/partial/<id>``: uploads in several requests, for large bodies and connections that break.

::

    PUT, POST  .../files/<path>?...  Upload-Complete: ?0                      begins one; Location says where it is
    HEAD       .../partial/<id>                                               Upload-Offset: what has arrived
    PATCH      .../partial/<id>      Upload-Offset: N, Upload-Complete: ?0    the body is the next part
    PATCH      .../partial/<id>      Upload-Offset: N, Upload-Complete: ?1    ... and the last one: the reply to the PUT
    DELETE     .../partial/<id>                                               gives it up

What a broken connection has brought stays. After a refusal that need not last (the path is leased), the last part is
repeated without a body.

Source: draft-ietf-httpbis-resumable-upload. Divergence: no interim response tells where an upload is whose first
request breaks off, so begin one without a body. ``X-Content-SHA256`` is of each request's own body: a part that breaks
off, or is another one, is then discarded.
"""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from cvmfs_gw.api.bodies import Body
from cvmfs_gw.api.describe import COUNT, TEXT, Paths, in_header, in_path, operation
from cvmfs_gw.api.messages import reply
from cvmfs_gw.api.uploads import (
    CHECKSUM,
    DATE,
    MAX_DRAIN,
    NAME,
    PUT_ANSWER,
    WHO,
    authorized,
    checksum,
    expect,
    put_answer,
    uploads,
)
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.gateway.protocol import MAX_DRAIN_UNSIGNED
from cvmfs_gw.stratum0.content import Upload
from cvmfs_gw.stratum0.errors import InvalidRequest
from cvmfs_gw.stratum0.partial import MAX_AGE_S

_BOOLEANS: Final = {"?0": False, "?1": True}

COMPLETE: Final = in_header("Upload-Complete", {"enum": [*_BOOLEANS]}, "?0: more follows in other requests")
_OFFSET: Final = in_header("Upload-Offset", COUNT, "at which byte of the whole the body begins")


def is_complete(request: web.Request, default: str = "?1") -> bool:
    """Whether this request ends its upload; raises :exc:`InvalidRequest`."""
    try:
        return _BOOLEANS[request.headers.get("Upload-Complete", default).strip()]
    except KeyError:
        raise InvalidRequest("Upload-Complete is neither ?0 nor ?1") from None


async def begin(request: web.Request, place: LeasePath, wanted: Upload, body: Body) -> web.Response:
    """Begin an upload with *body*, which may be empty."""
    upload, offset = await uploads(request).begin(place, body.chunks(), wanted)
    where = f"{request.path.partition('/files/')[0]}/partial/{upload}"
    return _state(offset, 201, upload=where, headers={"Location": where})


async def look(request: web.Request) -> web.Response:
    place = authorized(request, change=True)
    return _state(await uploads(request).partial(place.fqrn).offset(request.match_info["upload"]), 200)


async def patch(request: web.Request) -> web.Response:
    body, vouched = Body(request), False
    try:
        place = authorized(request, change=True)
        vouched = True
        service, upload = uploads(request), request.match_info["upload"]
        complete = is_complete(request, default="")
        text = request.headers.get("Upload-Offset", "").strip()
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise InvalidRequest("Upload-Offset is not a number of bytes")
        offset = await service.append(place.fqrn, upload, int(text), body.chunks(), checksum(request))
    except Exception:
        # a client that is still sending would not see the reply
        await (body.drain(MAX_DRAIN_UNSIGNED) if vouched else body.drain_unsigned(MAX_DRAIN))
        raise
    if not complete:
        return _state(offset, 200)
    return put_answer(await service.complete(place, upload, offset, request[WHO]), place.path)


async def delete(request: web.Request) -> web.Response:
    place = authorized(request, change=True)
    await uploads(request).partial(place.fqrn).remove(request.match_info["upload"])
    return reply({"status": "ok"})


def _state(offset: int, status: int, *, headers: dict[str, str] | None = None, **more: Any) -> web.Response:
    """What a client is told of an incomplete upload."""
    state = {"Upload-Offset": str(offset), "Upload-Complete": "?0", "Upload-Limit": f"max-age={MAX_AGE_S:.0f}"}
    body = {"status": "ok", "offset": offset, **more}
    return reply(body, status, {**state, "Cache-Control": "no-store", **(headers or {})})


_ID: Final = in_path("upload")
PATHS: Final[Paths] = {
    "/repos/{name}/partial/{upload}": {
        "head": operation("How much of an upload has arrived", NAME, _ID, DATE, bare=True, signed="request"),
        "patch": operation(
            "Add a part to an upload",
            NAME,
            _ID,
            _OFFSET,
            COMPLETE,
            CHECKSUM,
            DATE,
            body={"required": True, "content": {"application/octet-stream": {"schema": {"format": "binary"}}}},
            answer={**PUT_ANSWER, "offset": COUNT, "upload": TEXT},
            errors={"201": "it was the last part, and the file is new"},
            signed="request",
        ),
        "delete": operation("Give an upload up", NAME, _ID, DATE, signed="request"),
    }
}


def routes(root: str) -> list[web.RouteDef]:
    path = f"{root}/repos/{{name}}/partial/{{upload}}"
    return [web.head(path, look), web.patch(path, patch, expect_handler=expect), web.delete(path, delete)]
