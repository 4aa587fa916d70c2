"""The relay: what other servers say is said again to the subscribers of this one.

A gateway has one subscriber for each relay, however many listen there; relays can stand behind relays. Each message
goes through the hub's checks as if it had been published here, so a relay that knows the repositories' keys need not
trust the server that it listens to, and revisions that come on two ways are passed on once.
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
    """Pass on what *sources* say, until cancelled."""
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        for source in sources:
            for repository in source.repositories:
                tasks.create_task(_pass_on(hub, Subscriber(session, source.url, repository), source.url))


async def _pass_on(hub: NotificationHub, subscriber: Subscriber, url: str) -> None:
    async for message in subscriber.messages():
        try:
            await hub.publish(message)
        except OlderRevision:
            pass  # another source was faster
        except NotifyError as error:
            log.warning("%s: a message is not passed on: %s", url, error)
