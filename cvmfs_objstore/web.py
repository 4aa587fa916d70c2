"""The HTTP server of a Stratum 0: ``/cvmfs/<fqrn>/...`` and ``/cvmfs/info/v1/*.json``, read-only.

::

    path                                type                        cacheable for
    .cvmfs*                             application/x-cvmfs         61 seconds; the manifest for its TTL, if shorter
    info/v1/*.json                      application/json            61 seconds
    stats/*                             application/octet-stream    61 seconds
    data/<2 hex>/<38 hex>[-algo][C..P]  application/octet-stream    3 days
    anything else                       404, JSON                   not at all

Only paths of these forms are looked up, so staged files, folders, other dot files and ``..`` are all "not found". The
age is 61 seconds as Squid does not cache for 60 or less. No reply carries ``Last-Modified`` or ``ETag``, and requests
for mutable files are never answered "not modified": old Squids get both wrong, and ``Last-Modified`` cannot tell apart
two manifests of the same second.

A missing object may be published at any moment, so a 404 says ``no-cache``: a proxy that kept it would hide the object.

Source: the Apache configuration that ``cvmfs_server mkfs`` writes.
Divergence: that one sets ``Expires`` besides ``max-age``, and leaves the caching of errors to the proxies' defaults.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Callable
from typing import BinaryIO, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from cvmfs_objstore.compression import PIECE
from cvmfs_objstore.errors import ObjectNotFound
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.storage import Storage

_log = logging.getLogger(__name__)

Repositories = Callable[[str], Storage | None]
"""Gives the storage of a repository by its name, or None. Called in a worker thread."""

MUTABLE_AGE: Final = 61
"""Seconds for which a proxy may keep a file that changes."""

OBJECT_AGE: Final = 3 * 24 * 3600
"""Seconds for which a proxy may keep an object."""

MANIFEST: Final = ".cvmfspublished"
_MANIFEST_HEAD: Final = 4096
_TTL: Final = re.compile(rb"^D([0-9]{1,9})$", re.MULTILINE)

_OBJECT: Final = re.compile(r"data/[0-9a-f]{2}/[0-9a-f]{38}(-rmd160|-shake128)?[A-Z]?")
# no longer than a name can be, or looking is an error
_ROOT_FILE: Final = re.compile(r"\.cvmfs[A-Za-z0-9_.-]{0,240}")
_STATS: Final = re.compile(r"stats/[A-Za-z0-9_][A-Za-z0-9_.-]{0,240}")
_FQRN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_INFO: Final = re.compile(r"[A-Za-z0-9_-]{1,240}\.json")

# range = "bytes=" ( first "-" [ last ] / "-" length ): one range only, as clients and proxies ask for
_RANGE: Final = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.ASCII)


class LocalRepositories:
    """The repositories below one directory, each in a folder named after it, looked up when requested."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._known: dict[str, LocalStorage] = {}

    def __call__(self, fqrn: str) -> Storage | None:
        folder = os.path.join(self.root, fqrn)
        if not os.path.isdir(folder):
            return None
        storage = self._known.get(fqrn)
        if storage is None:
            storage = self._known.setdefault(fqrn, LocalStorage(folder))
        return storage


