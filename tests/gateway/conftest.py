from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from cvmfs_gw.api.app import make_app, make_runner
from cvmfs_gw.gateway.config import Config
from cvmfs_gw.gateway.protocol import API_ROOT
from cvmfs_gw.gateway.service import GatewayService
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.memory import MemoryStorage
from cvmfs_objstore.objects import ObjectStore
from tests.care.collecting import HOUR, Past
from tests.engine.repositories import make_keys
from tests.gateway.caring import Gateway
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
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    """A store on disk."""
    storage = LocalStorage.create(str(tmp_path / "repo"), durable=False)
    yield ObjectStore(storage)
    storage.close()


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


@pytest.fixture(scope="module")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> str:
    paths = SystemPaths(str(tmp_path_factory.mktemp("keys")))
    make_keys(FQRN, paths)
    return paths.keys


@pytest.fixture
async def gateway(tmp_path: Path, key_files: str) -> AsyncIterator[Gateway]:
    past = Past(str(tmp_path / "root"), key_files)
    for number in range(4):
        past.commit({"/f": b"%d" % number})
    past.now += 24 * HOUR
    write_access(past.paths)
    os.makedirs(past.paths.work_dir, exist_ok=True)
    service = GatewayService.open(
        Config.load(past.paths),
        past.paths,
        engine=past.engine,
        stores=lambda fqrn: past.engine.repository(fqrn).objects,
        clock=lambda: past.now * 1000,
    )
    runner = make_runner(make_app(service))
    await service.start()
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession() as session:
        yield Gateway(past, service, session, f"http://127.0.0.1:{port}/api/v1")
    await runner.cleanup()
    await service.close()
