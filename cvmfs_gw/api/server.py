"""The server process: the gateway and, optionally, the web server of the repositories, in one event loop.

Start: read the configuration, clean up after an earlier process, open the lease database, listen. Stop (SIGTERM,
SIGINT): stop listening, cut the event streams, finish requests in flight and commits, close the databases. Inherited
sockets stay open in the parent, see :mod:`cvmfs_gw.api.supervisor`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aiohttp import web

from cvmfs_gw.api import meta
from cvmfs_gw.api.app import make_app, make_runner
from cvmfs_gw.api.meta import Meta
from cvmfs_gw.api.notifications import Announcer, RepositoryAnchors
from cvmfs_gw.api.reload import Reloader
from cvmfs_gw.api.runner import Runner
from cvmfs_gw.api.tls import TlsFiles
from cvmfs_gw.engine.commit import Engine
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.gateway.config import Config
from cvmfs_gw.gateway.errors import ConfigError
from cvmfs_gw.gateway.heads import Head
from cvmfs_gw.gateway.service import GatewayService
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.stratum0.clock import SteadyClock
from cvmfs_gw.stratum0.service import UploadService
from cvmfs_notify.config import NotifyConfig
from cvmfs_notify.errors import NotifyConfigError
from cvmfs_notify.hub import NotificationHub
from cvmfs_notify.sockets import BACKLOG, Sockets, raise_file_limit
from cvmfs_notify.store import EventStore
from cvmfs_notify.supervisor import Parent
from cvmfs_notify.webhook import run_all
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.web import web_app

log = logging.getLogger(__name__)

SHUTDOWN_S = 60.0
"""How long requests in flight may take after the process was asked to stop, in seconds."""
SWITCH_S = 0.0002
"""For how long a thread that commits or stores may keep the interpreter from the event loop, in seconds."""
LOOKERS = 32
"""Threads that read heads and the like: enough that some may wait for a slow disk while others work."""
GATEWAY = "gateway"
WEB = "web"
"""The names of inherited sockets; also in ``FileDescriptorName=`` of a systemd socket unit."""
NOTIFICATIONS = "notifications.db"
"""The file of the newest notification of each repository, beside the lease database."""
CLOCK = "clock.json"
"""The state of the clock of times to live, beside the lease database."""
RESERVED_FILES = 512
"""The number of file descriptors reserved from subscribers."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen. *host* None: every interface; port None: no such server, 0: any free port."""

    host: str | None
    port: int
    web_port: int | None = None


@dataclass(frozen=True, slots=True)
class Worker:
    """What the process has inherited: listening sockets, and the connection to its supervisor, if it has one."""

    sockets: Sockets
    parent: Parent | None = None


