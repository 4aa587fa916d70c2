from __future__ import annotations

import asyncio

from cvmfs_notify.config import RelaySource
from cvmfs_notify.hub import NotificationHub
from cvmfs_notify.relay import relay
from tests.notify.support import FQRN, OTHER, FakeSource, Keys, within
from tests.notify.test_api_notifications import gateway


async def test_two_gateways_and_one_edge(source: FakeSource, keys: Keys) -> None:
    first, second, edge = (NotificationHub(None, source) for _ in range(3))
    async with gateway(first, keys) as one, gateway(second, keys) as two:
        await one.publish(1)
        sources = [RelaySource(f"http://127.0.0.1:{server.port}/api/v1") for server in (one, two)]
        task = asyncio.create_task(relay(edge, [sources[0], RelaySource(sources[1].url, [OTHER])]))
        async with edge.listen(None) as events:
            event = await within(anext(events))
            assert (event.fqrn, event.revision, event.publication.message) == (FQRN, 1, keys.message(1))
            await two.publish(7)  # nobody has asked that one for it
            await two.publish(5, OTHER)
            event = await within(anext(events))
            assert (event.fqrn, event.revision) == (OTHER, 5)
            await one.publish(2)
            assert (await within(anext(events))).revision == 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    for hub in (first, second, edge):
        await hub.close()


async def test_a_gateway_that_lies(source: FakeSource, keys: Keys) -> None:
    liar, edge = NotificationHub(None), NotificationHub(None, source)
    async with gateway(liar, keys) as server:
        task = asyncio.create_task(relay(edge, [RelaySource(f"http://127.0.0.1:{server.port}/api/v1")]))
        async with edge.listen(None) as events:
            await liar.publish(keys.message(9, key=keys.forger))
            await liar.publish(keys.message(1, OTHER))
            assert (await within(anext(events))).fqrn == OTHER
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await liar.close()
    await edge.close()
