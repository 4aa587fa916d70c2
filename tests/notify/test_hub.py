from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cvmfs_notify.broker import Broker
from cvmfs_notify.errors import OlderRevision, SubscriberRefused, TooManyRepositories, UntrustedManifest
from cvmfs_notify.hub import NotificationHub
from cvmfs_notify.store import EventStore
from cvmfs_notify.trust import NothingKnown
from tests.notify.support import FQRN, OTHER, FakeSource, Keys, until, within


async def test_listening(hub: NotificationHub, keys: Keys) -> None:
    await hub.announce(FQRN, keys.manifest(1))
    heard: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

    async def listen() -> str:
        async with hub.listen(None) as events:
            async for event in events:
                heard.put_nowait((event.fqrn, event.revision))
        return "ended"

    task = asyncio.create_task(listen())
    assert await heard.get() == (FQRN, 1)
    await hub.publish(keys.message(4, OTHER))
    assert await heard.get() == (OTHER, 4)
    hub.cut()
    assert await task == "ended"
    assert not hub.broker._to_all
    with pytest.raises(SubscriberRefused):
        async with hub.listen(None):
            pass


async def test_across_restarts(tmp_path: Path, keys: Keys, source: FakeSource) -> None:
    path = str(tmp_path / "events.db")
    first = NotificationHub(EventStore(path), source)
    await first.announce(FQRN, keys.manifest(7))
    epoch = first.broker.epoch
    await first.close()
    again = NotificationHub(EventStore(path), source)
    assert again.broker.epoch == epoch
    with pytest.raises(OlderRevision):
        await again.publish(keys.message(6))
    async with again.listen(frozenset({FQRN})) as events:
        assert (await anext(events)).revision == 7
    await again.close()


async def test_a_repository_that_is_made_anew(hub: NotificationHub, keys: Keys) -> None:
    await hub.announce(FQRN, keys.manifest(100, published=1000))
    with pytest.raises(OlderRevision):
        await hub.announce(FQRN, keys.manifest(99, published=999))
    with pytest.raises(OlderRevision):
        await hub.publish(keys.message(1))
    event = await hub.announce(FQRN, keys.manifest(1, published=2000))
    assert event is not None
    assert (event.revision, event.number) == (1, 2)


async def test_what_was_said_before_the_repository_was_here(tmp_path: Path, keys: Keys, source: FakeSource) -> None:
    """Its keys were unknown, and anybody could have said it."""
    path = str(tmp_path / "events.db")
    nobody = NotificationHub(EventStore(path), NothingKnown())
    assert await nobody.publish(keys.message(1 << 62, key=keys.forger)) is not None
    assert await nobody.publish(keys.message(5, OTHER, key=keys.forger)) is not None
    await nobody.close()
    hub = NotificationHub(EventStore(path), source)
    for fqrn in (FQRN, OTHER):
        event = await hub.announce(fqrn, keys.manifest(5, fqrn, published=1))
        assert event is not None
        assert event.revision == 5
    assert await hub.announce(FQRN, keys.manifest(5, published=2)) is None
    with pytest.raises(OlderRevision):
        await hub.announce(FQRN, keys.manifest(4, published=1))
    await hub.close()


async def test_made_up_repositories_take_nobodys_place(keys: Keys, source: FakeSource) -> None:
    hub = NotificationHub(None, source)
    hub.broker = Broker(limit=3)
    assert await hub.announce(FQRN, keys.manifest(1)) is not None
    for name in ("a", "b"):
        assert await hub.publish(keys.message(1, f"{name}.example.org")) is not None
    with pytest.raises(TooManyRepositories):
        await hub.publish(keys.message(1, "c.example.org"))
    assert await hub.announce(OTHER, keys.manifest(1, OTHER)) is not None
    assert [name for name in (FQRN, OTHER, "a.example.org", "b.example.org") if hub.broker.newest(name)] == [
        FQRN, OTHER, "b.example.org",
    ]  # fmt: skip
    await hub.close()


async def test_our_own_are_checked_too(hub: NotificationHub, keys: Keys) -> None:
    with pytest.raises(UntrustedManifest):
        await hub.announce(FQRN, keys.manifest(1, key=keys.forger))


async def test_a_disk_that_is_full(
    hub: NotificationHub, keys: Keys, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(events: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hub._store, "save", full)
    assert await hub.publish(keys.message(1)) is not None
    assert "cannot record revision 1" in caplog.text


async def test_closing_ends_what_is_open(hub: NotificationHub) -> None:
    async def listen() -> int:
        async with hub.listen(None) as events:
            return len([event async for event in events])

    listener = asyncio.create_task(listen())
    await until("it listens", lambda: hub.subscribers == 1)
    await hub.close()
    assert await within(listener) == 0
    with pytest.raises(SubscriberRefused):
        hub.admit()
