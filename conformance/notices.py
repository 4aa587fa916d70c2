"""What cases about notifications have in common: publishing news, and hearing of it."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime
from typing import Final

from conformance.outcomes import Failed
from conformance.probe import Probe, accepted
from conformance.stream import Notifications, Subscription, activity

WAIT_S: Final = 5.0
"""How long a message may take."""
QUIET_S: Final = 0.3
"""What has not come after so long does not come."""
OTHER: Final = "other-of-the-suite.example.org"
"""A repository that nobody has."""


def server(probe: Probe) -> Notifications:
    return Notifications(probe.target.notify or probe.target.gateway, probe.target.timeout)


def message(probe: Probe) -> bytes:
    """A message that tells of the present revision; no two are the same."""
    return activity(probe.fqrn, probe.repository.read(".cvmfspublished"), datetime.now(UTC).isoformat())


def news(probe: Probe) -> bytes:
    """A message that tells of a revision that nobody was told of."""
    top = probe.path()
    probe.publish(top, lambda tree: tree.make_directories(top))
    return message(probe)


def tell(probe: Probe, text: bytes) -> None:
    accepted(server(probe).publish(text), "publish")


def listen(probe: Probe, fqrn: str | None = None) -> Subscription:
    """A subscriber that has heard all there was before."""
    subscription = server(probe).subscribe(fqrn or probe.fqrn)
    subscription.drain(QUIET_S)
    if subscription.ended:
        subscription.close()
        raise Failed(f"the subscription ended at once: HTTP {subscription.status}, {subscription.ended}")
    return subscription


def hear(subscription: Subscription, manifest: bytes) -> None:
    """Wait for the message that holds *manifest*."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        found = subscription.message(WAIT_S)
        if base64.b64decode(found.get("manifest", "")) == manifest:
            return
    raise Failed("the message did not come")
