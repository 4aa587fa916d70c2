"""``/repos/<name>/files/<path>``: uploading, reading and removing files, and setting their time to live.

::

    PUT, POST   the body becomes the file             ?overwrite ?ttl_s=N ?mode=0644 ?wait=N
                or is unpacked into the directory     ?unpack=tar|oci ?platform ?tag ?overwrite ?ttl_s=N ?wait=N
    GET, HEAD   the file, or one range of it
    PATCH       {"ttl_s": N} or null for the default  ?recursive ?wait=N
    DELETE      remove it                             ?recursive ?wait=N

A reply to PUT, PATCH and DELETE has the revision with the change, which is published by then. ``If-Match`` and
``If-None-Match`` are evaluated at the commit; the tag of a file is the ``ETag`` of GET, HEAD and PUT. PUT with
``Upload-Complete: ?0`` begins an upload in several requests: see :mod:`cvmfs_gw.api.partial`.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
from aiohttp import web

from cvmfs_gw.api import partial
from cvmfs_gw.api.bodies import Body
from cvmfs_gw.api.context import json_body
from cvmfs_gw.api.describe import COUNT, FLAG, TEXT, Paths, in_header, in_path, json_request, operation
from cvmfs_gw.api.messages import decode
from cvmfs_gw.api.uploads import (
    CHECKSUM,
    DATE,
    DONE,
    EXPIRES,
    IF_MATCH,
    IF_NONE_MATCH,
    MAX_DRAIN,
    MAX_WAIT_S,
    NAME,
    PUT_ANSWER,
    WHO,
    Query,
    answer,
    authorized,
    checksum,
    condition,
    expect,
    in_query,
    put_answer,
    uploads,
)
from cvmfs_gw.gateway.protocol import MAX_DRAIN_UNSIGNED
from cvmfs_gw.stratum0.conditions import Condition
from cvmfs_gw.stratum0.content import Archive, Unpack, Upload
from cvmfs_gw.stratum0.errors import InvalidRequest, RangeNotSatisfiable
from cvmfs_gw.stratum0.intake import check_digest
from cvmfs_gw.stratum0.reading import File
from cvmfs_gw.stratum0.settings import MAX_TTL_S
from cvmfs_objstore.errors import ObjectStoreError

_RANGE: Final = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.ASCII)
_MODE: Final = re.compile(r"0?[0-7]{3}", re.ASCII)


class ExpiryRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``PATCH``. ``ttl_s`` 0: no expiry, if that is allowed; null: the default."""

    ttl_s: int | None


async def put(request: web.Request) -> web.Response:
    body, vouched = Body(request), False
    try:
        place = authorized(request, change=True)
        vouched = True
        query = Query(request, "overwrite", "ttl_s", "mode", "wait", "unpack", "platform", "tag")
        if request.content_type.startswith("multipart/"):
            raise InvalidRequest("the body is a form; send the file itself, as curl -T FILE does")
        wanted = Upload(
            overwrite=query.flag("overwrite"),
            ttl_s=query.number("ttl_s", most=MAX_TTL_S),
            mode=_mode(query.text("mode", "0644")),
            unpack=_unpack(query),
            condition=condition(request),
            checksum=checksum(request),
            length=request.content_length,
            wait_s=query.wait_s(),
            who=request[WHO],
        )
        if not partial.is_complete(request):
            return await partial.begin(request, place, wanted, body)
        done = await uploads(request).put(place, body.chunks(), wanted)
    except Exception:
        # whoever is still sending would not see the reply
        await (body.drain(MAX_DRAIN_UNSIGNED) if vouched else body.drain_unsigned(MAX_DRAIN))
        raise
    return put_answer(done, place.path)


async def get(request: web.Request) -> web.StreamResponse:
    place = authorized(request, change=False)
    Query(request)
    service = uploads(request)
    file = await service.open(place)
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "Cache-Control": "no-cache"}
    headers |= {"X-Cvmfs-Revision": str(file.revision), "ETag": f'"{file.tag}"'}
    if file.expires is not None:
        headers["X-Cvmfs-Expires"] = str(file.expires)
    asked = condition(request)
    Condition(match=asked.match).check(file.tag)
    if not Condition(none_match=asked.none_match).holds(file.tag):
        return web.Response(status=304, headers=headers)
    start, end, status = 0, file.size, 200
    wanted = _RANGE.fullmatch(request.headers.get("Range", ""))
    if wanted is not None and request.headers.get("If-Range", headers["ETag"]) == headers["ETag"]:
        start, end = _bounds(wanted, file)
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
        status = 206
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = end - start
    await response.prepare(request)
    if request.method != "HEAD" and start < end:
        pieces = file.read(start, end)
        try:
            while piece := await service.next_piece(pieces):
                await response.write(piece)
        except ObjectStoreError as error:
            # cut off: what was sent must not be taken for the whole file
            raise ConnectionResetError(str(error)) from error
    await response.write_eof()
    return response


