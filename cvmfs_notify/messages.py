"""Activity messages and subscriptions: JSON, as it is on the wire.

::

    {"version":1,"timestamp":"...","type":"activity","repository":"<fqrn>","manifest":"<base64 of .cvmfspublished>"}
    {"version":1,"repository":"<fqrn>"}

A message is written anew before it is passed on, without white space: as long as it fits into one TCP segment, a
deployed client cannot be given half of it. That client takes what one socket read brings up to the first NUL, and
what an earlier, longer read has left behind in its buffer with it.

Source: the messages of ``cvmfs_swissknife notify``; fields that are unknown are passed over.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from cvmfs_notify.errors import InvalidMessage, InvalidSubscription

MAX_MESSAGE: Final = 64 << 10
"""Longest message that is read, in bytes."""
MAX_MANIFEST: Final = 10 << 10
"""Largest signed manifest, in bytes: in base64 and with what stands around it, it stays below the 16 KiB that a
deployed client's HTTP library hands on at once. A usual one has 700."""
MAX_NAME: Final = 255
"""Longest name of a repository, in characters."""
MAX_TIMESTAMP: Final = 64
MAX_TOPICS: Final = 1000
"""How many repositories one subscription may name."""
EVERYTHING: Final = "*"
"""What a subscriber names to hear of every repository."""

# fqrn = label *("." label); no slash and no leading dot or hyphen, so a name is also safe as that of a file
_FQRN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")


class _ActivityJson(msgspec.Struct, frozen=True):
    repository: str
    manifest: str
    version: int = 1
    type: str = "activity"
    timestamp: Any = ""


class _SubscriptionJson(msgspec.Struct, frozen=True):
    repository: str
    version: int = 1


@dataclass(frozen=True, slots=True)
class Activity:
    """Something was published: *manifest* is the whole signed ``.cvmfspublished`` of *repository*."""

    repository: str
    manifest: bytes
    timestamp: str = ""

    @classmethod
    def parse(cls, data: bytes) -> Activity:
        """Read a message; raises :exc:`InvalidMessage`."""
        if len(data) > MAX_MESSAGE:
            raise InvalidMessage(f"over {MAX_MESSAGE} bytes")
        try:
            message = msgspec.json.decode(data, type=_ActivityJson)
            manifest = base64.b64decode(message.manifest, validate=True)
        except (msgspec.MsgspecError, binascii.Error, ValueError, RecursionError) as error:
            raise InvalidMessage(printable(str(error))) from None
        if message.version != 1 or message.type != "activity":
            raise InvalidMessage("not an activity message of version 1")
        if not is_fqrn(message.repository):
            raise InvalidMessage("not a repository's name")
        if not manifest:
            raise InvalidMessage("no manifest")
        if len(manifest) > MAX_MANIFEST:
            raise InvalidMessage(f"a manifest of over {MAX_MANIFEST} bytes")
        # the reference takes any JSON here, its clients a text only
        timestamp = message.timestamp if isinstance(message.timestamp, str) else ""
        return cls(message.repository, manifest, timestamp[:MAX_TIMESTAMP])

    def serialize(self) -> bytes:
        """One line of ASCII."""
        fields = {
            "version": 1,
            "timestamp": self.timestamp,
            "type": "activity",
            "repository": self.repository,
            "manifest": base64.b64encode(self.manifest).decode("ascii"),
        }
        return json.dumps(fields, separators=(",", ":")).encode("ascii")


def parse_subscription(data: bytes) -> str:
    """The repository that a subscription's JSON names, or :data:`EVERYTHING`; raises :exc:`InvalidSubscription`."""
    try:
        wanted = msgspec.json.decode(data, type=_SubscriptionJson)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidSubscription(printable(str(error))) from None
    topics([wanted.repository])
    return wanted.repository


def format_subscription(repository: str) -> bytes:
    """What a subscriber sends."""
    return json.dumps({"version": 1, "repository": repository}, separators=(",", ":")).encode("ascii")


def topics(names: Iterable[str]) -> frozenset[str] | None:
    """The repositories that are named, None if that is all of them; raises :exc:`InvalidSubscription`."""
    wanted = frozenset(names)
    if EVERYTHING in wanted:
        return None
    if not wanted:
        raise InvalidSubscription("no repository is named")
    if len(wanted) > MAX_TOPICS:
        raise InvalidSubscription(f"more than {MAX_TOPICS} repositories")
    if not all(is_fqrn(name) for name in wanted):
        raise InvalidSubscription("not a repository's name")
    return wanted


def is_fqrn(name: str) -> bool:
    """Whether *name* could be that of a repository."""
    return len(name) <= MAX_NAME and _FQRN.fullmatch(name) is not None


def format_timestamp(now: datetime) -> str:
    """*now* as in the messages of the reference's publisher: ``2026-11-20T09:30:00.000Z``."""
    return now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def printable(text: str) -> str:
    """*text* such that every encoder takes it."""
    return text.encode("utf-8", "replace").decode()
