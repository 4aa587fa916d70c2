"""The REST API as an aiohttp application.

Whatever happens, the reply is a small JSON object with ``status`` and ``reason``, also for routes that do not exist:
publishers crash on anything else. ``Expect: 100-continue`` is answered by aiohttp before a route runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from cvmfs_gw.api import gc, leases, payloads, repos, root
from cvmfs_gw.api.context import SERVICE
from cvmfs_gw.api.logs import AccessLogger, mask_url
from cvmfs_gw.api.messages import reply
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.gateway.errors import GatewayError, describe
from cvmfs_gw.gateway.protocol import API_ROOT, MAX_JSON_BODY
from cvmfs_gw.gateway.service import GatewayService

log = logging.getLogger(__name__)

READ_BUFFER = 1 << 20
"""How much of a payload is read ahead of the threads that store it, in bytes for each connection."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(service: GatewayService) -> web.Application:
    """The application. It does not own *service*: whoever made it starts and closes it."""
    app = web.Application(middlewares=[errors], client_max_size=MAX_JSON_BODY)
    app[SERVICE] = service
    for module in (root, repos, leases, payloads, gc):
        app.add_routes(module.routes(API_ROOT))
    return app


def make_runner(app: web.Application) -> web.AppRunner:
    """What serves *app*, with the settings that payloads and publishers need; signals are the caller's.

    Request bodies are taken as they come: a ``Content-Encoding`` is not undone.
    """
    return web.AppRunner(
        app,
        access_log_class=AccessLogger,
        access_log=log,
        read_bufsize=READ_BUFFER,
        auto_decompress=False,
        handler_cancellation=False,
        keepalive_timeout=75.0,
    )


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a route raises into JSON."""
    try:
        return await handler(request)
    except (GatewayError, EngineError) as error:
        status, body = describe(error)
        log.info("%s %s: %s", request.method, mask_url(request.raw_path), body.get("reason") or body["status"])
        return reply(dict(body), status)
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
