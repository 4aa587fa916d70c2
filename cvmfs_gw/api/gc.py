"""``POST /gc``: garbage collection."""

from __future__ import annotations

from aiohttp import web

from cvmfs_gw.api.context import authorization, json_body, service
from cvmfs_gw.api.messages import GcRequest, decode
from cvmfs_gw.gateway.errors import NotAvailable


async def collect(request: web.Request) -> web.Response:
    body = await json_body(request)
    service(request).access.authorize_admin(authorization(request), body)
    wanted = decode(body, GcRequest)
    service(request).repository(wanted.repo)
    raise NotAvailable("garbage collection is not available")


def routes(root: str) -> list[web.RouteDef]:
    return [web.post(f"{root}/gc", collect)]
