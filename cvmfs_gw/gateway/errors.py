"""Errors of the gateway, and how they are reported to publishers.

::

    GatewayError                             HTTP  status     reason
    ├── BadRequest                           400   error      what is malformed, in words
    │   ├── InvalidBody                      400   error      invalid request body
    │   ├── InvalidMessageSize               400   error      missing message-size header
    │   ├── MissingPath                      400   error      missing path argument
    │   └── BodyTooLarge                     413   error      request body too large
    ├── AuthorizationError
    │   ├── InvalidHmac                      200   error      invalid_hmac
    │   ├── InvalidAuthorizationHeader       200   error      invalid_authorization_header
    │   ├── InvalidKey                       200   error      invalid_key
    │   └── NoAdminKey                       200   error      no_admin_key
    ├── AccessDenied
    │   ├── KeyNotAllowed                    200   error      authorization error: invalid_key
    │   ├── PathNotAllowed                   200   error      authorization error: invalid_path
    │   └── RepositoryNotAllowed             200   error      authorization error: invalid_repo
    ├── RepositoryError
    │   ├── UnknownRepository                200   error      invalid_repo
    │   ├── RepositoryNotFound               200   error      repository not found: <name>
    │   ├── RepositoryDisabled               200   error      repo_disabled
    │   └── RepositoryBusy                   200   repo_busy
    ├── LeaseError
    │   ├── InvalidLeasePath                 200   error      what is wrong with the path, in words
    │   ├── IncompatibleVersion              200   error      incompatible request version: N, min version: M
    │   ├── PathBusy                         200   path_busy  (with time_remaining)
    │   ├── TooManyLeases                    200   error      too many leases
    │   ├── InvalidLease                     200   error      invalid lease
    │   └── CommitInProgress                 200   error      commit in progress
    ├── PayloadError
    │   ├── BadPack                          200   error      other_error
    │   ├── PackTooLarge                     200   error      other_error
    │   └── StoreFailure                     200   error      uploader_error
    ├── CommitFailed                         200   error      miscellaneous
    ├── KeyEndpointError
    │   ├── KeyEndpointDisabled              200   error      key_endpoint_disabled
    │   ├── PublicKeyNotFound                200   error      public_key_not_found
    │   └── CertificateNotFound              200   error      certificate_not_found
    ├── LeaseDatabaseError                   500   error      the lease database cannot be written: <why>
    ├── UnknownJob                           200   error      no such check: <id>
    ├── NotAvailable                         200   error      what this server does not support, in words
    └── ConfigError                          never on the wire; the process ends with exit code 1

An :exc:`~cvmfs_gw.engine.errors.EngineError` is HTTP 200, status ``error``, with its own reason.

Publishers look at ``status`` and print ``reason``; if the reason is a fixed word, ``detail`` explains it.

Source: the reference's replies; HTTP 4xx is used only for malformed requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.gateway.gotime import NANOSECONDS_PER_MS, format_duration

_MAX_TEXT = 500
"""The longest ``reason`` or ``detail`` in a reply, in characters: replies fit into one network packet."""


class GatewayError(Exception):
    """Base of all exceptions that the gateway raises on purpose. *detail* must not contain secrets or tokens."""

    http_status: ClassVar[int] = 200
    status: ClassVar[str] = "error"
    reason: str = "miscellaneous"
    headers: Mapping[str, str] = MappingProxyType({})
    """Additional headers of the HTTP reply."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or self.reason)
        self.detail = detail

    def reply(self) -> dict[str, str]:
        """The JSON object that answers the request."""
        body = {"status": self.status}
        if self.reason:
            body["reason"] = self.reason[:_MAX_TEXT]
        if self.detail and self.detail != self.reason:
            body["detail"] = self.detail[:_MAX_TEXT]
        return body


class _InWords(GatewayError):
    """An error whose reason is a sentence, not a fixed word."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason
        self.args = (reason,)


# --- malformed requests ---------------------------------------------------------------------------------------


class BadRequest(_InWords):
    """A request that is malformed."""

    http_status = 400


class InvalidBody(BadRequest):
    """A body that is not JSON, or has the wrong structure."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(f"invalid request body: {detail}" if detail else "invalid request body")


class InvalidMessageSize(BadRequest):
    """A payload without a usable ``Message-Size``."""

    def __init__(self, reason: str = "missing message-size header") -> None:
        super().__init__(reason)


class MissingPath(BadRequest):
    """No path where the URL should have one."""

    def __init__(self) -> None:
        super().__init__("missing path argument")


class BodyTooLarge(BadRequest):
    """A JSON body over the limit."""

    http_status = 413

    def __init__(self) -> None:
        super().__init__("request body too large")