async def patch(request: web.Request) -> web.Response:
    place = authorized(request, change=True)
    query = Query(request, "recursive", "wait")
    data = await json_body(request)
    check_digest(data, checksum(request))
    wanted = decode(data, ExpiryRequest)
    if wanted.ttl_s is not None and not 0 <= wanted.ttl_s <= MAX_TTL_S:
        raise InvalidRequest(f"ttl_s is not from 0 to {MAX_TTL_S}")
    recursive, wait_s = query.flag("recursive"), query.wait_s()
    done = await uploads(request).set_expiry(place, wanted.ttl_s, recursive=recursive, wait_s=wait_s)
    return answer(done, place.path, expires=done.plan.expires, entries=done.plan.entries)


async def delete(request: web.Request) -> web.Response:
    place = authorized(request, change=True)
    query = Query(request, "recursive", "wait")
    done = await uploads(request).delete(
        place, recursive=query.flag("recursive"), condition=condition(request), wait_s=query.wait_s()
    )
    return answer(done, place.path)


_PATH: Final = in_path("path")
_WAIT: Final = in_query(
    "wait", {**COUNT, "maximum": MAX_WAIT_S}, "seconds to wait for a path that a publisher has leased"
)
_RECURSIVE: Final = in_query("recursive", FLAG, "include the content of a directory")
_FILE: Final = {"required": True, "content": {"application/octet-stream": {"schema": {"format": "binary"}}}}
_PUT: Final = operation(
    "Put a file",
    NAME,
    _PATH,
    in_query("overwrite", FLAG, "replace an existing file with other content"),
    in_query("ttl_s", {**COUNT, "maximum": MAX_TTL_S}, "time to live in seconds; 0: unlimited"),
    in_query("unpack", {"enum": [*Archive]}, "unpack the archive into the directory"),
    in_query("platform", TEXT, "which image of a multi-platform one, as in linux/amd64"),
    in_query("tag", TEXT, "which of several images, as in name:tag"),
    in_query("mode", TEXT, "permissions, as in 0755"),
    _WAIT,
    IF_MATCH,
    IF_NONE_MATCH,
    CHECKSUM,
    DATE,
    partial.COMPLETE,
    body=_FILE,
    answer=PUT_ANSWER,
    signed="request",
)

PATHS: Final[Paths] = {
    "/repos/{name}/files/{path}": {
        "put": _PUT,
        "post": _PUT,
        "get": operation(
            "Read a file", NAME, _PATH, in_header("Range", TEXT), IF_MATCH, IF_NONE_MATCH, DATE, signed="request"
        ),
        "patch": operation(
            "Restart or change the time to live",
            NAME,
            _PATH,
            _RECURSIVE,
            _WAIT,
            CHECKSUM,
            DATE,
            body=json_request({"ttl_s": {"type": ["integer", "null"], "maximum": MAX_TTL_S}}, ["ttl_s"]),
            answer={**DONE, "expires": EXPIRES, "entries": COUNT},
            signed="request",
        ),
        "delete": operation("Remove", NAME, _PATH, _RECURSIVE, _WAIT, IF_MATCH, DATE, answer=DONE, signed="request"),
    }
}


def routes(root: str) -> list[web.RouteDef]:
    path = f"{root}/repos/{{name}}/files/{{path:(?s:.*)}}"
    return [
        web.put(path, put, expect_handler=expect),
        web.post(path, put, expect_handler=expect),
        web.get(path, get),
        web.patch(path, patch),
        web.delete(path, delete),
    ]


def _unpack(query: Query) -> Unpack | None:
    text, platform, tag = query.text("unpack"), query.text("platform"), query.text("tag")
    if text != Archive.OCI and (platform or tag):
        raise InvalidRequest("only an image, so unpack=oci, has a platform or a tag")
    try:
        return Unpack(Archive(text), platform or None, tag or None) if text else None
    except ValueError:
        raise InvalidRequest(f"unpack: there are {' and '.join(Archive)}") from None


def _mode(text: str) -> int:
    if not _MODE.fullmatch(text):
        raise InvalidRequest("mode is not three octal digits, as in 0755")
    return int(text, 8)


def _bounds(wanted: re.Match[str], file: File) -> tuple[int, int]:
    """Start and end (exclusive) of a range; raises :exc:`RangeNotSatisfiable`."""
    first, last, tail = wanted.groups()
    if tail is not None:
        start, end = max(file.size - int(tail), 0), file.size
    else:
        start, end = int(first), min(int(last) + 1, file.size) if last else file.size
    if start >= end:
        raise RangeNotSatisfiable(file.size)
    return start, end
