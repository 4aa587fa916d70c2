"""``/repos/<name>/expiry``, ``/whitelist``, ``/announcement``: what a repository needs from time to time, done now.

They concern the repository as a whole, and so does the grant that they take.
"""

from __future__ import annotations

import time
from typing import Final

from aiohttp import web

from cvmfs_gw.api.describe import COUNT, FLAG, Paths, operation
from cvmfs_gw.api.messages import reply
from cvmfs_gw.api.uploads import DATE, NAME, Query, authorized, uploads
from cvmfs_gw.stratum0.whitelist import WhitelistState


async def expire(request: web.Request) -> web.Response:
    place = authorized(request, change=True)
    Query(request)
    removed = await uploads(request).expire(place.fqrn)
    head = await uploads(request).head(place.fqrn)
    return reply({"status": "ok", "revision": head.revision, "removed": removed})


async def get_whitelist(request: web.Request) -> web.Response:
    place = authorized(request, change=False)
    return reply(_shown(await uploads(request).whitelist(place.fqrn)))


async def renew_whitelist(request: web.Request) -> web.Response:
    place = authorized(request, change=True)
    return reply(_shown(await uploads(request).renew_whitelist(place.fqrn)))


async def announce(request: web.Request) -> web.Response:
    place = authorized(request, change=True)
    head = await uploads(request).head(place.fqrn)
    uploads(request).notify(place.fqrn, head)
    return reply({"status": "ok", "revision": head.revision})


_WHITELIST: Final = {
    "expires": {**COUNT, "description": "seconds since the epoch"},
    "valid_s": COUNT,
    "can_sign": {**FLAG, "description": "whether the master key is here"},
}

PATHS: Final[Paths] = {
    "/repos/{name}/expiry": {
        "post": operation(
            "Remove what has lived its time", NAME, DATE, answer={"revision": COUNT, "removed": COUNT}, signed="request"
        )
    },
    "/repos/{name}/whitelist": {
        "get": operation("How long the whitelist is good", NAME, DATE, answer=_WHITELIST, signed="request"),
        "post": operation("Sign the whitelist again", NAME, DATE, answer=_WHITELIST, signed="request"),
    },
    "/repos/{name}/announcement": {
        "post": operation(
            "Tell subscribers of the present revision", NAME, DATE, answer={"revision": COUNT}, signed="request"
        )
    },
}


def routes(root: str) -> list[web.RouteDef]:
    return [
        web.post(f"{root}/repos/{{name}}/expiry", expire),
        web.get(f"{root}/repos/{{name}}/whitelist", get_whitelist),
        web.post(f"{root}/repos/{{name}}/whitelist", renew_whitelist),
        web.post(f"{root}/repos/{{name}}/announcement", announce),
    ]


def _shown(state: WhitelistState) -> dict[str, object]:
    valid = max(int(state.expires - time.time()), 0)
    return {"status": "ok", "expires": int(state.expires), "valid_s": valid, "can_sign": state.can_sign}
