from __future__ import annotations

import asyncio

import pytest

from cvmfs_gw.gateway.errors import PathBusy, RepositoryDisabled
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.gateway.leases import Lease
from cvmfs_gw.gateway.service import GatewayService
from cvmfs_gw.gateway.waiting import WaitingLine
from tests.gateway.support import FQRN, KEY, STRANGER, Api, Clock, until


async def ask(service: GatewayService, path: str, wait_s: float = 60, **more: object) -> str:
    granted = await service.leases.acquire(f"{FQRN}/{path}", KEY, protocol=2, hostname="", wait_s=wait_s, **more)  # type: ignore[arg-type]
    return granted.token


async def test_first_come_first_served(service: GatewayService) -> None:
    token = await ask(service, "a")
    served: list[str] = []

    async def wait(name: str, path: str) -> None:
        mine = await ask(service, path)
        served.append(name)
        await service.leases.cancel(mine, KEY)

    waiting = []
    for name, path in (("first", "a/b"), ("second", "a"), ("third", "a/b"), ("elsewhere", "x")):
        waiting.append(asyncio.create_task(wait(name, path)))
        await until(lambda: waiting[-1].done() or len(service.leases.waiting) == len(waiting))
    await waiting[-1]
    assert served == ["elsewhere"]
    with pytest.raises(PathBusy):
        await ask(service, "a/c", wait_s=0)  # the second was there before
    await service.leases.cancel(token, KEY)
    await asyncio.gather(*waiting)
    assert served == ["elsewhere", "first", "second", "third"]
    assert len(service.leases.waiting) == 0


async def test_a_path_that_becomes_free_in_any_way(service: GatewayService, clock: Clock) -> None:
    for end in ("cancel by path", "expire", "disable"):
        await ask(service, "a")
        waiting = asyncio.create_task(ask(service, "a"))
        await until(lambda: len(service.leases.waiting) == 1)
        if end == "cancel by path":
            await service.leases.cancel_by_path(f"{FQRN}/a")
        elif end == "expire":
            clock.advance(7_200_000)
            await service.housekeep()
        else:
            await service.repositories.enable(FQRN, False)
            await service.leases.cancel_by_path(f"{FQRN}/a")
            with pytest.raises(RepositoryDisabled):
                await waiting
            break
        await service.leases.cancel(await waiting, KEY)


async def test_time_is_up(service: GatewayService) -> None:
    await ask(service, "a")
    with pytest.raises(PathBusy):
        await ask(service, "a", wait_s=0.01)
    assert len(service.leases.waiting) == 0


async def test_who_has_gone_is_not_served(service: GatewayService) -> None:
    token = await ask(service, "a")
    there = True
    waiting = asyncio.create_task(ask(service, "a", gone=lambda: not there))
    await until(lambda: len(service.leases.waiting) == 1)
    there = False
    service.leases.waiting.wake()
    with pytest.raises(PathBusy):
        await waiting
    await service.leases.cancel(token, KEY)
    assert service.leases.all() == []


async def test_who_goes_while_being_served_leaves_no_lease(service: GatewayService) -> None:
    answers = iter([False, True])
    with pytest.raises(ConnectionResetError):
        await ask(service, "a", gone=lambda: next(answers))
    assert service.leases.all() == []


async def test_over_http(api: Api) -> None:
    token = await api.token()
    waiting = asyncio.create_task(api.lease(f"{FQRN}/a", wait="30"))
    with_header = asyncio.create_task(
        api.call("POST", "/leases", {"path": f"{FQRN}/a", "api_version": "2", "wait": -1}, key=KEY)
    )
    assert (await with_header)[0] == 400
    await api.call("DELETE", f"/leases/{token}", key=KEY, signed=token.encode())
    assert (await waiting)["status"] == "ok"


async def test_the_line_asks_again_when_the_lease_in_the_way_runs_out() -> None:
    tried = 0

    async def acquire() -> Lease:
        nonlocal tried
        tried += 1
        if tried == 1:
            raise PathBusy(1)
        return Lease("t", LeasePath(FQRN, "/a"), "key1", 0)

    assert (await WaitingLine().acquire(LeasePath(FQRN, "/a"), acquire, 60)).token == "t"
    assert tried == 2


async def test_a_request_that_is_asked_again(api: Api, service: GatewayService, clock: Clock) -> None:
    """Its lease is granted anew, also past those who wait; whoever asks anything else waits."""
    first = (await api.lease(f"{FQRN}/a", request="r1"))["session_token"]
    waiting = asyncio.create_task(ask(service, "", request="r2"))
    await until(lambda: len(service.leases.waiting) == 1)
    clock.advance(1_000)
    for path, key, name in (("a", KEY, "r3"), ("a", STRANGER, "r1"), ("a/b", KEY, "r1"), ("a", KEY, "")):
        assert (await api.lease(f"{FQRN}/{path}", key=key, request=name))["status"] == "path_busy"
    again = (await api.lease(f"{FQRN}/a", request="r1"))["session_token"]
    assert again != first
    assert [lease.token for lease in service.leases.all()] == [again]
    assert service.leases.all()[0].expires_ms == clock() + 7_200_000
    gone = await api.call("DELETE", f"/leases/{first}", key=KEY, signed=first.encode())
    assert gone[1]["reason"] == "invalid lease"
    assert not waiting.done()
    await service.leases.cancel(again, KEY)
    await service.leases.cancel(await waiting, KEY)
    assert (await api.lease(f"{FQRN}/a", request="r1"))["status"] == "ok"  # the lease is over, so this is a new one
    long = {"path": f"{FQRN}/b", "api_version": 2, "request": "r" * 65}
    assert (await api.call("POST", "/leases", long, key=KEY))[0] == 400


async def test_asked_again_before_the_first_is_given_up(service: GatewayService) -> None:
    """The first request sees that its publisher has gone when the second has the lease already: that one keeps it."""
    book, found = service.leases._book, iter([False, True])
    kept: list[Lease | None] = []

    def gone() -> bool:
        if answer := next(found):
            path = LeasePath.parse(f"{FQRN}/a")
            kept.append(book.grant_again(path, KEY.id, "r", now=service.now_ms(), lifetime_ms=1_000_000))
        return answer

    with pytest.raises(ConnectionResetError):
        await ask(service, "a", request="r", gone=gone)
    assert service.leases.all() == kept
