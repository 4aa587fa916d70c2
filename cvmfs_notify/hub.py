"""The hub: broker, store, trust and streams put together, in one event loop.

::

    publish ──▶ parse ──▶ check (thread) ──▶ broker ──▶ slots ──▶ streams, in time slices of a few milliseconds
                                               └──────▶ store (thread), then the publisher is answered

The answer to the publisher does not wait for subscribers, and sending to thousands of subscribers yields to the event
loop regularly, so that it does not delay leases and payloads.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from cvmfs_notify.broker import Broker, Event, Publication, Subscription
from cvmfs_notify.errors import NotifyError, OlderRevision, SubscriberRefused, TooManyRepositories
from cvmfs_notify.messages import Activity, format_timestamp
from cvmfs_notify.sse import Dialect, chunk, frame, parse_event_id
from cvmfs_notify.store import EventStore
from cvmfs_notify.stream import GAP_S, PING_S, EventStream
from cvmfs_notify.trust import NothingKnown, TrustSource, check

log = logging.getLogger(__name__)

SLICE_S: Final = 0.003
"""For how long sending may block the event loop, in seconds."""
MANY: Final = 200
HEAD_START_S: Final = 0.005
"""Sending to more than *MANY* subscribers starts after this many seconds, so that the publisher is answered first."""
MAX_SUBSCRIBERS: Final = 100_000
_FRAMES_KEPT: Final = 64


def now_utc() -> datetime:
    return datetime.now(UTC)


class NotificationHub:
    """Notifications of one server. Call all methods in one event loop. Owns *store* and closes it."""

    def __init__(
        self,
        store: EventStore | None = None,
        source: TrustSource | None = None,
        *,
        gap_s: float = GAP_S,
        ping_s: float = PING_S,
        max_subscribers: int = MAX_SUBSCRIBERS,
        clock: Callable[[], datetime] = now_utc,
    ) -> None:
        self._store = store or EventStore(None)
        self._source = source or NothingKnown()
        self.broker = Broker(self._store.load(), self._store.epoch)
        self._gap_s = gap_s
        self._ping_s = ping_s
        self._max_subscribers = max_subscribers
        self._clock = clock
        self._streams: set[EventStream] = set()
        self._listeners: set[asyncio.Event] = set()
        self._ready: deque[EventStream] = deque()
        self._pumping = False
        self._stopping = False
        self._own: set[str] = set()
        """The repositories of this server."""
        self._frames: dict[tuple[int, Dialect, bool], bytes] = {}
        self._threads = ThreadPoolExecutor(2, "notify")
        self._writer = ThreadPoolExecutor(1, "notify-store")

    @property
    def subscribers(self) -> int:
        """The number of open streams and listeners."""
        return len(self._streams) + len(self._listeners)

    @property
    def stopping(self) -> bool:
        return self._stopping

    # --- publishing ----------------------------------------------------------------------------------------------

    async def publish(self, data: bytes) -> Event | None:
        """Publish an activity message; returns None if its revision was published before.

        Raises :exc:`InvalidMessage` and :exc:`MessageRefused`.
        """
        return await self._publish(Activity.parse(data))

    async def announce(self, fqrn: str, manifest: bytes) -> Event | None:
        """Publish the signed *manifest* of a repository of this server; raises as :meth:`publish` does.

        An older revision is accepted if its time of publication is later: the repository was recreated.
        """
        return await self._publish(Activity(fqrn, manifest, format_timestamp(self._clock())), own=True)

    async def _publish(self, activity: Activity, *, own: bool = False) -> Event | None:
        loop = asyncio.get_running_loop()
        publication = await loop.run_in_executor(self._threads, check, activity, self._source, self._clock())
        if own:
            self._own.add(activity.repository)
            await self._forget_forged(activity, publication)
        try:
            event = self.broker.publish(publication)
        except TooManyRepositories:
            if not own:
                raise
            self.broker.make_room(self._own)
            event = self.broker.publish(publication)
        except OlderRevision:
            known = self.broker.newest(publication.fqrn)
            if not own or known is None or publication.published <= known.publication.published:
                raise
            log.warning("%s starts again at revision %d", publication.fqrn, publication.revision)
            self.broker.forget(publication.fqrn)
            event = self.broker.publish(publication)
        if event is not None:
            log.info("%s: revision %d, %d subscribers", event.fqrn, event.revision, self.subscribers)
            await loop.run_in_executor(self._writer, self._save, event)
        return event

    async def _forget_forged(self, activity: Activity, publication: Publication) -> None:
        """Forget what is in the way of this server's own *publication*, unless it can be verified.

        Before a repository is here its keys are unknown, and anybody can say of it what they like.
        """
        known = self.broker.newest(publication.fqrn)
        if known is None or known.revision < publication.revision:
            return
        try:
            told = Activity.parse(known.publication.message)
            if told.manifest != activity.manifest:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._threads, check, told, self._source, self._clock())
        except NotifyError as error:
            log.warning("%s: revision %d was not its own: %s", known.fqrn, known.revision, error)
            self.broker.forget(known.fqrn)

    def _save(self, event: Event) -> None:
        try:
            self._store.save([event])
        except Exception:
            # current subscribers have it; those that subscribe after a restart will have to wait for the next one
            log.exception("cannot record revision %d of %s", event.revision, event.fqrn)

    # --- subscribing ---------------------------------------------------------------------------------------------

    def open_stream(
        self,
        transport: asyncio.Transport,
        topics: frozenset[str] | None,
        dialect: Dialect,
        *,
        chunked: bool = True,
        last_event_id: str | None = None,
    ) -> EventStream:
        """Answer a subscription on *transport*, which the stream now owns; raises :exc:`SubscriberRefused`."""
        self.admit()
        after = None if dialect is Dialect.STRICT else parse_event_id(last_event_id, self.broker.epoch)
        opened: EventStream

        def wake() -> None:
            self._ready.append(opened)
            self._schedule()

        subscription = self.broker.subscribe(topics, wake, after)
        opened = EventStream(
            transport,
            subscription,
            dialect,
            self._encode,
            self._gone,
            chunked=chunked,
            gap_s=self._gap_s,
            ping_s=self._ping_s,
        )
        self._streams.add(opened)
        opened.start()
        return opened

    @asynccontextmanager
    async def listen(
        self, topics: frozenset[str] | None, *, last_event_id: str | None = None
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Events as they are published, newest wins, until the hub stops; raises :exc:`SubscriberRefused`.

        ::

            async with hub.listen(None) as events:
                async for event in events: ...
        """
        self.admit()
        woken = asyncio.Event()
        self._listeners.add(woken)
        subscription = self.broker.subscribe(topics, woken.set, parse_event_id(last_event_id, self.broker.epoch))
        try:
            async with aclosing(self._events(subscription, woken)) as events:
                yield events
        finally:
            self.broker.unsubscribe(subscription)
            self._listeners.discard(woken)

    async def _events(self, subscription: Subscription, woken: asyncio.Event) -> AsyncGenerator[Event, None]:
        while not self._stopping:
            woken.clear()
            while not self._stopping and (event := subscription.take()) is not None:
                yield event
            if not self._stopping:
                await woken.wait()

    def admit(self) -> None:
        """Raises :exc:`SubscriberRefused` if no more subscribers are accepted."""
        if self._stopping:
            raise SubscriberRefused("the server stops")
        if self.subscribers >= self._max_subscribers:
            raise SubscriberRefused(f"there are {self._max_subscribers}")

    # --- stopping ------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Break every stream, admit no new ones, and let the listeners finish. Publishing is still possible."""
        self._stopping = True
        for stream in list(self._streams):
            stream.cut()
        for woken in self._listeners:
            woken.set()

    async def close(self) -> None:
        """Break all streams, finish writing to the store, and close it."""
        self.cut()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._threads.shutdown()
        self._writer.shutdown()
        self._store.close()

    # --- inside --------------------------------------------------------------------------------------------------

    def _gone(self, stream: EventStream) -> None:
        self.broker.unsubscribe(stream.subscription)
        self._streams.discard(stream)

    def _schedule(self) -> None:
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        if len(self._ready) > MANY:
            asyncio.get_running_loop().call_later(HEAD_START_S, self._pump)
        else:
            self._pump()

    def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + SLICE_S
        while self._ready:
            stream = self._ready.popleft()
            try:
                stream.flush()
            except Exception:
                log.exception("a subscriber cannot be written to")
                stream.cut()
            if loop.time() >= end:
                loop.call_soon(self._pump)
                return
        self._pumping = False

    def _encode(self, event: Event, dialect: Dialect, chunked: bool) -> bytes:
        """The event's bytes on the wire, cached, as many subscribers receive the same."""
        key = (event.number, dialect, chunked)
        data = self._frames.get(key)
        if data is None:
            data = frame(event, dialect, self.broker.epoch)
            if chunked:
                data = chunk(data)
            if len(self._frames) >= _FRAMES_KEPT:
                self._frames.pop(next(iter(self._frames)))
            self._frames[key] = data
        return data
