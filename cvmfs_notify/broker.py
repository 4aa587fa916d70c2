"""The broker: per repository the newest revision, per subscriber and repository one slot. No I/O, no clock.

::

    publish(event) ── newer? ──▶ newest[fqrn] = event ──▶ slot of each subscriber = event ──▶ wake, if it was empty
    take()         ── what is in the slots, in the order of publication, each at most once

A subscriber receives ever newer revisions of each repository, and always the last one; it skips revisions that were
superseded while it was busy. Nobody waits for anybody: slots are overwritten and never become full.

Events are numbered across all repositories. The number together with the broker's *epoch* is the event id that a
returning subscriber presents to receive only what is newer.

Divergence: the reference queues up to 1,000 messages for each subscriber and then blocks everybody; it compares
messages as text, so a late publisher takes every subscriber back to an older revision.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Final

from cvmfs_notify.errors import OlderRevision, TooManyRepositories

MAX_REPOSITORIES: Final = 10_000
"""How many repositories a broker remembers. Limited, as anybody may publish messages of made-up repositories."""


@dataclass(frozen=True, slots=True)
class Publication:
    """A published revision: *message* is the activity message as it is sent; *published* is in Unix seconds."""

    fqrn: str
    revision: int
    published: int
    message: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """A numbered publication that is the newest of its repository."""

    number: int
    publication: Publication

    @property
    def fqrn(self) -> str:
        return self.publication.fqrn

    @property
    def revision(self) -> int:
        return self.publication.revision


class Subscription:
    """One subscriber's slots. *topics* None means every repository."""

    __slots__ = ("_slots", "_wake", "topics")

    def __init__(self, topics: frozenset[str] | None, wake: Callable[[], None]) -> None:
        self.topics = topics
        self._wake = wake
        self._slots: dict[str, Event] = {}

    @property
    def pending(self) -> bool:
        return bool(self._slots)

    def take(self) -> Event | None:
        """Remove and return the event with the lowest number; None if all slots are empty."""
        if not self._slots:
            return None
        return self._slots.pop(next(iter(self._slots)))

    def _put(self, event: Event) -> None:
        was_empty = not self._slots
        # An overwritten slot moves to the end: events are taken in the order of their numbers, so a subscriber that
        # returns with the last number it received has missed nothing before that.
        self._slots.pop(event.fqrn, None)
        self._slots[event.fqrn] = event
        if was_empty:
            self._wake()


class Broker:
    """All repositories and all subscribers of one server.

    *newest* are the events known to an earlier process, *epoch* identifies the sequence of their numbers.
    """

    def __init__(self, newest: Iterable[Event] = (), epoch: str = "", limit: int = MAX_REPOSITORIES) -> None:
        self.epoch = epoch
        self._limit = limit
        self._newest = {event.fqrn: event for event in newest}
        self._number = max((event.number for event in self._newest.values()), default=0)
        self._by_topic: dict[str, dict[Subscription, None]] = {}
        self._to_all: dict[Subscription, None] = {}

    def newest(self, fqrn: str) -> Event | None:
        return self._newest.get(fqrn)

    @property
    def last_number(self) -> int:
        """The number of the last event."""
        return self._number

    def publish(self, publication: Publication) -> Event | None:
        """Put *publication* into the subscribers' slots; returns the event, or None if the revision was known already.

        Raises :exc:`OlderRevision` and :exc:`TooManyRepositories`.

        Source: ``notify -p`` may repeat what the gateway has already announced itself; that must not fail.
        """
        fqrn = publication.fqrn
        known = self._newest.get(fqrn)
        if known is None and len(self._newest) >= self._limit:
            raise TooManyRepositories(f"{self._limit} are known")
        if known is not None and publication.revision <= known.revision:
            if publication.revision == known.revision:
                return None
            raise OlderRevision(f"revision {publication.revision}, but {known.revision} is known")
        self._number += 1
        event = Event(self._number, publication)
        self._newest[fqrn] = event
        for subscription in self._by_topic.get(fqrn, ()):
            subscription._put(event)
        for subscription in self._to_all:
            subscription._put(event)
        return event

    def forget(self, fqrn: str) -> None:
        """Forget the repository, so that it may start again from any revision: it was recreated."""
        self._newest.pop(fqrn, None)

    def make_room(self, keep: Container[str]) -> None:
        """Forget the repository that has been told of least recently, but for those to *keep*."""
        oldest = min(
            (event for fqrn, event in self._newest.items() if fqrn not in keep),
            key=lambda event: event.number,
            default=None,
        )
        if oldest is not None:
            self.forget(oldest.fqrn)

    def subscribe(
        self, topics: frozenset[str] | None, wake: Callable[[], None], after: int | None = None
    ) -> Subscription:
        """Add a subscriber. Its slots hold the newest event of each repository, or only events *after* that number.

        *wake* is called by :meth:`publish` whenever it fills the first slot, but never by this method.
        """
        subscription = Subscription(topics, wake)
        if topics is None:
            known = list(self._newest.values())
            self._to_all[subscription] = None
        else:
            known = [self._newest[fqrn] for fqrn in topics if fqrn in self._newest]
            for fqrn in topics:
                self._by_topic.setdefault(fqrn, {})[subscription] = None
        known.sort(key=lambda event: event.number)
        # a number not yet assigned is from another sequence: ignore it
        seen = after if after is not None and after <= self._number else 0
        subscription._slots.update({event.fqrn: event for event in known if event.number > seen})
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a subscriber and empty its slots. Idempotent."""
        subscription._slots.clear()
        if subscription.topics is None:
            self._to_all.pop(subscription, None)
            return
        for fqrn in subscription.topics:
            subscribers = self._by_topic.get(fqrn)
            if subscribers is not None:
                subscribers.pop(subscription, None)
                if not subscribers:
                    del self._by_topic[fqrn]
