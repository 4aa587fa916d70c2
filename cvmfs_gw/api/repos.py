"""``/repos``: which repositories there are, who may change them, and whether leases are granted."""

from __future__ import annotations

import base64

from aiohttp import web

from cvmfs_gw.api.context import authorization, json_body, service, url_path
from cvmfs_gw.api.messages import EnableRequest, decode, reply
from cvmfs_gw.gateway.service import RepositoryView


async def list_repositories(request: web.Request) -> web.Response:
    repositories = service(request).repositories()
    return reply({"status": "ok", "data": {name: _shown(view) for name, view in repositories.items()}})


async def get_repository(request: web.Request) -> web.Response:
    view = service(request).repository(request.match_info["name"])
    return reply({"status": "ok", "data": _shown(view)})


async def enable_repository(request: web.Request) -> web.Response:
    body = await json_body(request)
    service(request).access.authorize_admin(authorization(request), body)
    wanted = decode(body, EnableRequest)
    await service(request).enable(request.match_info["name"], wanted.enable, wait=wanted.wait)
    return reply({"status": "ok"})


async def get_keys(request: web.Request) -> web.Response:
    service(request).access.authorize(authorization(request), url_path(request))
    public, certificate = await service(request).public_keys(request.match_info["name"])
    data = {"pub": base64.b64encode(public).decode(), "crt": base64.b64encode(certificate).decode()}
    return reply({"status": "ok", "data": data})


def routes(root: str) -> list[web.RouteDef]:
    return [
        web.get(f"{root}/repos", list_repositories),
        web.get(f"{root}/repos/{{name}}", get_repository),
        web.post(f"{root}/repos/{{name}}", enable_repository),
        web.get(f"{root}/repos/{{name}}/keys", get_keys),
    ]


def _shown(view: RepositoryView) -> dict[str, object]:
    return {"keys": view.keys, "enabled": view.enabled}
