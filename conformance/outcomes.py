"""How a case can end.

::

    function returns         pass            the requirement is met
    function raises Deviates deviates        another behaviour, which the case itself knows and says why it is sound
    NotApplicable            not applicable  this target (or the way it was described) has nothing to try this on
    anything else            fail            with the exception as evidence
"""

from __future__ import annotations


class Failed(AssertionError):
    """The requirement is not met; the text is the evidence."""


class Deviates(Exception):
    """Not what the reference does, but sound; the text is the reason."""


class NotApplicable(Exception):
    """There is nothing to try this on; the text says why."""


def expect(condition: object, evidence: str) -> None:
    """Fail with *evidence* unless *condition* holds."""
    if not condition:
        raise Failed(evidence)


def equal(found: object, wanted: object, what: str) -> None:
    """Fail unless both are the same."""
    if found != wanted:
        raise Failed(f"{what}: {found!r} instead of {wanted!r}")
