from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from cvmfs_gw.api.app import make_app, make_runner
from cvmfs_gw.gateway.config import Config
from cvmfs_gw.gateway.protocol import API_ROOT
from cvmfs_gw.gateway.service import GatewayService
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.memory import MemoryStorage
from cvmfs_objstore.objects import ObjectStore
from tests.gateway.support import FQRN, OTHER, Api, Clock, FakeEngine, write_access


@pytest.fixture
def paths(tmp_path: Path) -> SystemPaths:
    paths = SystemPaths(str(tmp_path))
    write_access(paths)
    return paths


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def stores() -> dict[str, ObjectStore]:
    return {FQRN: ObjectStore(MemoryStorage()), OTHER: ObjectStore(MemoryStorage())}


@pytest.fixture
def config(paths: SystemPaths) -> Config:
    return Config.load(paths)


@pytest.fixture
async def service(
    paths: SystemPaths, config: Config, clock: Clock, engine: FakeEngine, stores: dict[str, ObjectStore]
) -> AsyncIterator[GatewayService]:
    service = GatewayService.open(config, paths, engine=engine, stores=stores.__getitem__, clock=clock)
    await service.start()
    yield service
    if engine.gate is not None:
        engine.gate.set()
    await service.close()


@pytest.fixture
async def api(service: GatewayService) -> AsyncIterator[Api]:
    runner = make_runner(make_app(service))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession() as session:
        yield Api(session, f"http://{host}:{port}{API_ROOT}")
    await runner.cleanup()
