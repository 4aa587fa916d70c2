"""``GET /repos/<name>/growth``: entries and bytes of the tagged revisions, for the chart on the status page."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from aiohttp import web

from cvmfs_gw.api.context import service
from cvmfs_gw.api.describe import COUNT, TEXT, Paths, in_path, operation, struct
from cvmfs_gw.api.messages import reply


async def growth(request: web.Request) -> web.Response:
    points = await service(request).care.growth(request.match_info["name"])
    return reply({"status": "ok", "data": [asdict(point) for point in points]}, headers={"Cache-Control": "no-cache"})


_POINT: Final = struct(
    {
        "tag": TEXT,
        "revision": COUNT,
        "moment": {**COUNT, "description": "seconds since the epoch"},
        "entries": COUNT,
        "size": {**COUNT, "description": "bytes of files"},
        "catalogs": COUNT,
    }
)
PATHS: Final[Paths] = {
    "/repos/{name}/growth": {
        "get": operation(
            "The growth of the repository over its tags",
            in_path("name"),
            answer={"data": {"type": "array", "items": _POINT}},
        )
    }
}


def routes(root: str) -> list[web.RouteDef]:
    return [web.get(f"{root}/repos/{{name}}/growth", growth)]
