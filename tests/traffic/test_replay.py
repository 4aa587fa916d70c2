"""Recorded publishers against this gateway: the same requests get the same replies and make the same repository.

The sessions were recorded by :mod:`tests.traffic.record`; no CernVM-FS program is needed here. The conformance suite
replays them, too, on any gateway. What is here beyond that: each commit is asked twice, all that lies in the storage is
looked at with this product's own strict readers, and all is played on a later revision as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from conformance.gateway import Gateway
from conformance.machines.snapshot import Tree, differences, subtree
from conformance.probe import Probe
from conformance.replay import Player
from conformance.repository import Repository
from conformance.servers import own
from conformance.session import SHIPPED, Exchange, Session
from conformance.target import Target
from conformance.wire import Key, Reply
from tests.traffic.repository import StoredRepository

_PATHS: Final = sorted(SHIPPED.glob("*.zip"))
_EACH: Final = pytest.mark.parametrize("path", _PATHS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    """The repositories as they were when the recordings began."""
    with own(SHIPPED) as found:
        yield found


@pytest.fixture(scope="module")
def later() -> Iterator[Target]:
    """The same, for each to be published to by somebody else first."""
    with own(SHIPPED) as found:
        yield found


class Insistent(Player):
    """A publisher to whom the first reply to each commit is lost: it asks again and gets it again."""

    def send(self, exchange: Exchange, route: str, text: bytes) -> Reply:
        reply = super().send(exchange, route, text)
        if "final_revision" in reply.json:
            assert super().send(exchange, route, text).json == reply.json
        return reply


def _key(session: Session) -> Key:
    assert session.key is not None
    return session.key


def _stored(target: Target, session: Session) -> StoredRepository:
    assert target.store is not None
    return StoredRepository(target.store.parents[2], session.fqrn)


def _replay(target: Target, session: Session, ahead: int) -> None:
    gateway, repository = Gateway(target.gateway, _key(session)), Repository(target.stratum0, session.fqrn)
    Insistent(gateway, session, _key(session), repository).play(ahead)


def _check(target: Target, session: Session, expected: Tree, ahead: int) -> None:
    repository = _stored(target, session)
    assert repository.manifest.revision == session.revision + ahead
    assert repository.nested == set(session.catalogs)
    wrong = differences(expected, repository.tree)
    assert not wrong, "\n".join(wrong)


@_EACH
def test_replay(target: Target, path: Path) -> None:
    """On the very revision that the publishers worked on."""
    session = Session.load(path)
    _replay(target, session, 0)
    _check(target, session, session.tree, 0)


@_EACH
def test_replay_on_a_later_revision(later: Target, path: Path) -> None:
    """After somebody else's commit, of which the publishers knew nothing: all that they send has to be merged."""
    session = Session.load(path)
    other = next(Probe.sequence(replace(later, fqrn=session.fqrn, key=_key(session))))
    other.publish("/elsewhere", lambda tree: tree.fill("/elsewhere", 3))
    others = subtree(_stored(later, session).tree, "elsewhere")
    assert others
    _replay(later, session, 1)
    _check(later, session, session.tree | others, 1)


def test_there_is_something_to_replay() -> None:
    sessions = [Session.load(path) for path in _PATHS]
    assert len(sessions) >= 10
    assert sum(path.stat().st_size for path in _PATHS) < 3_000_000
    requests = {(exchange.method, exchange.path.partition("<")[0]) for s in sessions for exchange in s.exchanges}
    assert {("POST", "/api/v1/leases"), ("POST", "/api/v1/leases/"), ("DELETE", "/api/v1/leases/")} <= requests
    assert any(exchange.reply["status"] == "path_busy" for s in sessions for exchange in s.exchanges)


@_EACH
def test_a_recording_survives_being_saved(path: Path, tmp_path: Path) -> None:
    session = Session.load(path)
    session.save(tmp_path / "again.zip")
    assert Session.load(tmp_path / "again.zip") == session
