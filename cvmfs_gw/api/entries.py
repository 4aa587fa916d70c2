"""``/repos/<name>/entries/<path>``: listing a repository, with sizes, ages and expiry."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from cvmfs_gw.api.describe import COUNT, FLAG, TEXT, Paths, in_path, operation, struct
from cvmfs_gw.api.messages import reply
from cvmfs_gw.api.uploads import DATE, NAME, Query, authorized, in_query, uploads
from cvmfs_gw.stratum0.expiry import expires
from cvmfs_gw.stratum0.reading import MAX_LISTED
from cvmfs_objstore.formats.entry import Entry, Kind


async def look(request: web.Request) -> web.Response:
    place = authorized(request, change=False)
    query = Query(request, "recursive", "after", "limit")
    service = uploads(request)
    found = await service.look(
        place,
        recursive=query.flag("recursive"),
        after=query.text("after"),
        limit=query.number("limit", least=1, most=MAX_LISTED) or MAX_LISTED,
    )
    now = service.clock()
    body: dict[str, Any] = {"status": "ok", "revision": found.revision, "entry": shown(place.path, found.entry, now)}
    if found.entry.is_directory:
        body["entries"] = [shown(path, entry, now) for path, entry in found.children]
        body["more"] = found.more
    return reply(body)


def shown(path: str, entry: Entry, now: float) -> dict[str, Any]:
    """An entry in the form of the reply. *now* is in seconds since the epoch."""
    end = expires(entry)
    result: dict[str, Any] = {
        "path": path or "/",
        "type": entry.kind.value,
        "size": 0 if entry.is_directory else entry.size,
        "mode": f"{entry.mode & 0o7777:04o}",
        "mtime": entry.mtime,
        "age_s": max(int(now) - entry.mtime, 0),
        "expires": end,
        "expires_in_s": None if end is None else max(end - int(now), 0),
    }
    if entry.kind is Kind.SYMLINK:
        result["target"] = entry.symlink
    return result


_ENTRY: Final = struct(
    {
        "path": TEXT,
        "type": {"enum": [kind.value for kind in Kind]},
        "size": {**COUNT, "description": "bytes"},
        "mode": TEXT,
        "mtime": {"type": "integer", "description": "seconds since the epoch"},
        "age_s": COUNT,
        "expires": {"type": ["integer", "null"], "description": "seconds since the epoch"},
        "expires_in_s": {"type": ["integer", "null"]},
        "target": TEXT,
    }
)

_PARAMETERS: Final = (
    in_query("recursive", FLAG, "also the content of sub-directories"),
    in_query("limit", {**COUNT, "minimum": 1, "maximum": MAX_LISTED}, "the maximum number of entries"),
    in_query("after", TEXT, "only entries after this path: the last one of the previous reply"),
    DATE,
)
_ANSWER: Final = {
    "revision": COUNT,
    "entry": _ENTRY,
    "entries": {"type": "array", "items": _ENTRY},
    "more": {**FLAG, "description": "whether there are more entries"},
}
PATHS: Final[Paths] = {
    "/repos/{name}/entries": {
        "get": operation("List the root directory", NAME, *_PARAMETERS, answer=_ANSWER, signed="request")
    },
    "/repos/{name}/entries/{path}": {
        "get": operation(
            "Show an entry, and list its content", NAME, in_path("path"), *_PARAMETERS, answer=_ANSWER, signed="request"
        )
    },
}


def routes(root: str) -> list[web.RouteDef]:
    top = f"{root}/repos/{{name}}/entries"
    return [web.get(top, look), web.get(f"{top}/{{path:(?s:.*)}}", look)]