async def serve(
    config: Config,
    paths: SystemPaths,
    environment: Mapping[str, str],
    listen: Listen,
    ready: Callable[[], None] = lambda: None,
    *,
    durable: bool = True,
    worker: Worker | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. *ready* is called when both servers listen.

    A *worker* accepts from its inherited sockets instead of those of *listen*, and also ends when its parent does.

    Raises :exc:`~cvmfs_gw.gateway.errors.ConfigError` and ``OSError``.
    """
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(LOOKERS, "gw-look"))
    notify_config = _notify_config(paths)
    tls = TlsFiles(config.tls_certificate, config.tls_key) if config.tls_certificate else None
    engine = Engine(paths, environment, durable=durable and config.fsync, strict_objects=config.strict_objects)
    os.makedirs(config.work_dir, exist_ok=True)
    service = GatewayService.open(
        config,
        paths,
        engine=engine,
        stores=lambda fqrn: engine.repository(fqrn).objects,
        head=lambda fqrn: head_of(engine, fqrn),
    )
    uploads = UploadService(service, engine, paths.upload_config, SteadyClock(os.path.join(config.work_dir, CLOCK)))
    await asyncio.to_thread(_recover, engine, list(service.access.config.repositories))
    # for so long a thread that computes lets others wait, each time that they need the interpreter
    sys.setswitchinterval(SWITCH_S)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    parts = {"keys and repositories": service.reload, "settings of uploads": uploads.reload}
    if tls is not None:
        parts["TLS certificate"] = lambda: asyncio.to_thread(tls.reload)
    loop.add_signal_handler(signal.SIGHUP, Reloader(parts).begin)
    parent = worker.parent if worker is not None else None
    if parent is not None:
        loop.add_reader(parent.socket, stop.set)
    hub = NotificationHub(
        EventStore(os.path.join(config.work_dir, NOTIFICATIONS)),
        RepositoryAnchors(engine, paths),
        max_subscribers=max(raise_file_limit() - RESERVED_FILES, RESERVED_FILES),
    )
    announcer = Announcer(hub, engine)
    service.commits.on_committed.append(announcer.committed)
    apps = {GATEWAY: make_app(service, hub, notify_config.keys, uploads)}
    ports = {GATEWAY: listen.port}
    runners = [make_runner(apps[GATEWAY], SHUTDOWN_S)]
    if listen.web_port is not None:
        apps[WEB], ports[WEB] = web_app(paths.storage), listen.web_port
        runners.append(Runner(apps[WEB], SHUTDOWN_S, access_log=None))
    for name, app in apps.items():
        meta.install(
            app,
            Meta(paths, lambda: service.access.config.repositories, lambda: uploads.admission.settings, name, ports),
        )
    await service.start()
    await uploads.start()
    webhooks = loop.create_task(run_all(hub, notify_config.webhooks))
    watch = loop.create_task(tls.watch()) if tls is not None else None
    try:
        for runner, (name, port) in zip(runners, ports.items(), strict=True):
            await runner.setup()
            sockets = (worker.sockets if worker is not None else {}).get(name)
            context = tls.context if tls is not None and name == GATEWAY else None
            for site in _sites(runner, listen.host, port, sockets, context):
                await site.start()
        log.info("gateway listens on port %d", listen.port)
        ready()
        if parent is not None:
            parent.ready()
        await announcer.catch_up(service.access.config.repositories)
        await stop.wait()
        log.info("stopping")
    finally:
        if parent is not None:
            loop.remove_reader(parent.socket)
        for runner in runners:
            await runner.cleanup()
        await uploads.close()
        await service.close()
        await hub.close()
        webhooks.cancel()
        if watch is not None:
            watch.cancel()
        await asyncio.gather(webhooks, *([watch] if watch is not None else []), return_exceptions=True)


def _notify_config(paths: SystemPaths) -> NotifyConfig:
    try:
        return NotifyConfig.load(paths.notify_config)
    except NotifyConfigError as error:
        raise ConfigError(str(error)) from error


def _sites(
    runner: web.AppRunner,
    host: str | None,
    port: int,
    sockets: list[socket.socket] | None,
    tls: ssl.SSLContext | None,
) -> list[web.BaseSite]:
    if sockets:
        return [web.SockSite(runner, s, ssl_context=tls, backlog=BACKLOG) for s in sockets]
    return [web.TCPSite(runner, host, port, ssl_context=tls, reuse_address=True, backlog=BACKLOG)]


def head_of(engine: Engine, fqrn: str) -> Head | None:
    """The repository's present head, None if it cannot be read."""
    try:
        head = engine.repository(fqrn).head()
    except (EngineError, ObjectStoreError, OSError):
        return None  # the lease is granted all the same: a commit will say what is wrong
    return Head(head.revision, head.root_hash, head.published)


def _recover(engine: Engine, fqrns: list[str]) -> None:
    """Clean up after an earlier process. A broken repository does not affect the others."""
    for fqrn in fqrns:
        try:
            engine.recover(fqrn)
        except (EngineError, OSError) as error:
            log.warning("%s: %s", fqrn, error)
