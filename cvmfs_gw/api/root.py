"""``GET`` of the API's root: a greeting."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from cvmfs_gw.api.describe import TEXT, Paths, operation
from cvmfs_gw.api.messages import reply


async def welcome(request: web.Request) -> web.Response:
    return reply({"welcome": "This is a gateway for publishing to CernVM-FS repositories."})


PATHS: Final[Paths] = {"/": {"get": operation("A greeting", answer={"welcome": TEXT}, bare=True)}}


def routes(root: str) -> list[web.RouteDef]:
    return [web.get(root, welcome), web.get(f"{root}/", welcome)]
