"""The running process: gateway and, where asked for, the web server of the repositories, in one event loop.

Start: read the configuration, remove what an earlier process left half written, open the lease database, listen. Stop
(SIGTERM, SIGINT): listen no longer, let requests in flight and commits come to their end, close the database.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from cvmfs_gw.api.app import make_app, make_runner
from cvmfs_gw.engine.commit import Engine
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.gateway.config import Config
from cvmfs_gw.gateway.errors import ConfigError
from cvmfs_gw.gateway.service import GatewayService, Head
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.web import web_app

log = logging.getLogger(__name__)

SHUTDOWN_S = 60.0
"""How long requests in flight may take when the process is asked to stop, in seconds."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen. *host* None is every interface; a port None is no such server, 0 any free port."""

    host: str | None
    port: int
    web_port: int | None = None


async def serve(
    config: Config,
    paths: SystemPaths,
    environment: Mapping[str, str],
    listen: Listen,
    ready: Callable[[], None] = lambda: None,
    *,
    durable: bool = True,
) -> None:
    """Serve until SIGTERM or SIGINT. *ready* is called when both servers listen.

    Raises :exc:`~cvmfs_gw.gateway.errors.ConfigError` and ``OSError``.
    """
    engine = Engine(paths, environment, durable=durable)
    os.makedirs(config.work_dir, exist_ok=True)
    service = GatewayService.open(
        config,
        paths,
        engine=engine,
        stores=lambda fqrn: engine.repository(fqrn).objects,
        head=lambda fqrn: _head(engine, fqrn),
    )
    await asyncio.to_thread(_clean, engine, list(service.access.config.repositories))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(_reload(service)))
    runners = [make_runner(make_app(service))]
    ports = [listen.port]
    if listen.web_port is not None:
        runners.append(web.AppRunner(web_app(paths.storage), access_log=None))
        ports.append(listen.web_port)
    await service.start()
    try:
        for runner, port in zip(runners, ports, strict=True):
            await runner.setup()
            await web.TCPSite(runner, listen.host, port, shutdown_timeout=SHUTDOWN_S, reuse_address=True).start()
        log.info("gateway listens on port %d", listen.port)
        ready()
        await stop.wait()
        log.info("stopping")
    finally:
        for runner in runners:
            await runner.cleanup()
        await service.close()


async def _reload(service: GatewayService) -> None:
    try:
        await service.reload()
        log.info("keys and repositories read again")
    except ConfigError as error:
        log.error("keys and repositories stay as they were: %s", error)


def _head(engine: Engine, fqrn: str) -> Head | None:
    try:
        head = engine.repository(fqrn).head()
    except (EngineError, ObjectStoreError, OSError):
        return None  # the lease is granted all the same: a commit will say what is wrong
    return Head(head.revision, head.root_hash)


def _clean(engine: Engine, fqrns: list[str]) -> None:
    """Remove staged files of an earlier process."""
    for fqrn in fqrns:
        try:
            removed = engine.repository(fqrn).storage.clean()
        except (EngineError, OSError) as error:
            log.warning("%s: %s", fqrn, error)
            continue
        if removed:
            log.info("%s: removed %d files that were left half written", fqrn, removed)
