from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from cvmfs_gw.engine.commit_api import CommitEngine, CommitOutcome, CommitRequest
from cvmfs_gw.engine.errors import ConfigurationError, EngineError
from cvmfs_gw.gateway.commits import CommitQueue
from cvmfs_gw.gateway.committer import CommitBody
from cvmfs_gw.gateway.config import Config
from cvmfs_gw.gateway.errors import ConfigError, InvalidLease, LeaseDatabaseError, StoreFailure
from cvmfs_gw.gateway.leasedb import LeaseDatabase
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.gateway.leases import LeaseBook
from cvmfs_gw.gateway.service import OUTCOMES_KEPT_MS, GatewayService
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.objects import ObjectStore
from tests.gateway.support import FQRN, KEY, NEW, OLD, Clock, FakeEngine, digest_of, pack, write

BODY = CommitBody(OLD, NEW)


async def test_closing_waits_for_commits(service: GatewayService, engine: FakeEngine) -> None:
    engine.gate = threading.Event()
    lease = await service.leases.acquire(f"{FQRN}/a", KEY, protocol=2, hostname="")
    commit = asyncio.create_task(service.commits.commit(lease.token, BODY, KEY))
    await engine.entered()
    closing = asyncio.create_task(service.close())
    for _ in range(100):
        await asyncio.sleep(0)
    assert not closing.done()
    engine.gate.set()
    await closing
    assert (await commit).final_revision == 1


async def test_housekeeping(service: GatewayService, clock: Clock) -> None:
    done = await service.leases.acquire(f"{FQRN}/a", KEY, protocol=2, hostname="")
    await service.commits.commit(done.token, BODY, KEY)
    late = await service.leases.acquire(f"{FQRN}/b", KEY, protocol=2, hostname="")
    clock.advance(7_200_000)
    await service.housekeep()
    with pytest.raises(InvalidLease):
        await service.leases.cancel(late.token, KEY)
    assert (await service.commits.commit(done.token, BODY, KEY)).final_revision == 1
    clock.advance(OUTCOMES_KEPT_MS)
    await service.housekeep()
    with pytest.raises(InvalidLease):
        await service.commits.commit(done.token, BODY, KEY)


async def test_what_does_not_open(paths: SystemPaths, config: Config, engine: FakeEngine) -> None:
    def none(fqrn: str) -> ObjectStore:
        raise AssertionError

    write(paths.work_dir + "/gw.db", "no database" * 1000)
    with pytest.raises(ConfigError):
        GatewayService.open(config, paths, engine=engine, stores=none)
    write(paths.access_config, "{")
    with pytest.raises(ConfigError):
        GatewayService.open(config, paths, engine=engine, stores=none)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (FileNotFoundError("/srv/cvmfs"), StoreFailure),
        (ValueError("server.conf"), StoreFailure),
        (ConfigurationError("server.conf"), EngineError),
    ],
)
async def test_a_store_that_does_not_open(
    service: GatewayService, raised: Exception, expected: type[Exception], clock: Clock
) -> None:
    def broken(fqrn: str) -> ObjectStore:
        raise raised

    async def nothing() -> object:
        return
        yield

    service.repositories._stores = broken
    lease = await service.leases.acquire(f"{FQRN}/a", KEY, protocol=2, hostname="")
    header, _ = pack([])
    with pytest.raises(expected):
        await service.payloads.receive(
            lease.token,
            KEY,
            digest=digest_of(header),
            header_size=len(header),
            chunks=nothing(),  # type: ignore[arg-type]
        )
    clock.advance(7_200_000)
    assert service.leases.all() == []  # it is not pinned


async def test_protocol_4_creates_ancestors(service: GatewayService, engine: FakeEngine) -> None:
    path = LeasePath.parse(f"{FQRN}/a")
    lease = service._book.acquire(path, "key1", now=service.now_ms(), lifetime_ms=1000, protocol=4)
    await service.commits.commit(lease.token, BODY, KEY)
    assert engine.requests[0].create_ancestors


async def test_an_engine_is_what_it_is_said_to_be() -> None:
    engine: CommitEngine = FakeEngine()
    assert isinstance(engine.commit(CommitRequest(FQRN, "", OLD, NEW)), CommitOutcome)


async def test_the_queue() -> None:
    queue = CommitQueue()
    gate, order = threading.Event(), list[int]()
    assert not queue.busy("a")
    waiting = []
    for number in range(5):

        def work(number: int = number) -> None:
            assert gate.wait(20)
            order.append(number)

        waiting.append(asyncio.create_task(queue.run("a", work)))
        await asyncio.sleep(0)
    assert queue.busy("a")
    assert await queue.run("b", lambda: 5) == 5
    idle = asyncio.create_task(queue.idle("a"))
    await asyncio.sleep(0)
    assert not idle.done()
    gate.set()
    await idle
    assert order == [0, 1, 2, 3, 4]
    await asyncio.gather(*waiting)
    with pytest.raises(ZeroDivisionError):
        await queue.run("a", lambda: 1 // 0)
    assert await queue.run("a", lambda: 6) == 6
    queue.close()


async def test_what_is_acknowledged_is_durable(
    config: Config,
    paths: SystemPaths,
    engine: FakeEngine,
    stores: dict[str, ObjectStore],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A grant, a renewal, what an upload has brought, a cancelled lease: each is flushed before the caller hears."""
    flushes = 0

    def sync(book: LeaseBook) -> None:
        nonlocal flushes
        flushes += 1

    monkeypatch.setattr(LeaseBook, "sync", sync)
    service = GatewayService.open(config, paths, engine=engine, stores=stores.__getitem__)
    header, data = pack([b"x"])

    async def body() -> AsyncIterator[bytes]:
        yield header + data

    token = (await service.leases.acquire(f"{FQRN}/a", KEY, protocol=2, hostname="")).token
    assert flushes == 1
    await service.leases.renew(token, KEY)
    assert flushes == 2
    await service.payloads.receive(token, KEY, digest=digest_of(header), header_size=len(header), chunks=body())
    assert flushes == 3
    await service.leases.cancel(token, KEY)
    assert flushes == 4
    await service.close()


async def test_what_nobody_reads_in_the_settings_is_logged(
    paths: SystemPaths, engine: FakeEngine, stores: dict[str, ObjectStore], caplog: pytest.LogCaptureFixture
) -> None:
    write(paths.user_config, {"prot": 4929})
    write(paths.access_config, {"version": 2, "repositories": []})
    service = GatewayService.open(Config.load(paths), paths, engine=engine, stores=stores.__getitem__)
    assert f"{paths.user_config}: prot: not known" in caplog.text
    assert f"{paths.access_config}: repositories: not known" in caplog.text
    write(paths.access_config, {"version": 2, "key": []})
    await service.reload()
    assert f"{paths.access_config}: key: not known here, so without effect; keys?" in caplog.text
    await service.close()


async def test_a_disk_that_is_full_at_the_start(
    paths: SystemPaths,
    config: Config,
    clock: Clock,
    engine: FakeEngine,
    stores: dict[str, ObjectStore],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server starts: reading goes on, and what takes room is refused until there is some."""

    def full(*arguments: object) -> None:
        raise LeaseDatabaseError("the lease database cannot be written: database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(LeaseDatabase, "set_repositories", full)
        service = GatewayService.open(config, paths, engine=engine, stores=stores.__getitem__, clock=clock)
    try:
        assert service.repositories.enabled(FQRN)
        assert await service.leases.acquire(f"{FQRN}/a", KEY, protocol=2, hostname="")
    finally:
        await service.close()