# --- authorization --------------------------------------------------------------------------------------------


class AuthorizationError(GatewayError):
    """The request is not signed by a suitable key."""


class InvalidHmac(AuthorizationError):
    reason = "invalid_hmac"


class InvalidAuthorizationHeader(AuthorizationError):
    reason = "invalid_authorization_header"


class InvalidKey(AuthorizationError):
    reason = "invalid_key"


class NoAdminKey(AuthorizationError):
    reason = "no_admin_key"


class AccessDenied(GatewayError):
    """The key is known, but not for this repository, path or lease."""


class KeyNotAllowed(AccessDenied):
    reason = "authorization error: invalid_key"


class PathNotAllowed(AccessDenied):
    reason = "authorization error: invalid_path"


class RepositoryNotAllowed(AccessDenied):
    reason = "authorization error: invalid_repo"


# --- repositories ---------------------------------------------------------------------------------------------


class RepositoryError(GatewayError):
    """A repository cannot be used."""


class UnknownRepository(RepositoryError):
    """A repository named in a URL is not served here."""

    reason = "invalid_repo"


class RepositoryNotFound(RepositoryError):
    """A lease is requested in a repository that is not served here."""

    def __init__(self, fqrn: str) -> None:
        self.reason = f"repository not found: {fqrn[:80]}"
        super().__init__()


class RepositoryDisabled(RepositoryError):
    reason = "repo_disabled"


class RepositoryBusy(RepositoryError):
    """A repository cannot be disabled now, as a commit is running."""

    status = "repo_busy"
    reason = ""


# --- leases ---------------------------------------------------------------------------------------------------


class LeaseError(GatewayError):
    """A lease cannot be granted or used."""


class InvalidLeasePath(_InWords, LeaseError):
    """A lease path that cannot be a path in a repository."""


class IncompatibleVersion(_InWords, LeaseError):
    """A publisher that speaks an older protocol than this server does."""


class PathBusy(LeaseError):
    """The path, or one above or below it, is leased."""

    status = "path_busy"
    reason = ""

    def __init__(self, remaining_ms: int) -> None:
        super().__init__()
        self.remaining_ms = remaining_ms
        """The remaining life of the conflicting lease, in milliseconds."""

    def reply(self) -> dict[str, str]:
        duration = format_duration(self.remaining_ms * NANOSECONDS_PER_MS)
        return {"status": self.status, "time_remaining": duration}


class TooManyLeases(LeaseError):
    """As many leases are open as the gateway keeps in memory."""

    reason = "too many leases"


class InvalidLease(LeaseError):
    """A token that is unknown, or whose lease has expired, was cancelled or is committed."""

    reason = "invalid lease"


class CommitInProgress(LeaseError):
    """The lease is being committed: it can be neither cancelled nor renewed nor committed with other hashes."""

    reason = "commit in progress"


# --- payloads and commits -------------------------------------------------------------------------------------


class PayloadError(GatewayError):
    """An object pack was not accepted."""


class BadPack(PayloadError):
    """The bytes are not a valid object pack, or not the announced one."""

    reason = "other_error"


class PackTooLarge(PayloadError):
    """An object pack over a limit of this server."""

    reason = "other_error"


class StoreFailure(PayloadError):
    """The storage failed to store an object."""

    reason = "uploader_error"


class CommitFailed(GatewayError):
    """The engine failed with an unexpected error."""

    reason = "miscellaneous"


# --- others ---------------------------------------------------------------------------------------------------


class KeyEndpointError(GatewayError):
    """A repository's public key and certificate cannot be provided."""


class KeyEndpointDisabled(KeyEndpointError):
    reason = "key_endpoint_disabled"


class PublicKeyNotFound(KeyEndpointError):
    reason = "public_key_not_found"


class CertificateNotFound(KeyEndpointError):
    reason = "certificate_not_found"


class UnknownJob(_InWords):
    """There is no such job, or it is no longer kept."""


class NotAvailable(_InWords):
    """Something that this server does not support."""


class LeaseDatabaseError(_InWords):
    """A change of a lease cannot be written to the database; nothing has changed."""

    http_status = 500


class ConfigError(GatewayError):
    """An unusable configuration or key file: the start fails; at a reload, the old one stays in force."""

    exit_code: ClassVar[int] = 1


def describe(error: GatewayError | EngineError) -> tuple[int, dict[str, str]]:
    """HTTP status and JSON object of the reply to a request that ended in *error*."""
    if isinstance(error, GatewayError):
        return error.http_status, error.reply()
    body = {"status": "error", "reason": error.reason}
    if error.detail:
        body["detail"] = error.detail[:_MAX_TEXT]
    return 200, body
