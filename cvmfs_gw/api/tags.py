"""``/repos/<name>/tags`` and ``/rollback``. Changes need an administrator's key.

A revision is given as a tag, as ``@NUMBER`` of a tagged one, or as the hash of its root catalog; by default the head.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from aiohttp import web

from cvmfs_gw.api.context import authorization, json_body, service, url_path
from cvmfs_gw.api.describe import COUNT, FLAG, TEXT, Paths, in_path, json_request, operation, struct
from cvmfs_gw.api.messages import decode, reply
from cvmfs_objstore.formats.history import Tag


class TagRequest(msgspec.Struct, frozen=True):
    """``POST /repos/<name>/tags``. With ``move``, the tag must exist; without, it must not."""

    name: str
    revision: str = ""
    description: str = ""
    move: bool = False


class RollbackRequest(msgspec.Struct, frozen=True):
    """``POST /repos/<name>/rollback``. Without a tag, the last publish is undone."""

    tag: str = ""


async def list_tags(request: web.Request) -> web.Response:
    tags = await service(request).care.tags(request.match_info["name"])
    return reply({"status": "ok", "data": [_shown(tag) for tag in tags]})


async def put_tag(request: web.Request) -> web.Response:
    body = await json_body(request)
    service(request).access.authorize_admin(authorization(request), body)
    wanted = decode(body, TagRequest)
    tag = await service(request).care.put_tag(
        request.match_info["name"], wanted.name, wanted.revision, wanted.description, move=wanted.move
    )
    return reply({"status": "ok", "data": _shown(tag)})


async def remove_tag(request: web.Request) -> web.Response:
    service(request).access.authorize_admin(authorization(request), url_path(request))
    tag = await service(request).care.remove_tag(request.match_info["name"], request.match_info["tag"])
    return reply({"status": "ok", "data": _shown(tag)})


async def roll_back(request: web.Request) -> web.Response:
    body = await json_body(request)
    service(request).access.authorize_admin(authorization(request), body)
    wanted = decode(body, RollbackRequest)
    done = await service(request).care.rollback(request.match_info["name"], wanted.tag)
    return reply(
        {
            "status": "ok",
            "revision": done.head.revision,
            "target": _shown(done.target),
            "removed": [_shown(tag) for tag in done.removed],
        }
    )


def _shown(tag: Tag) -> dict[str, Any]:
    return {
        "name": tag.name,
        "revision": tag.revision,
        "root_hash": tag.root_hash.bare,
        "timestamp": tag.timestamp,
        "description": tag.description,
        "branch": tag.branch,
    }


_NAME: Final = in_path("name")
_TAG: Final = struct(
    {
        "name": TEXT,
        "revision": COUNT,
        "root_hash": TEXT,
        "timestamp": {"type": "integer", "description": "seconds since the epoch"},
        "description": TEXT,
        "branch": TEXT,
    }
)
_REQUEST: Final = {"name": TEXT, "revision": TEXT, "description": TEXT, "move": FLAG}
PATHS: Final[Paths] = {
    "/repos/{name}/tags": {
        "get": operation("All tags", _NAME, answer={"data": {"type": "array", "items": _TAG}}),
        "post": operation(
            "Tag a revision, or move a tag",
            _NAME,
            body=json_request(_REQUEST, ["name"]),
            answer={"data": _TAG},
            signed="body",
            admin=True,
        ),
    },
    "/repos/{name}/tags/{tag}": {
        "delete": operation("Remove a tag", _NAME, in_path("tag"), answer={"data": _TAG}, signed="path", admin=True)
    },
    "/repos/{name}/rollback": {
        "post": operation(
            "Roll back to a tag, or undo the last publish",
            _NAME,
            body=json_request({"tag": TEXT}, []),
            answer={"revision": COUNT, "target": _TAG, "removed": {"type": "array", "items": _TAG}},
            signed="body",
            admin=True,
        )
    },
}


def routes(root: str) -> list[web.RouteDef]:
    return [
        web.get(f"{root}/repos/{{name}}/tags", list_tags),
        web.post(f"{root}/repos/{{name}}/tags", put_tag),
        web.delete(f"{root}/repos/{{name}}/tags/{{tag}}", remove_tag),
        web.post(f"{root}/repos/{{name}}/rollback", roll_back),
    ]
