"""``/objects``: which objects need not be sent, as the repository already has them."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from cvmfs_gw.api.context import authorization, json_body, service, token
from cvmfs_gw.api.describe import COUNT, TEXT, Paths, in_path, json_request, operation, table
from cvmfs_gw.api.messages import ObjectsRequest, decode, reply
from cvmfs_gw.gateway.protocol import MAX_ASKED


async def missing(request: web.Request) -> web.Response:
    """``POST /objects/<token>``: which of the objects in the body are missing."""
    body = await json_body(request)
    key = service(request).access.authorize(authorization(request), body)
    wanted = decode(body, ObjectsRequest).named()
    found = await service(request).payloads.missing(token(request), key, wanted)
    return reply({"status": "ok", "missing": [str(name) for name in found]})


_OBJECTS: Final = {**table(COUNT), "maxProperties": MAX_ASKED, "description": "stored sizes in bytes by name"}

PATHS: Final[Paths] = {
    "/objects/{token}": {
        "post": operation(
            "Ask which objects are missing in a lease's repository; the others are kept for the commit",
            in_path("token"),
            body=json_request({"objects": _OBJECTS}, ["objects"]),
            answer={"missing": {"type": "array", "items": TEXT}},
            signed="body",
        )
    }
}


def routes(root: str) -> list[web.RouteDef]:
    return [web.post(f"{root}/objects/{{token}}", missing)]
