"""Activity messages and subscriptions: the JSON on the wire.

::

    {"version":1,"timestamp":"...","type":"activity","repository":"<fqrn>","manifest":"<base64 of .cvmfspublished>"}
    {"version":1,"repository":"<fqrn>"}

A message is serialized again, without white space, before it is passed on: as long as it fits into one TCP segment, a
deployed client cannot receive half of it. That client treats its receive buffer as a C string, so after a short read it
would also see the rest of an earlier, longer one.

Source: the messages of ``cvmfs_swissknife notify``. Unknown fields are ignored.
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
"""The longest message accepted, in bytes."""
MAX_MANIFEST: Final = 10 << 10
"""The largest signed manifest accepted, in bytes; a typical one has 700. As base64 within a message, this stays below
the 16 KiB that a deployed client's HTTP library delivers at once."""
MAX_NAME: Final = 255
"""The longest name of a repository, in characters."""
MAX_TIMESTAMP: Final = 64
MAX_TOPICS: Final = 1000
"""How many repositories one subscription may name."""
EVERYTHING: Final = "*"
"""The name by which a subscriber asks for every repository."""

# fqrn = label *("." label); no slash and no leading dot or hyphen, so a name is also safe as a file name
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
    """A new revision of *repository*: *manifest* is the whole signed ``.cvmfspublished``."""

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
        # the reference accepts any JSON here, its clients only a string
        timestamp = message.timestamp if isinstance(message.timestamp, str) else ""
        return cls(message.repository, manifest, timestamp[:MAX_TIMESTAMP])

    def serialize(self) -> bytes:
        """The message as one line of ASCII."""
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
    """The body of a subscription request."""
    return json.dumps({"version": 1, "repository": repository}, separators=(",", ":")).encode("ascii")


def topics(names: Iterable[str]) -> frozenset[str] | None:
    """The set of *names*, or None for all repositories; raises :exc:`InvalidSubscription`."""
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
    """Whether *name* is a valid repository name."""
    return len(name) <= MAX_NAME and _FQRN.fullmatch(name) is not None


def format_timestamp(now: datetime) -> str:
    """*now* in the form of the reference's messages: ``2026-11-20T09:30:00.000Z``."""
    return now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def printable(text: str) -> str:
    """*text* with lone surrogates replaced, so that it can be encoded."""
    return text.encode("utf-8", "replace").decode()
