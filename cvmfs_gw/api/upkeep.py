"""``/repos/<name>/expiry`` and ``/announcement``: periodic maintenance of a repository, on request.

As they concern the whole repository, they need a permission for all of it.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from cvmfs_gw.api.describe import COUNT, Paths, operation
from cvmfs_gw.api.messages import reply
from cvmfs_gw.api.uploads import DATE, NAME, Query, authorized, uploads


async def expire(request: web.Request) -> web.Response:
    place = authorized(request, change=True)
    Query(request)
    removed = await uploads(request).expire(place.fqrn)
    head = await uploads(request).head(place.fqrn)
    return reply({"status": "ok", "revision": head.revision, "removed": removed})


async def announce(request: web.Request) -> web.Response:
    place = authorized(request, change=True)
    head = await uploads(request).head(place.fqrn)
    uploads(request).notify(place.fqrn, head)
    return reply({"status": "ok", "revision": head.revision})


PATHS: Final[Paths] = {
    "/repos/{name}/expiry": {
        "post": operation(
            "Remove expired entries", NAME, DATE, answer={"revision": COUNT, "removed": COUNT}, signed="request"
        )
    },
    "/repos/{name}/announcement": {
        "post": operation(
            "Notify subscribers of the present revision", NAME, DATE, answer={"revision": COUNT}, signed="request"
        )
    },
}


def routes(root: str) -> list[web.RouteDef]:
    return [
        web.post(f"{root}/repos/{{name}}/expiry", expire),
        web.post(f"{root}/repos/{{name}}/announcement", announce),
    ]
