from __future__ import annotations

import pytest

from cvmfs_notify.broker import Broker, Event, Subscription
from cvmfs_notify.errors import OlderRevision, TooManyRepositories
from tests.notify.support import FQRN, OTHER, publication


def taken(subscription: Subscription) -> list[tuple[str, int]]:
    result = []
    while (event := subscription.take()) is not None:
        result.append((event.fqrn, event.revision))
    return result


def ignore() -> None:
    pass


def test_newest_wins() -> None:
    broker = Broker()
    slow = broker.subscribe(frozenset({FQRN}), ignore)
    for revision in (1, 2, 3):
        broker.publish(publication(revision))
    assert taken(slow) == [(FQRN, 3)]
    broker.publish(publication(4))
    assert taken(slow) == [(FQRN, 4)]
    assert not slow.pending


def test_a_new_subscriber_gets_the_newest_and_wakes_nobody_else() -> None:
    broker = Broker()
    broker.publish(publication(7))
    woken: list[str] = []
    first = broker.subscribe(frozenset({FQRN}), lambda: woken.append("first"))
    assert taken(first) == [(FQRN, 7)]
    second = broker.subscribe(frozenset({FQRN}), lambda: woken.append("second"))
    assert taken(first) == []
    assert taken(second) == [(FQRN, 7)]
    assert woken == []


def test_older_and_same() -> None:
    broker = Broker()
    broker.publish(publication(5))
    subscription = broker.subscribe(None, ignore)
    taken(subscription)
    assert broker.publish(publication(5)) is None
    with pytest.raises(OlderRevision, match="revision 4, but 5 is known"):
        broker.publish(publication(4))
    assert taken(subscription) == []
    assert broker.newest(FQRN) == Event(1, publication(5))


def test_wake_only_when_the_first_slot_fills() -> None:
    broker = Broker()
    woken: list[int] = []
    subscription = broker.subscribe(None, lambda: woken.append(1))
    broker.publish(publication(1))
    broker.publish(publication(2))
    broker.publish(publication(1, OTHER))
    assert len(woken) == 1
    assert taken(subscription) == [(FQRN, 2), (OTHER, 1)]
    broker.publish(publication(3))
    assert len(woken) == 2


def test_events_leave_in_the_order_of_their_numbers() -> None:
    broker = Broker()
    subscription = broker.subscribe(None, ignore)
    broker.publish(publication(1, OTHER))
    for revision in range(1, 5):
        broker.publish(publication(revision))
    broker.publish(publication(2, OTHER))
    assert taken(subscription) == [(FQRN, 4), (OTHER, 2)]
    assert taken(broker.subscribe(frozenset({OTHER, FQRN}), ignore)) == [(FQRN, 4), (OTHER, 2)]


def test_topics() -> None:
    broker = Broker()
    one = broker.subscribe(frozenset({FQRN}), ignore)
    two = broker.subscribe(frozenset({FQRN, OTHER}), ignore)
    broker.publish(publication(1, OTHER))
    broker.publish(publication(1, "third.example.org"))
    assert taken(one) == []
    assert taken(two) == [(OTHER, 1)]
    assert taken(broker.subscribe(None, ignore)) == [(OTHER, 1), ("third.example.org", 1)]


def test_coming_back() -> None:
    broker = Broker()
    for fqrn in ("a", "b", "c"):
        broker.publish(publication(1, fqrn))
    broker.publish(publication(2, "a"))
    assert taken(broker.subscribe(None, ignore, after=3)) == [("a", 2)]
    assert taken(broker.subscribe(frozenset({"a", "b"}), ignore, after=4)) == []
    assert taken(broker.subscribe(None, ignore, after=0)) == [("b", 1), ("c", 1), ("a", 2)]
    # a number that was never given says nothing
    assert len(taken(broker.subscribe(None, ignore, after=5))) == 3


def test_an_unsubscribed_one_hears_nothing() -> None:
    broker = Broker()
    for topics in (None, frozenset({FQRN})):
        subscription = broker.subscribe(topics, ignore)
        broker.unsubscribe(subscription)
        broker.unsubscribe(subscription)
        broker.publish(publication(broker.last_number + 1))
        assert not subscription.pending
    assert not broker._by_topic


def test_what_an_earlier_process_knew() -> None:
    broker = Broker([Event(8, publication(3)), Event(5, publication(9, OTHER))], "epoch")
    assert (broker.epoch, broker.last_number) == ("epoch", 8)
    assert taken(broker.subscribe(None, ignore)) == [(OTHER, 9), (FQRN, 3)]
    event = broker.publish(publication(4))
    assert event is not None
    assert event.number == 9


def test_limit() -> None:
    broker = Broker(limit=1)
    broker.publish(publication(1))
    broker.publish(publication(2))
    with pytest.raises(TooManyRepositories):
        broker.publish(publication(1, OTHER))


def test_begin_again() -> None:
    broker = Broker()
    broker.publish(publication(100))
    subscription = broker.subscribe(None, ignore, after=1)
    broker.forget(FQRN)
    broker.publish(publication(1))
    assert taken(subscription) == [(FQRN, 1)]
