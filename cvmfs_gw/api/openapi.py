"""``GET /api/v1/openapi.json``: the OpenAPI 3.1 description, assembled from the ``PATHS`` of all resources."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from cvmfs_gw.api.describe import SCHEMAS, SECURITY, Paths
from cvmfs_gw.api.messages import reply
from cvmfs_gw.gateway.protocol import API_ROOT
from cvmfs_gw.version import version

DESCRIPTION: web.AppKey[dict[str, Any]] = web.AppKey("description", dict)


def description(resources: Iterable[Paths]) -> dict[str, Any]:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "CernVM-FS repository gateway", "version": version()},
        "servers": [{"url": API_ROOT}],
        "paths": {path: dict(item) for paths in resources for path, item in paths.items()},
        "components": {"schemas": SCHEMAS, "securitySchemes": SECURITY},
    }


async def openapi(request: web.Request) -> web.Response:
    return reply(request.app[DESCRIPTION])


def install(app: web.Application, root: str, resources: Iterable[Paths]) -> None:
    """Add the route below *root*."""
    app[DESCRIPTION] = description(resources)
    app.add_routes([web.get(f"{root}/openapi.json", openapi)])
