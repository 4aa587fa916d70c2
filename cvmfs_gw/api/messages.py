"""The JSON of requests and replies.

Requests are validated: a field of the wrong type is refused, an unknown one is ignored. Paths and names are bytes on
the publisher's disk, which it writes into the JSON as they are; so a body that is not UTF-8 is read with surrogate
escapes. Replies are always valid UTF-8, with replacement characters where necessary.

Source: publishers send ``api_version`` and ``header_size`` as strings; numbers are accepted as well.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from cvmfs_gw.gateway.committer import CommitBody
from cvmfs_gw.gateway.errors import InvalidBody
from cvmfs_gw.gateway.protocol import MAX_ASKED
from cvmfs_objstore.errors import InvalidHash
from cvmfs_objstore.hashes import ContentHash, Suffix


class NewLeaseRequest(msgspec.Struct, frozen=True):
    """``POST /leases``. Publishers before 2.11 do not send their host name."""

    path: str
    api_version: str | int
    hostname: str | None = None
    wait: str | int | None = None
    """Seconds to wait for a busy path; also as the header ``Lease-Wait``. Not used by deployed publishers."""
    request: str = ""
    """A unique name of the request, by which it is recognized if it is repeated because the reply was lost."""


class CommitRequest(msgspec.Struct, frozen=True):
    """``POST /leases/<token>``. ``delete_tags`` are names separated by spaces."""

    old_root_hash: str
    new_root_hash: str
    tag_name: str | None = None
    tag_description: str | None = None
    tag_channel: int | None = None
    auto_tag_threshold: int | str | None = None
    delete_tags: str | None = None

    def body(self) -> CommitBody:
        """Raises :exc:`InvalidBody`."""
        return CommitBody(
            old_root=_catalog(self.old_root_hash, "old_root_hash"),
            new_root=_catalog(self.new_root_hash, "new_root_hash"),
            tag_name=self.tag_name or "",
            tag_description=self.tag_description or "",
            tag_channel=self.tag_channel or 0,
            auto_tag_threshold=number(self.auto_tag_threshold or 0, "auto_tag_threshold"),
            delete_tags=tuple((self.delete_tags or "").split()),
        )


class RenewRequest(msgspec.Struct, frozen=True):
    """``PATCH /leases/<token>``. Without a number of seconds, the lease is extended to the life of a new one."""

    expires_in_sec: int | None = None


class PayloadHead(msgspec.Struct, frozen=True):
    """The JSON head before an object pack. In newer requests, ``session_token`` is in the URL."""

    payload_digest: str
    header_size: str | int
    session_token: str | None = None


class ObjectsRequest(msgspec.Struct, frozen=True):
    """``POST /objects/<token>``: stored sizes in bytes by name."""

    objects: dict[str, int]

    def named(self) -> dict[ContentHash, int]:
        """Raises :exc:`InvalidBody`."""
        if len(self.objects) > MAX_ASKED:
            raise InvalidBody(f"more than {MAX_ASKED} objects")
        if any(size < 0 for size in self.objects.values()):
            raise InvalidBody("a size is negative")
        try:
            return {ContentHash.parse(name): size for name, size in self.objects.items()}
        except InvalidHash as error:
            raise InvalidBody(str(error)) from None


class EnableRequest(msgspec.Struct, frozen=True):
    """``POST /repos/<name>``."""

    enable: bool
    wait: bool = False


class GcRequest(msgspec.Struct, frozen=True):
    """``POST /gc``. ``timestamp`` is RFC 3339."""

    repo: str
    num_revisions: int = 0
    timestamp: str | None = None
    dry_run: bool = False
    verbose: bool = False


M = TypeVar("M")

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def decode(data: bytes, shape: type[M]) -> M:
    """Parse JSON into a *shape*; raises :exc:`InvalidBody`."""
    try:
        try:
            data.decode()
        except UnicodeDecodeError:
            return msgspec.convert(json.loads(data.decode("utf-8", "surrogateescape")), shape)
        return msgspec.json.decode(data, type=shape)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidBody(str(error)) from None


def number(value: str | int, name: str) -> int:
    """A number that may be given as a string; raises :exc:`InvalidBody`."""
    if isinstance(value, int):
        return value
    # int() alone would take spaces, underscores and the digits of every script
    if len(value) > 19 or not value.isascii() or not value.removeprefix("-").isdigit():
        raise InvalidBody(f"{name} is not a number")
    return int(value)


def reply(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A small JSON reply, which goes out in one piece with its length."""
    try:
        data = msgspec.json.encode(body)
    except (UnicodeEncodeError, msgspec.MsgspecError):
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        data = _SURROGATE.sub("\ufffd", text).encode()
    return web.Response(body=data, status=status, headers=headers, content_type="application/json")


def _catalog(text: str, name: str) -> ContentHash:
    try:
        return ContentHash.parse(text, Suffix.CATALOG)
    except InvalidHash:
        raise InvalidBody(f"{name} is not the hash of a catalog") from None
