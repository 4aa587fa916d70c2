"""``/leases``: grant, show, renew, cancel, and commit."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from cvmfs_gw.api.context import authorization, json_body, service, token, url_path
from cvmfs_gw.api.describe import COUNT, TEXT, Paths, in_header, in_path, json_request, operation, struct, table
from cvmfs_gw.api.messages import CommitRequest, NewLeaseRequest, RenewRequest, decode, number, reply
from cvmfs_gw.gateway.errors import InvalidBody, InvalidLease, MissingPath
from cvmfs_gw.gateway.gotime import format_time
from cvmfs_gw.gateway.leases import Lease, LeaseView
from cvmfs_gw.gateway.waiting import MAX_WAIT_S

_MAX_REVISION: Final = 2**31 - 1
"""The ``revision`` of a lease reply is a 32-bit number; a larger one is left out."""


async def list_leases(request: web.Request) -> web.Response:
    now, views = service(request).now_ms(), service(request).lease_views()
    return reply({"status": "ok", "data": {str(view.lease.path): describe_lease(view, now) for view in views}})


async def get_lease(request: web.Request) -> web.Response:
    # Source: no status in this one reply, and HTTP 500 for a token that is unknown.
    try:
        lease = service(request).leases.get(token(request))
    except InvalidLease as error:
        return reply(dict(error.reply()), status=500)
    return reply({"data": _shown(lease)})


async def new_lease(request: web.Request) -> web.Response:
    body = await json_body(request)
    key = service(request).access.authorize(authorization(request), body)
    wanted = decode(body, NewLeaseRequest)
    granted = await service(request).leases.acquire(
        wanted.path,
        key,
        protocol=number(wanted.api_version, "api_version"),
        hostname=wanted.hostname or _peer(request),
        request=wanted.request,
        wait_s=_wait_s(request, wanted),
        gone=lambda: request.transport is None or request.transport.is_closing(),
    )
    answer: dict[str, Any] = {
        "status": "ok",
        "session_token": granted.token,
        "max_api_version": granted.protocol,
    }
    if granted.head is not None and granted.head.revision <= _MAX_REVISION:
        answer["revision"] = granted.head.revision
        answer["root_hash"] = granted.head.root_hash.bare
    return reply(answer)


async def commit_lease(request: web.Request) -> web.Response:
    body = await json_body(request)
    key = service(request).access.authorize(authorization(request), token(request).encode())
    wanted = decode(body, CommitRequest).body()
    outcome = await service(request).commits.commit(token(request), wanted, key)
    answer: dict[str, Any] = {"status": "ok", "final_revision": outcome.final_revision}
    if outcome.tag_name:
        answer["tag_name"] = outcome.tag_name
    if outcome.missing_objects:
        answer["missing_objects"] = outcome.missing_objects
    return reply(answer)


async def renew_lease(request: web.Request) -> web.Response:
    body = await json_body(request)
    key = service(request).access.authorize(authorization(request), token(request).encode())
    wanted = decode(body, RenewRequest) if body.strip() else RenewRequest()
    if wanted.expires_in_sec is not None and wanted.expires_in_sec <= 0:
        raise InvalidBody("expires_in_sec is not positive")
    lease = await service(request).leases.renew(token(request), key, lifetime_s=wanted.expires_in_sec)
    return reply({"status": "ok", "data": {"expires": format_time(lease.expires_ms)}})


async def cancel_lease(request: web.Request) -> web.Response:
    key = service(request).access.authorize(authorization(request), token(request).encode())
    await service(request).leases.cancel(token(request), key)
    return reply({"status": "ok"})


async def cancel_by_path(request: web.Request) -> web.Response:
    signed = url_path(request)
    service(request).access.authorize_admin(authorization(request), signed)
    path = signed.decode("utf-8", "surrogateescape").partition("/leases-by-path/")[2]
    if not path:
        raise MissingPath
    await service(request).leases.cancel_by_path(path)
    return reply({"status": "ok"})


_TOKEN: Final = in_path("token")
_LEASE: Final = struct(
    {
        "key_id": TEXT,
        "path": TEXT,
        "expires": {"type": "string", "description": "as in 2026-11-20 08:41:48.712 +0000 UTC"},
        "hostname": TEXT,
        "age": {**COUNT, "description": "seconds"},
        "expires_in": {**COUNT, "description": "seconds"},
        "state": {"enum": ["open", "committing"]},
        "uploading": {**COUNT, "description": "object packs that are coming in"},
        "objects": COUNT,
        "bytes": COUNT,
    },
    ["key_id", "path", "expires"],
)
_REQUEST: Final = {
    "path": {"type": "string", "description": "<repository>/ or <repository>/a/b"},
    "api_version": {"type": ["string", "integer"]},
    "hostname": TEXT,
    "request": {"type": "string", "description": "a name that is never used twice: asked again, it is granted again"},
    "wait": {"type": ["string", "integer"], "description": f"seconds to wait for the path, {MAX_WAIT_S:.0f} at most"},
}
_COMMIT: Final = {
    "old_root_hash": TEXT,
    "new_root_hash": TEXT,
    "tag_name": TEXT,
    "tag_description": TEXT,
    "tag_channel": {"type": "integer"},
    "auto_tag_threshold": {"type": "integer", "description": "seconds since the epoch; automatic tags before it go"},
    "delete_tags": {"type": "string", "description": "names with spaces between them"},
}

PATHS: Final[Paths] = {
    "/leases": {
        "get": operation("All leases", answer={"data": table(_LEASE)}),
        "post": operation(
            "Take a lease",
            in_header("Lease-Wait", COUNT, "the same as wait"),
            body=json_request(_REQUEST, ["path", "api_version"]),
            answer={
                "session_token": TEXT,
                "max_api_version": {"type": "integer"},
                "revision": COUNT,
                "root_hash": TEXT,
                "time_remaining": TEXT,
            },
            signed="body",
        ),
    },
    "/leases/{token}": {
        "get": operation(
            "One lease", _TOKEN, answer={"data": _LEASE}, bare=True, errors={"500": "the token is unknown"}
        ),
        "post": operation(
            "Commit",
            _TOKEN,
            body=json_request(_COMMIT, ["old_root_hash", "new_root_hash"]),
            answer={"final_revision": COUNT, "tag_name": TEXT, "missing_objects": COUNT},
            signed="token",
        ),
        "patch": operation("Renew a lease", _TOKEN, answer={"data": struct({"expires": TEXT})}, signed="token"),
        "delete": operation("Cancel a lease", _TOKEN, signed="token"),
    },
    "/leases-by-path/{path}": {
        "delete": operation(
            "Cancel the leases at and below a path",
            in_path("path"),
            signed="path",
            admin=True,
        )
    },
}


def routes(root: str) -> list[web.RouteDef]:
    return [
        web.get(f"{root}/leases", list_leases),
        web.post(f"{root}/leases", new_lease),
        web.get(f"{root}/leases/{{token}}", get_lease),
        web.post(f"{root}/leases/{{token}}", commit_lease),
        web.patch(f"{root}/leases/{{token}}", renew_lease),
        web.delete(f"{root}/leases/{{token}}", cancel_lease),
        web.delete(f"{root}/leases-by-path/{{path:(?s:.*)}}", cancel_by_path),
    ]


def _shown(lease: Lease) -> dict[str, str]:
    """A lease without its token. Source: empty fields are left out."""
    shown = {"key_id": lease.key_id, "path": str(lease.path), "expires": format_time(lease.expires_ms)}
    if lease.hostname:
        shown["hostname"] = lease.hostname
    return shown


def describe_lease(view: LeaseView, now: int) -> dict[str, str | int]:
    """The same with what helps people to decide whom to ask: ages in seconds, sizes in bytes."""
    lease = view.lease
    shown: dict[str, str | int] = {**_shown(lease)}
    if lease.granted_ms:  # not known of a lease that another program has granted
        shown["age"] = max(now - lease.granted_ms, 0) // 1000
    shown["expires_in"] = max(lease.expires_ms - now, 0) // 1000
    shown["state"] = "committing" if view.committing else "open"
    shown["uploading"] = view.running
    shown["objects"] = view.uploads.objects_added + view.uploads.objects_duplicated
    shown["bytes"] = view.uploads.bytes_added
    return shown


def _wait_s(request: web.Request, wanted: NewLeaseRequest) -> float:
    seconds = number(request.headers.get("Lease-Wait") or wanted.wait or 0, "wait")
    if seconds < 0:
        raise InvalidBody("wait is negative")
    return float(seconds)


def _peer(request: web.Request) -> str:
    """The publisher's address, for those that do not say their name."""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    if not isinstance(peer, tuple) or len(peer) < 2:
        return request.remote or ""
    return f"[{peer[0]}]:{peer[1]}" if ":" in str(peer[0]) else f"{peer[0]}:{peer[1]}"
