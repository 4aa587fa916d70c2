from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from cvmfs_gw.api.app import make_app, make_runner
from cvmfs_gw.engine.commit import Engine
from cvmfs_gw.gateway.committer import Committed
from cvmfs_gw.gateway.config import Config
from cvmfs_gw.gateway.heads import Head
from cvmfs_gw.gateway.protocol import API_ROOT
from cvmfs_gw.gateway.service import GatewayService
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.stratum0.clock import SteadyClock
from cvmfs_gw.stratum0.service import UploadService
from tests.engine.repositories import new_repository
from tests.stratum0.support import FakeTime, Server, write_settings

Start = Callable[..., Awaitable[Server]]


@pytest.fixture
async def start(tmp_path: Path, keys: str) -> AsyncIterator[Start]:
    """Starts servers, one after the other, on the same repository; *upkeep*: they do by themselves what is due."""
    repository = new_repository(str(tmp_path), keys, garbage_collection=True, auto_tag=False)
    paths = SystemPaths(str(tmp_path))
    write_settings(paths)
    running: list[AsyncExitStack] = []

    async def start(*, upkeep: bool = False, time: FakeTime | None = None) -> Server:
        time = time or FakeTime()
        for former in running:
            await former.aclose()
        running.clear()
        stack = AsyncExitStack()
        running.append(stack)
        config = Config.load(paths, {"fsync": False})
        engine = Engine(paths, {}, durable=False)

        def head(fqrn: str) -> Head:
            found = engine.repository(fqrn).head()
            return Head(found.revision, found.root_hash, found.published)

        (tmp_path / "var/lib/cvmfs-gateway").mkdir(parents=True, exist_ok=True)
        gateway = GatewayService.open(
            config, paths, engine=engine, stores=lambda fqrn: engine.repository(fqrn).objects, head=head
        )
        clock = SteadyClock(str(tmp_path / "clock.json"), wall=time.wall, running=time.running, boot="a boot")
        uploads = UploadService(gateway, engine, paths.upload_config, clock)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        stack.push_async_callback(gateway.close)
        stack.push_async_callback(uploads.close)
        runner = make_runner(make_app(gateway, uploads=uploads))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        await gateway.start()
        await uploads.start(upkeep=upkeep)
        host, port = runner.addresses[0][:2]
        url = f"http://{host}:{port}{API_ROOT}"
        server = Server(url, paths, repository, engine, gateway, uploads, time, session)

        async def told(committed: Committed) -> None:
            server.announced.append(committed.outcome.final_revision)

        gateway.commits.on_committed.append(told)
        return server

    yield start
    for stack in running:
        await stack.aclose()


@pytest.fixture
async def server(start: Start) -> Server:
    return await start()
