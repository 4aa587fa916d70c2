"""Who asks: a gateway key that signs the request, or the bearer of a token.

::

    Authorization: Bearer <token>
    Authorization: <key id> <base64(lower-case hex(HMAC-SHA1(secret, message)))>

    message = method LF target LF date LF checksum
    target    the URL from its path on, with the query, as it is sent
    date      X-Cvmfs-Date, seconds since the epoch, no more than five minutes off
    checksum  X-Content-SHA256, the SHA-256 of the body in lower-case hex; empty where there is no body

The body itself is not signed, as it may be longer than anybody can keep, but its checksum is: a body without it is
refused, and one with another checksum does not get into the repository. A token says nothing of the body, so use it
over TLS or where nobody listens.

A key may do what ``repo.json`` lets it, an administrator's key everything.
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
"""How far the date of a signed request may be off, in seconds."""
_BEARER: Final = "bearer "
_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a request says who made it. *target* is the URL as sent, from its path on."""

    method: str
    target: str
    authorization: str | None = None
    date: str = ""
    checksum: str = ""
    has_body: bool = False

    @property
    def message(self) -> bytes:
        """What is signed."""
        text = "\n".join((self.method, self.target, self.date, self.checksum))
        return text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody may do: change what lies at or below *scope*, or only read it. *who* may be logged."""

    who: str
    scope: LeasePath
    read_only: bool = False

    def check(self, path: LeasePath, *, change: bool) -> None:
        """Return if that is granted; raises :exc:`Forbidden`."""
        if not path.within(self.scope):
            raise Forbidden(f"{self.who} may not go outside of {self.scope}")
        if change and self.read_only:
            raise Forbidden(f"{self.who} may only read")


def authorize(asked: Asked, path: LeasePath, access: Access, settings: UploadSettings, now: float) -> Grant:
    """Who asks for something at *path*, and what they may do in that repository. *now* is the system's time.

    Raises :exc:`Unauthorized`, and :exc:`Forbidden` for one who may not do anything there.
    """
    header = asked.authorization or ""
    if asked.checksum and (len(asked.checksum) != 64 or not set(asked.checksum) <= _HEX):
        raise InvalidRequest("X-Content-SHA256 is no SHA-256 in lower-case hex")
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
        raise Unauthorized("X-Cvmfs-Date is missing or too far from the time here")
    if asked.has_body and not asked.checksum:
        raise Unauthorized("a signed request with a body needs X-Content-SHA256")
    if key.admin:
        return Grant(f"key {key.id}", LeasePath(path.fqrn, ""))
    try:
        access.config.check(key.id, path)
    except AccessDenied as error:
        raise Forbidden(error.reason) from None
    return Grant(f"key {key.id}", path)
