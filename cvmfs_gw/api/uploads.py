"""Common parts of the upload API's routes: authorization, path, and parameters.

A request is authorized before its body is read and, with ``Expect: 100-continue``, before the body is sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import ETag, web

from cvmfs_gw.api.context import url_path
from cvmfs_gw.api.describe import COUNT, FLAG, TEXT, in_header, in_path
from cvmfs_gw.api.messages import reply
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.stratum0.authorization import Asked
from cvmfs_gw.stratum0.committer import Done
from cvmfs_gw.stratum0.conditions import Condition
from cvmfs_gw.stratum0.errors import InvalidRequest, NotEnabled, UploadError
from cvmfs_gw.stratum0.service import UploadService

UPLOADS: web.AppKey[UploadService] = web.AppKey("uploads", UploadService)

WHO: Final = web.RequestKey("who", str)
"""Who asks, once that is known."""
MAX_DRAIN: Final = 64 << 20
"""How much of an unauthorized body is read and discarded, in bytes."""
MAX_WAIT_S: Final = 600
"""The longest time to wait for a leased path, in seconds."""
_TRUE: Final = frozenset(("", "1", "true", "yes"))
_FALSE: Final = frozenset(("0", "false", "no"))

NAME: Final = in_path("name")
CHECKSUM: Final = in_header("X-Content-SHA256", TEXT, "the SHA-256 of the body in lower-case hex; a signature needs it")
IF_MATCH: Final = in_header("If-Match", TEXT, "only if the present file has one of these tags; it is then replaced")
IF_NONE_MATCH: Final = in_header(
    "If-None-Match", TEXT, "only if the present file has none of these tags; *: only if there is no file"
)
DATE: Final = in_header("X-Cvmfs-Date", COUNT, "seconds since the epoch, for a signature")

DONE: Final = {"revision": COUNT, "path": TEXT, "published": FLAG}
EXPIRES: Final = {"type": ["integer", "null"], "description": "seconds since the epoch"}
PUT_ANSWER: Final = {**DONE, "created": FLAG, "expires": EXPIRES, "entries": COUNT}


def in_query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    """A parameter that is in the URL's query."""
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def uploads(request: web.Request) -> UploadService:
    """The service; raises :exc:`NotEnabled`."""
    service = request.app.get(UPLOADS)
    if service is None:
        raise NotEnabled
    return service


def place(request: web.Request) -> LeasePath:
    """The request's path, the whole repository if the route has none; raises :exc:`UploadError`."""
    path, service = "", uploads(request)
    if "upload" in request.match_info:
        fqrn = service.admission.place(request.match_info["name"], "").fqrn
        return LeasePath(fqrn, service.partial(fqrn).find(request.match_info["upload"]).path)
    if "path" in request.match_info:
        # as bytes, as names need not be UTF-8
        decoded = url_path(request).decode("utf-8", "surrogateescape")
        path = decoded.split("/", 6)[6] if decoded.count("/") >= 6 else ""
    return service.admission.place(request.match_info["name"], path.removesuffix("/") if path != "/" else "")


def authorized(request: web.Request, *, change: bool) -> LeasePath:
    """The request's path, if the sender may read or change it; raises :exc:`UploadError`."""
    found = place(request)
    request[WHO] = uploads(request).admission.authorize(asked(request), found, change=change).who
    return found


def is_upload(request: web.Request) -> bool:
    """Whether the request is authorized in the way of the upload API, not in that of the gateway's admin routes."""
    return "X-Cvmfs-Date" in request.headers or request.headers.get("Authorization", "").lower().startswith("bearer ")


def asked(request: web.Request) -> Asked:
    """The parts of the request that authorize it."""
    headers = request.headers
    return Asked(
        request.method,
        request.raw_path,
        headers.get("Authorization"),
        headers.get("X-Cvmfs-Date", ""),
        checksum(request),
        request.can_read_body,
    )


def checksum(request: web.Request) -> str:
    """The SHA-256 that the body must have, ``""`` for any."""
    return request.headers.get("X-Content-SHA256", "").strip()


def condition(request: web.Request) -> Condition:
    """The condition in the request's headers; raises :exc:`InvalidRequest`."""
    return Condition(
        *(
            _tags(request, name, found)
            for name, found in (("If-Match", request.if_match), ("If-None-Match", request.if_none_match))
        )
    )


def _tags(request: web.Request, name: str, found: tuple[ETag, ...] | None) -> frozenset[str] | None:
    if found is None:
        return None
    if not found:
        raise InvalidRequest(f'{name} is neither * nor tags as in "0123abcd"')
    return frozenset(tag.value for tag in found)


async def expect(request: web.Request) -> web.StreamResponse | None:
    """Refuse a request before its body is sent, or ask for the body."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        return reply({"status": "error", "reason": "expectation failed"}, 417)
    try:
        authorized(request, change=True)
    except UploadError as error:
        response = reply(dict(error.reply()), error.http_status, dict(error.headers))
        response.force_close()  # the body that was announced does not follow
        return response
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return None


class Query:
    """The parameters of a request. Unknown ones are refused: they may be misspelt."""

    def __init__(self, request: web.Request, *known: str) -> None:
        """Raises :exc:`InvalidRequest`."""
        self._query = request.query
        for name in self._query:
            if name not in known:
                raise InvalidRequest(f"unknown parameter {name[:80]!r}; there are: {', '.join(known)}")

    def flag(self, name: str) -> bool:
        """A switch, whose value may be omitted."""
        text = self._query.get(name, "0").lower()
        if text not in _TRUE | _FALSE:
            raise InvalidRequest(f"{name} is neither true nor false")
        return text in _TRUE

    def number(self, name: str, *, least: int = 0, most: int) -> int | None:
        """A number from *least* to *most*; None: not given."""
        text = self._query.get(name)
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or len(text) > 15 or not least <= int(text) <= most:
            raise InvalidRequest(f"{name} is not a number from {least} to {most}")
        return int(text)

    def text(self, name: str, default: str = "") -> str:
        return self._query.get(name, default)

    def wait_s(self) -> float:
        return float(self.number("wait", most=MAX_WAIT_S) or 0)


def answer(done: Done, path: str, **more: Any) -> web.Response:
    """The reply for something that is published."""
    body = {"status": "ok", "revision": done.head.revision, "path": path or "/", "published": done.published, **more}
    return reply(body, 201 if done.plan.created else 200, {"ETag": f'"{done.plan.tag}"'} if done.plan.tag else None)


def put_answer(done: Done, path: str) -> web.Response:
    """The reply for something that was put; see :data:`PUT_ANSWER`."""
    plan = done.plan
    return answer(done, path, created=plan.created, expires=plan.expires, entries=plan.entries)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
