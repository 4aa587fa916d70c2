"""``GET /metrics`` for Prometheus, ``GET /healthz`` and ``GET /readyz`` for liveness and readiness probes."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Final

from aiohttp import web

from cvmfs_gw.api.context import service
from cvmfs_gw.api.describe import Paths
from cvmfs_gw.api.messages import reply
from cvmfs_gw.api.running import RUNNING
from cvmfs_gw.api.uploads import UPLOADS
from cvmfs_gw.gateway.metrics import Sample, render
from cvmfs_gw.gateway.service import GatewayService
from cvmfs_gw.gateway.survey import survey
from cvmfs_gw.stratum0.service import UploadService

SUBSCRIBERS: Final = web.AppKey("subscribers", object)
"""Set to a callable that tells how many streams are open."""
READY_S: Final = 5.0
"""How long the lease database may take to answer before the gateway counts as not ready, in seconds."""

_STARTED: Final = time.time()


def subscribers(app: web.Application) -> int:
    count = app.get(SUBSCRIBERS)
    return int(count()) if callable(count) else 0


async def metrics(request: web.Request) -> web.Response:
    samples = service(request).metrics.samples()
    samples += await gauges(service(request))
    if (uploads := request.app.get(UPLOADS)) is not None:
        samples += upload_gauges(uploads, time.time())
    samples.append(Sample("http_requests_running", request.app[RUNNING].count))
    samples.append(Sample("subscribers", subscribers(request.app)))
    samples.append(Sample("resident_memory_bytes", _resident()))
    samples.append(Sample("start_timestamp_seconds", round(_STARTED, 3)))
    return web.Response(text=render(samples), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def gauges(gateway: GatewayService) -> list[Sample]:
    """The gauges."""
    views = gateway.lease_views()
    committing = sum(view.committing for view in views)
    samples = [
        Sample("leases", len(views) - committing, (("state", "open"),)),
        Sample("leases", committing, (("state", "committing"),)),
        Sample("lease_waiters", len(gateway.leases.waiting)),
        Sample("payloads_running", gateway.payloads.running),
        Sample("commits_running", gateway.commits.running),
    ]
    for state in await survey(gateway.repositories):
        labels = (("repository", state.fqrn),)
        samples.append(Sample("repository_enabled", state.enabled, labels))
        if state.head is not None:
            samples.append(Sample("repository_revision", state.head.revision, labels))
            samples.append(Sample("repository_published_timestamp_seconds", state.head.published_s, labels))
        if state.size_bytes:
            samples.append(Sample("store_free_bytes", state.free_bytes, labels))
            samples.append(Sample("store_size_bytes", state.size_bytes, labels))
    return samples


def upload_gauges(uploads: UploadService, now: float) -> list[Sample]:
    """The gauges of the upload API; *now* is in seconds since the epoch."""
    samples = [
        Sample("uploads_running", uploads.running),
        Sample("uploads_waiting", uploads.waiting),
        Sample("clock_step_seconds", round(uploads.clock.step, 1)),
    ]
    for fqrn, whitelist in sorted(uploads.upkeep.whitelists.items()):
        samples.append(Sample("whitelist_valid_seconds", int(whitelist.expires - now), (("repository", fqrn),)))
    return samples


async def healthz(request: web.Request) -> web.Response:
    """Liveness: a reply shows that the event loop is running."""
    return reply({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Readiness: leases can be granted, as the lease database can be written. Broken repositories are ignored."""
    try:
        async with asyncio.timeout(READY_S):
            await service(request).probe()
    except Exception as error:
        return reply({"status": "error", "reason": f"lease database: {type(error).__name__}"}, 503)
    return reply({"status": "ok"})


PATHS: Final[Paths] = {}
"""None of them is below the API's root."""


def routes(root: str) -> list[web.RouteDef]:
    return [web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)]


def _resident() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        return 0
