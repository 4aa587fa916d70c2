"""The relay: forwards the messages of other servers to the subscribers of this one.

A relay is a single subscriber for the gateway, however many subscribers it has itself; relays can be chained. Every
message passes the hub's checks as if it had been published here, so a relay that has the repositories' public keys need
not trust its sources, and a revision that arrives from two of them is forwarded once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import aiohttp

from cvmfs_notify.client import Subscriber
from cvmfs_notify.config import RelaySource
from cvmfs_notify.errors import NotifyError, OlderRevision
from cvmfs_notify.hub import NotificationHub

log = logging.getLogger(__name__)


async def relay(hub: NotificationHub, sources: Iterable[RelaySource]) -> None:
    """Forward the messages of *sources*, until cancelled."""
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        for source in sources:
            for repository in source.repositories:
                tasks.create_task(_pass_on(hub, Subscriber(session, source.url, repository), source.url))


async def _pass_on(hub: NotificationHub, subscriber: Subscriber, url: str) -> None:
    async for message in subscriber.messages():
        try:
            await hub.publish(message)
        except OlderRevision:
            pass  # another source was first
        except NotifyError as error:
            log.warning("%s: a message is not forwarded: %s", url, error)
