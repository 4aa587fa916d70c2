"""The broker against the least that can be said of it."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from cvmfs_notify.broker import Broker, Event, Subscription
from cvmfs_notify.errors import OlderRevision
from tests.notify.support import publication

REPOSITORIES = ("a", "b", "c")


class Listener:
    """A subscriber, and everything that it was given."""

    def __init__(self, topics: frozenset[str] | None) -> None:
        self.topics = topics
        self.subscription: Subscription
        self.woken = False
        self.heard: dict[str, list[int]] = {}
        self.numbers: list[int] = []

    def hear(self, event: Event) -> None:
        self.heard.setdefault(event.fqrn, []).append(event.revision)
        self.numbers.append(event.number)

    def wake(self) -> None:
        assert not self.woken, "woken twice without anything taken"
        self.woken = True

    def drain(self) -> None:
        self.woken = False
        while (event := self.subscription.take()) is not None:
            self.hear(event)


class BrokerModel(RuleBasedStateMachine):
    listeners: Bundle[Listener] = Bundle("listeners")

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker()
        self.newest: dict[str, int] = {}
        self.last: dict[str, Event] = {}
        self.alive: list[Listener] = []

    @rule(target=listeners, topics=st.none() | st.frozensets(st.sampled_from(REPOSITORIES), min_size=1))
    def subscribe(self, topics: frozenset[str] | None) -> Listener:
        listener = Listener(topics)
        listener.subscription = self.broker.subscribe(topics, listener.wake)
        self.alive.append(listener)
        return listener

    @rule(fqrn=st.sampled_from(REPOSITORIES), revision=st.integers(1, 12))
    def publish(self, fqrn: str, revision: int) -> None:
        known = self.newest.get(fqrn, 0)
        try:
            event = self.broker.publish(publication(revision, fqrn))
        except OlderRevision:
            assert revision < known
            return
        assert (event is None) == (revision == known)
        assert revision >= known
        self.newest[fqrn] = revision
        if event is not None:
            self.last[fqrn] = event

    @rule(listener=listeners)
    def drain(self, listener: Listener) -> None:
        if listener not in self.alive:
            return
        listener.drain()
        # the last one always, of each repository that it asked for
        for fqrn, revision in self.newest.items():
            if listener.topics is None or fqrn in listener.topics:
                assert listener.heard[fqrn][-1] == revision
        assert set(listener.heard) <= (listener.topics or set(REPOSITORIES))

    @rule(listener=listeners)
    def take_one(self, listener: Listener) -> None:
        event = listener.subscription.take()
        if not listener.subscription.pending:
            listener.woken = False
        if event is not None:
            listener.hear(event)

    @rule(listener=consumes(listeners))
    def unsubscribe(self, listener: Listener) -> None:
        self.broker.unsubscribe(listener.subscription)
        self.alive.remove(listener)

    @rule(after=st.integers(0, 30))
    def come_back(self, after: int) -> None:
        subscription = self.broker.subscribe(None, lambda: None, after)
        heard = set()
        while (event := subscription.take()) is not None:
            heard.add(event)
        self.broker.unsubscribe(subscription)
        seen = after if after <= self.broker.last_number else 0
        assert heard == {event for event in self.last.values() if event.number > seen}

    @rule()
    def restart(self) -> None:
        """A new process knows the newest, and nobody is subscribed."""
        self.broker = Broker(self.last.values())
        for listener in self.alive:
            listener.woken = False
            listener.heard.clear()
            listener.numbers.clear()
            listener.subscription = self.broker.subscribe(listener.topics, listener.wake)

    @invariant()
    def never_back_and_never_twice(self) -> None:
        for listener in self.alive:
            for revisions in listener.heard.values():
                assert revisions == sorted(set(revisions))
            # so that the last number says what a subscriber has had
            assert listener.numbers == sorted(listener.numbers)

    @invariant()
    def slots_are_bounded(self) -> None:
        for listener in self.alive:
            assert len(listener.subscription._slots) <= len(REPOSITORIES)


TestBroker = BrokerModel.TestCase
TestBroker.settings = settings(deadline=None, max_examples=200, stateful_step_count=40)
