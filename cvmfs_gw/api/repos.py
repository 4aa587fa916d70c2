"""``/repos``: the repositories, their keys, and whether leases are granted."""

from __future__ import annotations

import base64
from typing import Final

from aiohttp import web

from cvmfs_gw.api.context import authorization, json_body, service, url_path
from cvmfs_gw.api.describe import FLAG, TEXT, Paths, in_path, json_request, operation, struct, table
from cvmfs_gw.api.messages import EnableRequest, decode, reply
from cvmfs_gw.gateway.repositories import RepositoryView


async def list_repositories(request: web.Request) -> web.Response:
    repositories = service(request).repositories.all()
    return reply({"status": "ok", "data": {name: _shown(view) for name, view in repositories.items()}})


async def get_repository(request: web.Request) -> web.Response:
    view = service(request).repositories.get(request.match_info["name"])
    return reply({"status": "ok", "data": _shown(view)})


async def enable_repository(request: web.Request) -> web.Response:
    body = await json_body(request)
    service(request).access.authorize_admin(authorization(request), body)
    wanted = decode(body, EnableRequest)
    await service(request).repositories.enable(request.match_info["name"], wanted.enable, wait=wanted.wait)
    return reply({"status": "ok"})


async def get_keys(request: web.Request) -> web.Response:
    service(request).access.authorize(authorization(request), url_path(request))
    public, certificate = await service(request).repositories.public_keys(request.match_info["name"])
    data = {"pub": base64.b64encode(public).decode(), "crt": base64.b64encode(certificate).decode()}
    return reply({"status": "ok", "data": data})


_NAME: Final = in_path("name")
_REPOSITORY: Final = struct({"keys": table(TEXT), "enabled": FLAG}, ["keys", "enabled"])

PATHS: Final[Paths] = {
    "/repos": {"get": operation("All repositories", answer={"data": table(_REPOSITORY)})},
    "/repos/{name}": {
        "get": operation("One repository", _NAME, answer={"data": _REPOSITORY}),
        "post": operation(
            "Enable or disable a repository",
            _NAME,
            body=json_request({"enable": FLAG, "wait": FLAG}, ["enable"]),
            signed="body",
            admin=True,
        ),
    },
    "/repos/{name}/keys": {
        "get": operation(
            "Public key and certificate",
            _NAME,
            answer={"data": struct({"pub": TEXT, "crt": TEXT})},
            signed="path",
        )
    },
}


def routes(root: str) -> list[web.RouteDef]:
    return [
        web.get(f"{root}/repos", list_repositories),
        web.get(f"{root}/repos/{{name}}", get_repository),
        web.post(f"{root}/repos/{{name}}", enable_repository),
        web.get(f"{root}/repos/{{name}}/keys", get_keys),
    ]


def _shown(view: RepositoryView) -> dict[str, object]:
    return {"keys": view.keys, "enabled": view.enabled}