def web_app(repositories: Repositories | str, info: str | None = None) -> web.Application:
    """An application that serves repositories and nothing else; see :func:`add_routes`."""

    @web.middleware
    async def errors_are_json(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            headers = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
            return _refusal(error.status, error.reason.lower(), headers)

    app = web.Application(middlewares=[errors_are_json])
    add_routes(app, repositories, info)
    return app


def add_routes(app: web.Application, repositories: Repositories | str, info: str | None = None) -> None:
    """Serve below ``/cvmfs/`` of *app*: *repositories* by name, or all in the folders of one directory.

    *info* is the directory of ``repositories.json`` and ``meta.json``; if *repositories* is a directory, it defaults to
    ``info/v1`` in there.
    """
    if isinstance(repositories, str):
        info = info or os.path.join(repositories, "info", "v1")
        repositories = LocalRepositories(repositories)
    server = _Server(repositories, info)
    app.router.add_get("/cvmfs/info/v1/{name}", server.info)
    app.router.add_get("/cvmfs/{fqrn}/{path:.*}", server.file)
    app.on_response_prepare.append(_without_validators)


class _Server:
    def __init__(self, repositories: Repositories, info: str | None) -> None:
        self._repositories = repositories
        self._info = info

    async def info(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if self._info is None or not _INFO.fullmatch(name):
            return _not_found()
        try:
            file = await asyncio.to_thread(_open_plain, os.path.join(self._info, name))
        except OSError:
            return _not_found()
        return await _send(request, file, _headers("application/json", MUTABLE_AGE))

    async def file(self, request: web.Request) -> web.StreamResponse:
        fqrn, path = request.match_info["fqrn"], request.match_info["path"]
        is_object = _OBJECT.fullmatch(path) is not None
        is_root_file = _ROOT_FILE.fullmatch(path) is not None
        if not _FQRN.fullmatch(fqrn) or not (is_object or is_root_file or _STATS.fullmatch(path)):
            return _not_found()
        headers = _headers(
            "application/x-cvmfs" if is_root_file else "application/octet-stream",
            OBJECT_AGE if is_object else MUTABLE_AGE,
        )
        try:
            found = await asyncio.to_thread(self._find, fqrn, path, is_object)
        except OSError as error:
            _log.error("%s: cannot read %s: %s", fqrn, path, error.strerror)
            return _refusal(503, "the storage cannot be read")
        if found is None:
            return _not_found()
        if isinstance(found, str):
            return _ObjectResponse(found, chunk_size=PIECE, headers=headers)
        if path == MANIFEST:
            headers = headers | {"Cache-Control": f"max-age={await asyncio.to_thread(_manifest_age, found)}"}
        return await _send(request, found, headers)

    def _find(self, fqrn: str, path: str, is_object: bool) -> BinaryIO | str | None:
        """The path of an object in a local directory, or else the open file."""
        storage = self._repositories(fqrn)
        if storage is None:
            return None
        try:
            if is_object and isinstance(storage, LocalStorage):
                return os.path.join(storage.root, path) if storage.exists(path) else None
            return storage.open(path)
        except ObjectNotFound:
            return None


class _ObjectResponse(web.FileResponse):
    """An object from a local directory, by sendfile(2). :func:`_without_validators` corrects its headers."""


async def _without_validators(request: web.Request, response: web.StreamResponse) -> None:
    """Remove the validators that aiohttp derives from the file system."""
    if isinstance(response, _ObjectResponse):
        response.headers.popall("Last-Modified", None)
        response.headers.popall("ETag", None)
        if response.status >= 400:
            response.headers["Cache-Control"] = "no-cache"


async def _send(request: web.Request, file: BinaryIO, headers: dict[str, str]) -> web.StreamResponse:
    """Send an open file, or the one requested range of it, and close it."""
    with file:
        wanted = _RANGE.fullmatch(request.headers.get("Range", ""))
        # No reply has a validator, so the condition of an If-Range never holds.
        if "If-Range" in request.headers:
            wanted = None
        with_body = request.method == "GET"
        size, start, end, piece = await asyncio.to_thread(_first_piece, file, wanted, with_body)
        if wanted is not None:
            if start >= end:
                return _refusal(416, "range not satisfiable", {"Content-Range": f"bytes */{size}"})
            headers = headers | {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
        status = 200 if wanted is None else 206
        left = end - start
        if with_body and len(piece) == left:
            # Headers and body in one write: the safest form for the tools' HTTP client.
            return web.Response(status=status, body=piece, headers=headers)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = left
        await response.prepare(request)
        while with_body and left:
            if not piece:
                raise ConnectionError("the file ended early")
            await response.write(piece)
            left -= len(piece)
            piece = await asyncio.to_thread(file.read, min(left, PIECE))
        await response.write_eof()
        return response


def _first_piece(file: BinaryIO, wanted: re.Match[str] | None, with_body: bool) -> tuple[int, int, int, bytes]:
    """The file's size, the bounds of the wanted range, and its first piece."""
    size = file.seek(0, os.SEEK_END)
    start, end = (0, size) if wanted is None else _bounds(wanted, size)
    piece = b""
    if with_body and start < end:
        file.seek(start)
        piece = file.read(min(end - start, PIECE))
    return size, start, end, piece


def _bounds(wanted: re.Match[str], size: int) -> tuple[int, int]:
    """Start and end (exclusive) of a range; it is empty if it cannot be satisfied."""
    first, last, tail = wanted.groups()
    if tail is not None:
        return max(size - int(tail), 0), size
    start = int(first)
    end = min(int(last) + 1, size) if last else size
    return start, end


def _manifest_age(file: BinaryIO) -> int:
    """For how many seconds the manifest in *file* may be cached. Leaves the file at its start.

    Never longer than the interval at which clients are told to poll. A client that is notified fetches the manifest
    through its proxies; if one of them still has the old copy, the notification was useless.
    """
    ttl = _TTL.search(file.read(_MANIFEST_HEAD))
    file.seek(0)
    return min(MUTABLE_AGE, int(ttl[1])) if ttl is not None else MUTABLE_AGE


def _headers(kind: str, age: int) -> dict[str, str]:
    return {"Content-Type": kind, "Cache-Control": f"max-age={age}", "Accept-Ranges": "bytes"}


def _refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> web.Response:
    body = json.dumps({"status": "error", "reason": reason}).encode()
    return web.Response(
        status=status,
        body=body,
        headers={"Content-Type": "application/json", "Cache-Control": "no-cache"} | (headers or {}),
    )


def _not_found() -> web.Response:
    return _refusal(404, "not found")


def _open_plain(path: str) -> BinaryIO:
    return open(path, "rb")
