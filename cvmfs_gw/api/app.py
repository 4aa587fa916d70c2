"""The REST API as an aiohttp application.

Every reply is a small JSON object with ``status``, and ``reason`` for errors, also for routes that do not exist:
publishers crash on anything else. ``Expect: 100-continue`` is answered by aiohttp before a route runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from aiohttp import web

from cvmfs_gw.api import (
    checks,
    entries,
    files,
    gc,
    growth,
    leases,
    metrics,
    notifications,
    objects,
    openapi,
    partial,
    payloads,
    repos,
    root,
    signatures,
    status,
    tags,
    upkeep,
)
from cvmfs_gw.api.bodies import CLOSE
from cvmfs_gw.api.context import SERVICE
from cvmfs_gw.api.describe import Paths
from cvmfs_gw.api.logs import mask_url
from cvmfs_gw.api.messages import reply
from cvmfs_gw.api.observe import observe
from cvmfs_gw.api.runner import Runner
from cvmfs_gw.api.running import RUNNING, Running
from cvmfs_gw.api.uploads import UPLOADS
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.gateway.errors import GatewayError, describe
from cvmfs_gw.gateway.protocol import API_ROOT, MAX_JSON_BODY
from cvmfs_gw.gateway.service import GatewayService
from cvmfs_gw.stratum0.service import UploadService
from cvmfs_notify.hub import NotificationHub

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Resource(Protocol):
    """A module of routes."""

    PATHS: Paths
    """Their part of the OpenAPI description."""

    def routes(self, root: str) -> list[web.RouteDef]:
        """The routes below *root*."""


RESOURCES: Final[tuple[Resource, ...]] = (
    root,
    repos,
    leases,
    objects,
    payloads,
    gc,
    tags,
    checks,
    signatures,
    growth,
    files,
    partial,
    entries,
    upkeep,
    metrics,
    status,
)


def make_app(
    service: GatewayService,
    hub: NotificationHub | None = None,
    publish_keys: Mapping[str, bytes] | None = None,
    uploads: UploadService | None = None,
) -> web.Application:
    """The application. It does not own the services and *hub*: the caller starts and closes them."""
    app = web.Application(middlewares=[observe, errors], client_max_size=MAX_JSON_BODY)
    app[SERVICE] = service
    app[RUNNING] = Running()
    if uploads is not None:
        app[UPLOADS] = uploads
    status.install(app)
    for resource in RESOURCES:
        app.add_routes(resource.routes(API_ROOT))
    openapi.install(app, API_ROOT, [resource.PATHS for resource in RESOURCES])
    if hub is not None:
        app[metrics.SUBSCRIBERS] = lambda: hub.subscribers
        notifications.install(app, hub, API_ROOT, publish_keys)
    return app


def make_runner(app: web.Application, shutdown_timeout: float = 60.0) -> web.AppRunner:
    """What serves *app*; *shutdown_timeout* is how long requests in flight may take at the end, in seconds."""
    return Runner(app, shutdown_timeout, log)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn all exceptions of routes into JSON replies."""
    response = await _answer(request, handler)
    if request.get(CLOSE):
        response.force_close()
    return response


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (GatewayError, EngineError) as error:
        status, body = describe(error)
        log.info("%s %s: %s", request.method, mask_url(request.raw_path), body.get("reason") or body["status"])
        return reply(dict(body), status, dict(error.headers) if isinstance(error, GatewayError) else None)
    except web.HTTPException as error:
        headers = {name: error.headers[name] for name in ("Allow", "Location") if name in error.headers}
        return reply({"status": "error", "reason": error.reason.lower()}, error.status, headers)
    except asyncio.CancelledError:
        raise
    except ConnectionError:
        raise  # nobody is there to read a reply
    except Exception:
        log.exception("%s %s failed", request.method, mask_url(request.raw_path))
        return reply({"status": "error", "reason": "internal error"}, 500)
