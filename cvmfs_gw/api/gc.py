"""``POST /gc``: garbage collection, while commits and uploads go on.

Source: ``num_revisions`` 0 and Go's zero time mean "not given"; by default, the revisions of the last three days are
kept. ``verbose`` lists what was removed. Divergence: the reference runs ``cvmfs_server gc``, which fails while leases
are open.
"""

from __future__ import annotations

import time
from collections import deque
from datetime import datetime
from typing import Final

from aiohttp import web

from cvmfs_gw.api.context import authorization, json_body, service
from cvmfs_gw.api.describe import FLAG, TEXT, Paths, json_request, operation
from cvmfs_gw.api.messages import GcRequest, decode, reply
from cvmfs_gw.care.gc import Policy
from cvmfs_gw.gateway.errors import InvalidBody
from cvmfs_objstore.hashes import ContentHash

MAX_LISTED: Final = 10_000
"""The maximum number of removed objects listed in a reply: the last ones."""


async def collect(request: web.Request) -> web.Response:
    body = await json_body(request)
    gateway = service(request)
    gateway.access.authorize_admin(authorization(request), body)
    wanted = decode(body, GcRequest)
    gateway.repositories.get(wanted.repo)
    listed: deque[str] = deque(maxlen=MAX_LISTED if wanted.verbose else 0)

    def on_delete(name: ContentHash) -> None:
        listed.append(f"{name}\n")

    report = await gateway.garbage.collect(
        wanted.repo, policy_of(wanted, time.time()), dry_run=wanted.dry_run, on_delete=on_delete
    )
    return reply({"status": "ok", "output": "".join(listed) + report.describe()})


def policy_of(wanted: GcRequest, now: float) -> Policy:
    """The requested policy; *now* is in seconds since the epoch. Raises :exc:`InvalidBody`."""
    if wanted.num_revisions < 0:
        raise InvalidBody("num_revisions is negative")
    since: float | None = None
    if wanted.timestamp:
        try:
            moment = datetime.fromisoformat(wanted.timestamp)
        except ValueError:
            raise InvalidBody("timestamp is not a time as in RFC 3339") from None
        if moment.tzinfo is None:
            raise InvalidBody("timestamp has no time zone")
        since = moment.timestamp() if moment.year > 1 else None
    if wanted.num_revisions and since is not None:
        raise InvalidBody("num_revisions and timestamp exclude each other")
    if wanted.num_revisions:
        return Policy(revisions=wanted.num_revisions)
    return Policy(since=since) if since is not None else Policy.default(now)


_REQUEST: Final = {
    "repo": TEXT,
    "num_revisions": {"type": "integer"},
    "timestamp": TEXT,
    "dry_run": FLAG,
    "verbose": FLAG,
}

PATHS: Final[Paths] = {
    "/gc": {
        "post": operation(
            "Collect garbage",
            body=json_request(_REQUEST, ["repo"]),
            answer={"output": TEXT},
            signed="body",
            admin=True,
        )
    }
}


def routes(root: str) -> list[web.RouteDef]:
    return [web.post(f"{root}/gc", collect)]
