"""The client side: subscribing to a server, as a standard client, and publishing to one.

Works with the reference's gateway, too, as the subscription is also in the body of the request. The reference has
neither ``*`` nor pings nor event ids.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Final

import aiohttp

from cvmfs_notify.authorization import sign
from cvmfs_notify.errors import InvalidMessage, MessageRefused, ServerUnreachable
from cvmfs_notify.messages import MAX_MANIFEST, Activity, format_subscription
from cvmfs_notify.sse import Reader

log = logging.getLogger(__name__)

USER_AGENT: Final = "cvmfs-notify"
"""Must not begin with ``cvmfs/``, by which servers recognize clients that cannot read a standard stream."""
FIRST_DELAY_S: Final = 0.2
LAST_DELAY_S: Final = 30.0
"""Seconds to wait before subscribing again: doubled each time, from the first to the last, until an event arrives."""
SILENT_S: Final = 60.0
"""A server that sends pings counts as gone after this many seconds of silence."""


class Subscriber:
    """A subscription to *repository*, or to ``*``, that reconnects whenever it breaks. *url* ends with ``/api/v1``."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, repository: str, on_state: Callable[[str], None] = log.info
    ) -> None:
        self._session = session
        self._url = url.rstrip("/") + "/notifications/subscribe"
        self._repository = repository
        self._on_state = on_state
        self._last_id = ""
        self._delay = FIRST_DELAY_S

    async def messages(self) -> AsyncGenerator[bytes, None]:
        """Activity messages as they arrive, forever."""
        while True:
            try:
                async for message in self._connection():
                    self._delay = FIRST_DELAY_S
                    yield message
                state = "ended"
            except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
                state = str(error) or type(error).__name__
            self._on_state(f"{self._url}: {state}; again in {self._delay:.1f} s")
            await asyncio.sleep(self._delay)
            self._delay = min(self._delay * 2, LAST_DELAY_S)

    async def _connection(self) -> AsyncGenerator[bytes, None]:
        headers = {"Accept": "text/event-stream", "User-Agent": USER_AGENT, "Cache-Control": "no-cache"}
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        reader = Reader()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30)
        async with self._session.get(
            self._url,
            params={"repository": self._repository},
            data=format_subscription(self._repository),
            headers=headers,
            timeout=timeout,
        ) as response:
            if response.status != 200 or response.content_type != "text/event-stream":
                raise ValueError(f"HTTP {response.status}, {response.content_type}")
            self._on_state(f"{self._url}: subscribed")
            while True:
                async with asyncio.timeout(SILENT_S if reader.sends_pings else None):
                    data = await response.content.readany()
                if not data:
                    return
                for event in reader.feed(data):
                    yield event.data
                    self._last_id = event.id


async def publish(
    session: aiohttp.ClientSession, url: str, activity: Activity, key: tuple[str, bytes] | None = None
) -> None:
    """Publish *activity* to the server at *url*; raises :exc:`NotifyError`."""
    body = activity.serialize()
    headers = {"Authorization": sign(*key, body)} if key is not None else {}
    try:
        async with session.post(f"{url.rstrip('/')}/notifications/publish", data=body, headers=headers) as response:
            reply = await response.json(content_type=None)
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
        raise ServerUnreachable(f"{url}: {error}") from error
    if not isinstance(reply, dict) or reply.get("status") != "ok":
        raise MessageRefused(str(reply.get("reason") if isinstance(reply, dict) else reply))


async def fetch_manifest(session: aiohttp.ClientSession, repository_url: str) -> bytes:
    """The signed manifest of the repository at *repository_url*; raises :exc:`NotifyError`."""
    url = f"{repository_url.rstrip('/')}/.cvmfspublished"
    try:
        async with session.get(url, headers={"Cache-Control": "no-cache"}) as response:
            if response.status != 200:
                raise ServerUnreachable(f"{url}: HTTP {response.status}")
            data = b""
            async for piece in response.content.iter_any():
                data += piece
                if len(data) > MAX_MANIFEST:
                    raise InvalidMessage(f"{url}: over {MAX_MANIFEST} bytes")
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ServerUnreachable(f"{url}: {error}") from error
    return data
