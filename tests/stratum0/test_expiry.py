"""Times to live: kept in the catalogs, found cheaply, and whatever becomes of clocks and processes, never too early."""

from __future__ import annotations

import asyncio
import errno
import math
import time
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest

from cvmfs_gw.care import gc
from cvmfs_gw.care.gc import Collection, Policy
from cvmfs_gw.care.work import oldest_work
from cvmfs_gw.client.keys import read_key_file
from cvmfs_gw.engine.changes import Nest, Put
from cvmfs_gw.engine.edit import edit
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.rules import Rules
from cvmfs_gw.engine.statistics import PublishCounts
from cvmfs_gw.engine.tags import rollback
from cvmfs_gw.engine.transaction import Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.stratum0.errors import TryAgain
from cvmfs_gw.stratum0.expiry import ATTRIBUTE, ExpiryIndex, expires, later, with_expiry
from cvmfs_objstore.formats.entry import Kind, pack_xattrs, unpack_xattrs
from tests.engine.repositories import FQRN
from tests.engine.trees import Item, make_entry
from tests.gateway.support import until
from tests.stratum0.conftest import Start
from tests.stratum0.support import Server, checked

FILE = make_entry("/f", Item(Kind.FILE, 1))[0]


def test_the_attribute() -> None:
    plain = FILE._replace(xattr=pack_xattrs({"user.a": b"1"}))
    assert expires(plain) is None
    marked = with_expiry(plain, 1_800_000_000)
    assert unpack_xattrs(marked.xattr) == {"user.a": b"1", ATTRIBUTE: b"1800000000"}
    assert expires(marked) == 1_800_000_000
    assert with_expiry(marked, None) == plain
    assert with_expiry(with_expiry(FILE, 5), None).xattr is None


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"1.5", b"9" * 13, "٣".encode()])
def test_what_is_no_time_is_never(value: bytes) -> None:
    assert expires(FILE._replace(xattr=pack_xattrs({ATTRIBUTE: value}))) is None
    assert expires(FILE._replace(xattr=b"\7nonsense")) is None


def test_later() -> None:
    assert later(1, 2) == 2
    assert later(None, 2) is later(2, None) is later(None, None) is None


async def test_a_thousand_artifacts_a_clock_that_jumps_and_a_restart(start: Start) -> None:
    server = await start()
    born = server.time.wall_s

    async def put(numbers: range) -> None:
        for n in numbers:
            status, _ = await server.put(f"builds/{n % 20}/{n}?ttl_s={100 + n}", b"%d" % n)
            assert status == 201

    await asyncio.gather(*(put(range(first, 1000, 50)) for first in range(50)))
    await server.put("kept", b"x")
    alive = {f"/builds/{n % 20}/{n}" for n in range(1000)}
    for step, (jump, restart) in enumerate(
        [(-7200, True), (7200, False), (86_400, True), (-86_400 * 365, True), (0, False)]
    ):
        server.time.jump(jump)
        if restart:
            time = server.time
            server = await start(time=time)
        server.time.advance(250)
        over = server.time.running_s - 1000.0
        await server.call("POST", "expiry")
        alive = {path for path in alive if 100 + int(path.rpartition("/")[2]) > over}
        files = {path for path in await server.names() if path.count("/") == 3}
        assert files == alive, step
    assert server.uploads.clock() == born + 1250
    assert checked(server.repository) == {"/kept"}


async def test_upkeep_removes_what_is_due_by_itself(start: Start) -> None:
    server = await start(upkeep=True)
    await server.put("a/f?ttl_s=100", b"x")
    server.time.advance(101)
    server.uploads.upkeep.wake()
    await until(lambda: len(server.announced) == 2)
    assert await server.names() == []


async def test_nothing_dies_while_the_repository_is_disabled(server: Server) -> None:
    await server.put("a/f?ttl_s=100", b"x")
    server.time.advance(101)
    await server.gateway.repositories.enable(FQRN, False, wait=True)
    await server.uploads.upkeep._keep_times()
    with pytest.raises(TryAgain, match="disabled"):
        await server.uploads.expire(FQRN)
    assert await server.names() == ["/a", "/a/f"]
    await server.gateway.repositories.enable(FQRN, True)
    await server.uploads.upkeep._keep_times()
    assert await server.names() == []


