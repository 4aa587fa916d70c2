"""The outermost middleware: request ids, a limit on concurrent requests, and counters.

The id is the client's ``X-Request-Id`` if that is valid; it appears in the reply, the access log and JSON log lines.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from cvmfs_gw.api.context import SERVICE
from cvmfs_gw.api.logs import REQUEST_ID, REQUEST_ID_KEY, request_id
from cvmfs_gw.api.messages import reply
from cvmfs_gw.api.running import RUNNING

MAX_RUNNING: Final = 2048
"""The maximum number of concurrent requests; others get HTTP 503. Notification streams do not count."""

SUBSCRIBE: Final = "/notifications/subscribe"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost middleware."""
    identifier = request[REQUEST_ID_KEY] = request_id(request.headers.get("X-Request-Id"))
    token = REQUEST_ID.set(identifier)
    running, metrics = request.app[RUNNING], request.app[SERVICE].metrics
    running.count += 1
    started = time.monotonic()
    try:
        # a subscription takes no time, and deployed clients that get an answer to it never subscribe again
        if running.count > MAX_RUNNING and not request.path.endswith(SUBSCRIBE):
            response: web.StreamResponse = reply(
                {"status": "error", "reason": "too many requests at the same time"}, 503, {"Retry-After": "1"}
            )
            response.force_close()  # what is left of its body is not read
        else:
            response = await handler(request)
        response.headers["X-Request-Id"] = identifier
        metrics.add("http_requests_total", method=_method(request.method), status=str(response.status))
        metrics.observe("http_request_seconds", time.monotonic() - started, method=_method(request.method))
        return response
    finally:
        running.count -= 1
        REQUEST_ID.reset(token)


def _method(method: str) -> str:
    # a client may send any word, and each would become a time series
    return method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS") else "other"
