"""``POST /gc``: over the API, with leases open and commits going on; and the oldest lease that it has to respect."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_gw.api.gc import policy_of
from cvmfs_gw.api.messages import GcRequest
from cvmfs_gw.care.gc import Policy
from cvmfs_gw.care.lastgc import last_collection
from cvmfs_gw.engine.commit_api import CommitOutcome
from cvmfs_gw.gateway.committer import CommitBody, Committed
from cvmfs_gw.gateway.errors import InvalidBody
from cvmfs_gw.gateway.leaseage import DAY_MS, oldest_lease_in
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.gateway.leases import LeaseBook
from cvmfs_objstore.hashes import ContentHash, Suffix
from tests.care.collecting import HOUR, Past, content_of
from tests.engine.repositories import FQRN
from tests.engine.trees import NOW
from tests.gateway.caring import Gateway
from tests.gateway.support import KEY

NOTHING = ContentHash.null(suffix=Suffix.CATALOG)


async def test_collects(gateway: Gateway) -> None:
    past = gateway.past
    assert (await gateway.gc(KEY))["reason"] == "no_admin_key"
    dry = await gateway.gc(num_revisions=1, dry_run=True, verbose=True)
    assert dry["status"] == "ok"
    assert past.has(b"0")
    reply = await gateway.gc(num_revisions=1, verbose=True)
    assert reply["status"] == "ok"
    assert str(dry["output"]).splitlines()[:-1] == str(reply["output"]).splitlines()[:-1]
    assert "1 revisions" not in str(reply["output"])
    assert not past.has(b"0")
    past.check()


async def test_leases_are_respected(gateway: Gateway) -> None:
    past, service = gateway.past, gateway.service
    lease = await service.leases.acquire(f"{FQRN}/x", KEY, protocol=2, hostname="here")
    past.now += HOUR
    past.upload({"/x": b"on its way"})
    past.age()
    assert (await gateway.gc(num_revisions=1))["status"] == "ok"
    assert past.has(b"on its way")
    await service.leases.cancel(lease.token, KEY)
    past.now += HOUR
    assert (await gateway.gc(num_revisions=1))["status"] == "ok"
    assert not past.has(b"on its way")


async def test_commits_go_on(gateway: Gateway) -> None:
    """Between two batches a commit gets its turn, and the event loop is free all the time."""
    past = gateway.past
    stop = threading.Event()

    def publish() -> int:
        number = 0
        while not stop.is_set():
            number += 1
            past.engine.commit(past.upload({"/f": b"%d" % (number % 5)}))
        return number

    publisher = asyncio.create_task(asyncio.to_thread(publish))
    for _ in range(5):
        assert (await gateway.gc(num_revisions=1))["status"] == "ok"
    stop.set()
    assert await publisher > 0
    past.check()
    assert content_of(past.repository(), "/f")


def set_conf(past: Past, *lines: str) -> None:
    with open(past.paths.server_conf(FQRN), "a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


async def publish(gateway: Gateway, data: bytes) -> None:
    """A commit through the service, as a publisher makes it, and what follows from it."""
    past, service = gateway.past, gateway.service
    lease = await service.leases.acquire(f"{FQRN}/", KEY, protocol=2, hostname="here")
    request = past.upload({"/f": data})
    await service.commits.commit(lease.token, CommitBody(request.old_root, request.new_root), KEY)
    await service.commits.finish()
    await service.auto_garbage.idle()
    past.age()


async def test_automatic(gateway: Gateway) -> None:
    """Once where it was never done; then only when it is time again."""
    past = gateway.past
    set_conf(past, "CVMFS_AUTO_GC=false")
    await publish(gateway, b"a")
    assert past.has(b"0"), "nobody has asked for it"
    set_conf(past, "CVMFS_AUTO_GC=true", "CVMFS_AUTO_GC_TIMESPAN=now")
    past.now += 2 * HOUR
    await publish(gateway, b"b")
    assert not past.has(b"0")
    assert last_collection(past.repository()) == past.now
    past.now += 20 * HOUR
    await publish(gateway, b"c")
    assert past.has(b"a"), "it is not a day ago"
    past.now += 5 * HOUR
    await publish(gateway, b"d")
    assert not past.has(b"a")
    past.check()


async def test_automatic_leaves_what_leases_need(gateway: Gateway) -> None:
    past = gateway.past
    set_conf(past, "CVMFS_AUTO_GC=true", "CVMFS_AUTO_GC_TIMESPAN=now", "CVMFS_AUTO_GC_LAPSE=tomorrow")
    lease = await gateway.service.leases.acquire(f"{FQRN}/x", KEY, protocol=2, hostname="here")
    past.now += HOUR // 2
    past.upload({"/x": b"on its way"})
    past.age()
    past.now += HOUR // 2
    await gateway.service.auto_garbage.committed(Committed(FQRN, "", CommitOutcome(1, NOTHING)))
    await gateway.service.auto_garbage.idle()
    assert past.has(b"on its way")
    await gateway.service.leases.cancel(lease.token, KEY)
    await gateway.service.auto_garbage.committed(Committed(FQRN, "", CommitOutcome(1, NOTHING)))
    await gateway.service.auto_garbage.idle()
    assert not past.has(b"on its way")


async def test_automatic_settings_that_make_no_sense(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """The commit is done all the same, and nothing is removed."""
    past = gateway.past
    set_conf(past, "CVMFS_AUTO_GC=true", "CVMFS_AUTO_GC_TIMESPAN='some day'")
    await publish(gateway, b"a")
    assert past.has(b"0")
    assert "CVMFS_AUTO_GC_TIMESPAN" in caplog.text


def test_policy() -> None:
    assert policy_of(GcRequest("x", num_revisions=3), NOW) == Policy(revisions=3)
    assert policy_of(GcRequest("x", timestamp="0001-01-01T00:00:00Z"), NOW) == Policy.default(NOW)
    assert policy_of(GcRequest("x", timestamp="2023-11-14T22:13:20.123456789Z"), NOW).since == pytest.approx(NOW, abs=1)
    for wanted in (
        GcRequest("x", num_revisions=-1),
        GcRequest("x", timestamp="yesterday"),
        GcRequest("x", timestamp="2023-11-14T22:13:20"),
        GcRequest("x", num_revisions=1, timestamp="2023-11-14T22:13:20Z"),
    ):
        with pytest.raises(InvalidBody):
            policy_of(wanted, NOW)


def test_oldest_lease_in_the_database(tmp_path: Path) -> None:
    path = str(tmp_path / "gw.db")
    now = NOW * 1000
    with closing(LeaseBook.open(path, now=now)) as book:
        assert oldest_lease_in(path, FQRN, 1000, now) is None
        for number, subpath in enumerate(("a", "b")):
            book.acquire(
                LeasePath.parse(f"{FQRN}/{subpath}"),
                "k",
                now=now + number * 1000,
                lifetime_ms=10_000,
                protocol=2,
                hostname="",
            )
        book.sync()
        assert oldest_lease_in(path, FQRN, 1000, now) == NOW
        assert oldest_lease_in(path, "other.example.org", 1000, now) is None
        assert oldest_lease_in(path, FQRN, 1000, now + 2 * DAY_MS) is None


async def test_a_storage_that_fails(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The administrator gets an answer, and nothing is removed."""

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("cvmfs_gw.gateway.garbage.collect", fail)
    reply = await gateway.gc(num_revisions=1)
    assert (reply["status"], reply["reason"]) == ("error", "uploader_error")
    assert "Input/output error" in str(reply["detail"])
    assert gateway.past.has(b"0")
