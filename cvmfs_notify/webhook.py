"""Webhooks: an HTTP request to a CI system for each new revision.

::

    POST <url>
    Content-Type: application/json
    X-CVMFS-Event: publish
    X-CVMFS-Delivery: <id of the event, the same in every attempt>
    X-CVMFS-Signature-256: sha256=<hex HMAC-SHA256 of the body with the secret>

    {"repository":"<fqrn>","revision":7,"root_hash":"...","published":1795171628,"manifest":"<base64>"}

A 2xx response is success. After any other, or none within :data:`TIMEOUT_S`, the request is repeated at growing
intervals, at most :data:`ATTEMPTS` times, and only until a newer revision of the repository is known.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Iterable
from typing import Final

import aiohttp

from cvmfs_notify.authorization import webhook_signature
from cvmfs_notify.broker import Event
from cvmfs_notify.config import WebhookTarget
from cvmfs_notify.hub import NotificationHub
from cvmfs_notify.messages import Activity, topics
from cvmfs_notify.sse import event_id
from cvmfs_objstore.formats.manifest import SignedManifest

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 30.0
ATTEMPTS: Final = 10
FIRST_DELAY_S: Final = 0.5
LAST_DELAY_S: Final = 300.0


class Webhook:
    """Sends requests to one target. *first_delay_s* is the delay before the second attempt; it doubles each time."""

    def __init__(
        self,
        hub: NotificationHub,
        session: aiohttp.ClientSession,
        target: WebhookTarget,
        *,
        first_delay_s: float = FIRST_DELAY_S,
    ) -> None:
        self._hub = hub
        self._session = session
        self._target = target
        self._first_delay_s = first_delay_s

    async def run(self) -> None:
        """Send every event that is new from now on, until the hub stops.

        Events of an earlier process are not sent again.
        """
        last = event_id(self._hub.broker.epoch, self._hub.broker.last_number)
        async with self._hub.listen(topics(self._target.repositories), last_event_id=last) as events:
            async for event in events:
                await self.deliver(event)

    async def deliver(self, event: Event) -> bool:
        """Send one event; returns whether the target accepted it."""
        body = payload(event)
        headers = {
            "Content-Type": "application/json",
            "X-CVMFS-Event": "publish",
            "X-CVMFS-Delivery": event_id(self._hub.broker.epoch, event.number),
        }
        if self._target.secret:
            headers["X-CVMFS-Signature-256"] = webhook_signature(self._target.secret.encode(), body)
        delay = self._first_delay_s
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_DELAY_S)
            if self._hub.stopping or self._hub.broker.newest(event.fqrn) is not event:
                return False  # the newer one is sent next
            try:
                timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
                async with self._session.post(
                    self._target.url, data=body, headers=headers, timeout=timeout, allow_redirects=False
                ) as response:
                    if 200 <= response.status < 300:
                        return True
                    outcome = f"HTTP {response.status}"
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                outcome = str(error) or type(error).__name__
            log.warning("webhook %s, attempt %d: %s", self._target.url, attempt + 1, outcome)
        return False


def payload(event: Event) -> bytes:
    """What is sent."""
    activity = Activity.parse(event.publication.message)
    manifest = SignedManifest.parse(activity.manifest).manifest
    fields = {
        "repository": event.fqrn,
        "revision": event.revision,
        "root_hash": manifest.root_hash.bare,
        "published": event.publication.published,
        "manifest": base64.b64encode(activity.manifest).decode(),
    }
    return json.dumps(fields, separators=(",", ":")).encode()


async def run_all(hub: NotificationHub, targets: Iterable[WebhookTarget]) -> None:
    """Serve every target, until cancelled or the hub stops."""
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        for target in targets:
            tasks.create_task(Webhook(hub, session, target).run())
