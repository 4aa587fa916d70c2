"""The life of a lease, as one table.

::

    state        event            next         what happens
    ───────────  ───────────────  ───────────  ─────────────────────────────────────────────────────────────────
    FREE         grant            LEASED       nothing that is alive overlaps the path
    LEASED       renew            LEASED       a new expiry
    LEASED       begin_commit     COMMITTING   from here on time does not matter
    LEASED       cancel           CANCELLED    by its owner, or an administrator by path
    LEASED       expire           EXPIRED      its time is up and no upload of its own is running
    COMMITTING   succeed          DONE         the outcome is recorded, the path is free
    COMMITTING   fail             LEASED       nothing was published; the lease can be used again
    COMMITTING   restart          LEASED       the process was killed; the lease is found in the database, and the
                                               commit can be asked again

CANCELLED, EXPIRED and DONE end the lease: its token is unknown from then on, but for a commit that is asked again with
the hashes of one that is DONE, which gets the recorded outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final


class State(Enum):
    """Where a lease is in its life."""

    FREE = auto()
    LEASED = auto()
    COMMITTING = auto()
    DONE = auto()
    EXPIRED = auto()
    CANCELLED = auto()


class Event(Enum):
    """What happens to a lease."""

    GRANT = auto()
    RENEW = auto()
    BEGIN_COMMIT = auto()
    CANCEL = auto()
    EXPIRE = auto()
    SUCCEED = auto()
    FAIL = auto()
    RESTART = auto()


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (State.FREE, Event.GRANT): State.LEASED,
    (State.LEASED, Event.RENEW): State.LEASED,
    (State.LEASED, Event.BEGIN_COMMIT): State.COMMITTING,
    (State.LEASED, Event.CANCEL): State.CANCELLED,
    (State.LEASED, Event.EXPIRE): State.EXPIRED,
    (State.COMMITTING, Event.SUCCEED): State.DONE,
    (State.COMMITTING, Event.FAIL): State.LEASED,
    (State.COMMITTING, Event.RESTART): State.LEASED,
}
ENDED: Final = frozenset({State.DONE, State.EXPIRED, State.CANCELLED})
