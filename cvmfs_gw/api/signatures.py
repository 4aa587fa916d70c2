"""``/repos/<name>/whitelist`` and ``/manifest``: the validity of signatures, and signing again.

Allowed for administrators, and for whoever may upload to the whole repository, as it changes neither the trusted
certificates nor the content.
"""

from __future__ import annotations

import time
from typing import Final

from aiohttp import web

from cvmfs_gw.api.context import authorization, service, url_path
from cvmfs_gw.api.describe import COUNT, FLAG, Paths, in_path, operation
from cvmfs_gw.api.messages import reply
from cvmfs_gw.api.uploads import DATE, Query, authorized, is_upload
from cvmfs_gw.care.resign import WhitelistState
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.stratum0.errors import NotCommitted


async def look(request: web.Request) -> web.Response:
    """Not protected, as the whitelist itself is public."""
    Query(request)
    return reply(_shown(await service(request).care.whitelist(request.match_info["name"])))


async def sign_whitelist(request: web.Request) -> web.Response:
    fqrn = _authorized(request)
    try:
        return reply(_shown(await service(request).care.resign_whitelist(fqrn)))
    except EngineError as error:
        raise NotCommitted(error) from error


async def sign_manifest(request: web.Request) -> web.Response:
    fqrn = _authorized(request)
    try:
        head = await service(request).care.resign_manifest(fqrn)
    except EngineError as error:
        raise NotCommitted(error) from error
    return reply({"status": "ok", "revision": head.revision})


def _authorized(request: web.Request) -> str:
    """The repository's name, if the sender may sign; raises :exc:`GatewayError`."""
    Query(request)
    if is_upload(request):
        return authorized(request, change=True).fqrn
    service(request).access.authorize_admin(authorization(request), url_path(request))
    return request.match_info["name"]


def _shown(state: WhitelistState) -> dict[str, object]:
    valid = max(int(state.expires - time.time()), 0)
    return {"status": "ok", "expires": int(state.expires), "valid_s": valid, "can_sign": state.can_sign}


_NAME: Final = in_path("name")
_WHITELIST: Final = {
    "expires": {**COUNT, "description": "seconds since the epoch"},
    "valid_s": COUNT,
    "can_sign": {**FLAG, "description": "whether the server has the master key"},
}
PATHS: Final[Paths] = {
    "/repos/{name}/whitelist": {
        "get": operation("The validity of the whitelist", _NAME, answer=_WHITELIST),
        "post": operation("Sign the whitelist again", _NAME, DATE, answer=_WHITELIST, signed="path", admin=True),
    },
    "/repos/{name}/manifest": {
        "post": operation(
            "Sign the manifest again, with the key as it is now",
            _NAME,
            DATE,
            answer={"revision": COUNT},
            signed="path",
            admin=True,
        )
    },
}


def routes(root: str) -> list[web.RouteDef]:
    return [
        web.get(f"{root}/repos/{{name}}/whitelist", look),
        web.post(f"{root}/repos/{{name}}/whitelist", sign_whitelist),
        web.post(f"{root}/repos/{{name}}/manifest", sign_manifest),
    ]