async def test_what_is_due_goes_though_the_time_cannot_be_saved(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    await server.put("a/f?ttl_s=100", b"x")
    server.time.advance(101)
    with monkeypatch.context() as patch:
        patch.setattr(server.uploads.clock, "save", full)
        await server.uploads.upkeep._keep_times()
    assert await server.names() == []
    assert "No space left" in caplog.text


async def test_directories_go_with_the_last_of_them(server: Server) -> None:
    await server.put("a/b/1?ttl_s=10", b"x")
    await server.put("a/2?ttl_s=100", b"x")
    await server.put("a/b/3?ttl_s=50", b"x")
    for seconds, left in ((10, ["/a", "/a/2", "/a/b", "/a/b/3"]), (40, ["/a", "/a/2"]), (50, [])):
        server.time.advance(seconds)
        status, reply = await server.call("POST", "expiry")
        assert (status, reply["status"]) == (200, "ok")
        assert await server.names() == left


async def test_expiry_leaves_alone_what_a_publisher_has_leased(server: Server) -> None:
    key = read_key_file(server.paths.key_file(FQRN, "gw"))
    await server.put("a/1?ttl_s=10", b"x")
    await server.put("b/1?ttl_s=10", b"x")
    lease = await server.gateway.leases.acquire(f"{FQRN}/a", key, protocol=3, hostname="host")
    server.time.advance(10)
    assert (await server.call("POST", "expiry"))[1]["removed"] == 2
    assert await server.names() == ["/a", "/a/1"]
    await server.gateway.leases.cancel(lease.token, key)
    assert (await server.call("POST", "expiry"))[1]["removed"] == 2
    assert await server.names() == []


async def test_nested_catalogs_are_looked_into(server: Server) -> None:
    for n in range(3):
        await server.put(f"d{n}/.cvmfscatalog?ttl_s=100", b"")
        await server.put(f"d{n}/e/f?ttl_s={50 + n}", b"x")
    head = server.repository.head()
    index = ExpiryIndex(server.repository.catalogs)
    born = int(server.time.wall_s)
    assert index.first(head.root_hash) == born + 50
    assert sorted(index.due(head.root_hash, born + 51)) == [
        ("/d0/e", born + 50),
        ("/d0/e/f", born + 50),
        ("/d1/e", born + 51),
        ("/d1/e/f", born + 51),
    ]
    server.time.advance(51)
    await server.call("POST", "expiry")
    assert [path for path in await server.names() if path.endswith("/f")] == ["/d2/e/f"]
    server.time.advance(50)
    await server.call("POST", "expiry")
    assert await server.names() == []
    assert index.first(server.repository.head().root_hash) == math.inf
    assert checked(server.repository) == set()


async def test_what_publishers_bring_dies_too_and_a_publish_takes_it_off(server: Server) -> None:
    end = int(server.time.wall_s) + 10

    def publish(tree: CatalogTree, rules: Rules) -> PublishCounts:
        transaction = Transaction(tree)
        folder = make_entry("/d", Item(Kind.DIRECTORY, 1))[0]
        transaction.apply([Put("/d", folder), Put("/d/f", with_expiry(FILE, end)), Nest("/d")])
        return transaction.counts

    edit(server.repository, publish, 1_700_000_100)
    server.time.advance(11)
    assert (await server.call("POST", "expiry"))[1]["removed"] == 1
    assert await server.names() == ["/d"]


async def test_another_revision_brings_its_own_ends(server: Server) -> None:
    await server.put("f?ttl_s=1000", b"x")
    old = server.repository.head().root_hash
    await server.put("f?overwrite&ttl_s=10", b"y")
    with closing(CatalogTree(server.repository.catalogs, old)) as tree:
        entry = tree.get("/f")
        assert entry is not None
        assert expires(entry) == int(server.time.wall_s) + 1000
    rollback(server.repository, "trunk-previous", 1_700_000_200)
    server.time.advance(20)
    assert (await server.call("POST", "expiry"))[1]["removed"] == 0
    assert await server.call("GET", "files/f") == (200, b"x")


async def test_garbage_follows(start: Start) -> None:
    server = await start(upkeep=True)
    collected = []
    collect = server.gateway.garbage.collect

    async def noticed(*arguments: object, **options: object) -> object:
        report = await collect(*arguments, **options)  # type: ignore[arg-type]
        collected.append(report.fqrn)
        return report

    server.gateway.garbage.collect = noticed  # type: ignore[method-assign, assignment]
    await server.put("f?ttl_s=10", b"x")
    with open(server.paths.server_conf(FQRN), "a", encoding="utf-8") as file:  # noqa: ASYNC230
        file.write("CVMFS_AUTO_GC=true\n")
    server.time.advance(11)
    server.uploads.upkeep.wake()
    await until(lambda: collected)
    assert collected == [FQRN]


async def test_a_running_upload_holds_back_the_collector(server: Server) -> None:
    assert server.gateway.garbage.oldest_lease(FQRN) is None
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        reached.set()
        await go_on.wait()
        yield b"y"

    upload = asyncio.create_task(server.put("f", pieces()))
    await reached.wait()
    await until(lambda: server.gateway.garbage.oldest_lease(FQRN) is not None)
    go_on.set()
    assert (await upload)[0] == 201
    assert server.gateway.garbage.oldest_lease(FQRN) is None


async def test_a_running_upload_holds_back_the_collector_of_another_process(server: Server) -> None:
    """As ``cvmfs-gw gc`` is one, which finds leases in the lease database, and uploads nowhere else."""
    reached, go_on = asyncio.Event(), asyncio.Event()
    begun = time.time()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        reached.set()
        await go_on.wait()
        yield b"y"

    upload = asyncio.create_task(server.put("f", pieces()))
    await reached.wait()
    await until(lambda: server.uploads.running)
    server.uploads.mark_work()
    seen: list[float | None] = []

    class Looking(Collection):
        def __init__(
            self, repository: Repository, policy: Policy, now: float, oldest: float | None, *rest: Any
        ) -> None:
            seen.append(oldest)
            super().__init__(repository, policy, now, oldest, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "Collection", Looking)
        gc.collect(server.repository, Policy(0), dry_run=True)
        gc.collect(server.repository, Policy(0), dry_run=True, oldest_lease=1.0)
    assert seen[0] is not None
    assert begun - 1 < seen[0] <= time.time()
    assert seen[1] == 1.0
    go_on.set()
    assert (await upload)[0] == 201
    server.uploads.mark_work()
    assert oldest_work(server.paths, FQRN) is None


async def test_more_than_one_commit_removes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvmfs_gw.stratum0.jobs.MAX_EXPIRED", 3)
    await asyncio.gather(*(server.put(f"d/{n}?ttl_s=10", b"x") for n in range(10)))
    server.time.advance(10)
    before = server.repository.head().revision
    assert (await server.call("POST", "expiry"))[1]["removed"] == 11
    assert server.repository.head().revision == before + 4
    assert await server.names() == []
