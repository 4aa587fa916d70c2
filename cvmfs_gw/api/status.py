"""``GET /``: the status page; ``GET /api/v1/status``: the same information as JSON.

The page is a single file without external resources, and fetches the JSON every few seconds. Neither shows tokens.
"""

from __future__ import annotations

import time
from collections import deque
from importlib import resources
from typing import Any, Final

from aiohttp import web

from cvmfs_gw.api.context import SERVICE, service
from cvmfs_gw.api.describe import Paths, operation
from cvmfs_gw.api.leases import describe_lease
from cvmfs_gw.api.messages import reply
from cvmfs_gw.api.metrics import subscribers
from cvmfs_gw.gateway.service import GatewayService
from cvmfs_gw.gateway.survey import RepositoryState, survey
from cvmfs_gw.version import version

WINDOW_S: Final = 10.0
"""The period over which throughput is averaged, in seconds."""

_PAGE: Final = resources.files("cvmfs_gw.api").joinpath("status.html")
_POLICY: Final = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"
_STARTED: Final = time.time()


class Throughput:
    """Bytes per second, from successive values of a counter."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def look(self, now: float, total: int) -> float:
        """*now* in seconds of any clock; returns the average over about :data:`WINDOW_S`."""
        self._seen.append((now, total))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW_S:
            self._seen.popleft()
        before, known = self._seen[0]
        return (total - known) / (now - before) if now > before else 0.0


THROUGHPUT: web.AppKey[Throughput] = web.AppKey("throughput", Throughput)


async def page(request: web.Request) -> web.Response:
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    return web.Response(text=_PAGE.read_text(encoding="utf-8"), content_type="text/html", headers=headers)


async def status(request: web.Request) -> web.Response:
    gateway = service(request)
    now = gateway.now_ms()
    return reply(
        {
            "status": "ok",
            "version": version(),
            "uptime": int(time.time() - _STARTED),
            "repositories": [_repository(state, now) for state in await survey(gateway.repositories)],
            "leases": [describe_lease(view, now) for view in gateway.lease_views()],
            "waiting": len(gateway.leases.waiting),
            "commits": _commits(gateway, now),
            "commits_running": gateway.commits.running,
            "payloads_running": gateway.payloads.running,
            "subscribers": subscribers(request.app),
            "received": gateway.payloads.received_bytes(),
            "bytes_per_second": int(request.app[THROUGHPUT].look(time.monotonic(), gateway.payloads.received_bytes())),
        }
    )


PATHS: Final[Paths] = {"/status": {"get": operation("The present state of the gateway")}}


def routes(root: str) -> list[web.RouteDef]:
    return [web.get("/", page), web.get(f"{root}/status", status)]


def install(app: web.Application) -> None:
    """The state of the routes."""
    assert SERVICE in app
    app[THROUGHPUT] = Throughput()


def _repository(state: RepositoryState, now: int) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": state.fqrn, "enabled": state.enabled}
    if state.head is not None:
        shown["revision"] = state.head.revision
        shown["root_hash"] = state.head.root_hash.bare
        shown["age"] = max(now // 1000 - state.head.published_s, 0)
    if state.size_bytes:
        shown["free"] = state.free_bytes
    return shown


def _commits(gateway: GatewayService, now: int) -> list[dict[str, Any]]:
    """The latest first."""
    return [
        {
            "repository": commit.fqrn,
            "path": commit.path or "/",
            "revision": commit.revision,
            "tag": commit.tag,
            "age": max(now - commit.at_ms, 0) // 1000,
        }
        for commit in reversed(gateway.commits.recent)
    ]
