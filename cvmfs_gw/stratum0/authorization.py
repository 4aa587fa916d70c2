"""Authorization of requests: signed with a gateway key, or by bearer token.

::

    Authorization: Bearer <token>
    Authorization: <key id> <base64(lower-case hex(HMAC-SHA1(secret, message)))>

    message = method LF target LF date LF checksum
    target    the URL's path and query, as sent
    date      X-Cvmfs-Date, seconds since the epoch, no more than five minutes off
    checksum  X-Content-SHA256, the SHA-256 of the body in lower-case hex; empty if there is no body

The body itself is not signed, as it may be too large to be kept, but its checksum is: a body without a checksum, or
with another one, is refused. A token does not protect the body, so use it over TLS or in a trusted network.

A key may do what ``repo.json`` allows, an administrator's key everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cvmfs_gw.gateway.access import Access
from cvmfs_gw.gateway.errors import AccessDenied, AuthorizationError
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.stratum0.errors import Forbidden, InvalidRequest, Unauthorized
from cvmfs_gw.stratum0.settings import UploadSettings

MAX_SKEW_S: Final = 300
"""The maximum deviation of a signed request's date, in seconds."""
_BEARER: Final = "bearer "
_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Asked:
    """The parts of a request that authorize it. *target* is the URL's path and query as sent."""

    method: str
    target: str
    authorization: str | None = None
    date: str = ""
    checksum: str = ""
    has_body: bool = False

    @property
    def message(self) -> bytes:
        """The message that is signed."""
        text = "\n".join((self.method, self.target, self.date, self.checksum))
        return text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Grant:
    """A permission to change what is at or below *scope*, or only to read it. *who* may be logged."""

    who: str
    scope: LeasePath
    read_only: bool = False

    def check(self, path: LeasePath, *, change: bool) -> None:
        """Check the permission; raises :exc:`Forbidden`."""
        if not path.within(self.scope):
            raise Forbidden(f"{self.who} may not go outside of {self.scope}")
        if change and self.read_only:
            raise Forbidden(f"{self.who} may only read")


def authorize(asked: Asked, path: LeasePath, access: Access, settings: UploadSettings, now: float) -> Grant:
    """Authorize a request at *path*; returns what the sender may do in that repository. *now* is the system's time.

    Raises :exc:`Unauthorized`, and :exc:`Forbidden` for a sender who may do nothing there.
    """
    header = asked.authorization or ""
    if asked.checksum and (len(asked.checksum) != 64 or not set(asked.checksum) <= _HEX):
        raise InvalidRequest("X-Content-SHA256 is not a SHA-256 in lower-case hex")
    if header[: len(_BEARER)].lower() == _BEARER:
        token = settings.token(header[len(_BEARER) :].strip())
        if token is None:
            raise Unauthorized
        if token.repository != path.fqrn:
            raise Forbidden(f"token {token.id} is for another repository")
        return Grant(f"token {token.id}", token.scope, token.read_only)
    try:
        key = access.authorize(header, asked.message)
    except AuthorizationError:
        raise Unauthorized from None
    if not asked.date.isascii() or not asked.date.isdigit() or abs(int(asked.date[:15]) - now) > MAX_SKEW_S:
        raise Unauthorized("X-Cvmfs-Date is missing, or too far from the server's time")
    if asked.has_body and not asked.checksum:
        raise Unauthorized("a signed request with a body needs X-Content-SHA256")
    if key.admin:
        return Grant(f"key {key.id}", LeasePath(path.fqrn, ""))
    try:
        access.config.check(key.id, path)
    except AccessDenied as error:
        raise Forbidden(error.reason) from None
    return Grant(f"key {key.id}", path)
