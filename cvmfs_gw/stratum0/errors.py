"""Errors of the upload API, and how they are reported to clients.

::

    GatewayError
    └── UploadError                        HTTP  status     reason
        ├── InvalidRequest                 400   error      what is malformed, in words
        ├── Unauthorized                   401   error      unauthorized
        ├── Forbidden                      403   error      forbidden
        ├── NotThere                       404   error      not found
        ├── NotEnabled                     404   error      uploads are not enabled for this repository
        ├── Exists                         409   error      exists
        ├── PathConflict                   409   error      path conflict
        ├── PathLeased                     409   path_busy  (with time_remaining)
        ├── OffsetMismatch                 409   error      offset mismatch (with Upload-Offset)
        ├── Replaced                       409   error      replaced by another request
        ├── PreconditionFailed             412   error      precondition failed (with ETag, if a file is there)
        ├── TooLarge                       413   error      too large
        ├── RangeNotSatisfiable            416   error      range not satisfiable
        ├── ChecksumMismatch               422   error      checksum mismatch
        ├── NotCommitted          409, 413, 500, 503, 507   the engine's reason
        └── TryAgain                       503   error      why it cannot be served now, in words

Divergence: the gateway's own routes answer refusals with HTTP 200, as deployed publishers expect. These routes are for
``curl --fail`` and build jobs, which look at the HTTP status.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from cvmfs_gw.engine.errors import EngineError, LimitExceeded, MergeError, MissingObject, PathViolation, StorageError
from cvmfs_gw.gateway.errors import GatewayError, PathBusy


class UploadError(GatewayError):
    """Base of the upload API's errors. *detail* explains the error to people; it must not contain secrets."""

    http_status = 400


class InvalidRequest(UploadError):
    """A malformed or contradictory request."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason
        self.args = (reason,)


class Unauthorized(UploadError):
    """The request has no valid token or signature. The exact reason is not disclosed."""

    http_status = 401
    headers: Mapping[str, str] = MappingProxyType({"WWW-Authenticate": 'Bearer realm="cvmfs"'})
    reason = "unauthorized"


class Forbidden(UploadError):
    """The sender is authenticated but lacks the permission."""

    http_status = 403
    reason = "forbidden"


class NotThere(UploadError):
    """There is nothing at the path."""

    http_status = 404
    reason = "not found"


class NotEnabled(UploadError):
    """The repository is unknown or does not accept uploads: which of the two is not disclosed."""

    http_status = 404
    reason = "uploads are not enabled for this repository"


class Exists(UploadError):
    """The path exists with other content, and overwriting was not requested."""

    http_status = 409
    reason = "exists"


class PathConflict(UploadError):
    """A directory where a file is expected, or vice versa."""

    http_status = 409
    reason = "path conflict"


class PathLeased(UploadError):
    """A publisher has leased the path, one above it or one below it."""

    http_status = 409
    status: ClassVar[str] = "path_busy"
    reason = ""

    def __init__(self, remaining_ms: int) -> None:
        super().__init__("a publisher has a lease on this path, or above or below it")
        self.remaining_ms = remaining_ms

    def reply(self) -> dict[str, str]:
        return {**PathBusy(self.remaining_ms).reply(), "detail": self.detail}


class OffsetMismatch(UploadError):
    """A part of an incomplete upload that does not begin where the last one ended, after *offset* bytes."""

    http_status = 409
    reason = "offset mismatch"

    def __init__(self, offset: int) -> None:
        super().__init__(f"{offset} bytes have arrived")
        self.headers = {"Upload-Offset": str(offset)}


class Replaced(UploadError):
    """Another request for the same incomplete upload was made before this one ended."""

    http_status = 409
    reason = "replaced by another request"


class PreconditionFailed(UploadError):
    """The condition of the request does not hold; *tag* is the entity tag of the present file, if there is one."""

    http_status = 412
    reason = "precondition failed"

    def __init__(self, what: str, tag: str | None) -> None:
        super().__init__(what)
        self.headers = {} if tag is None else {"ETag": f'"{tag}"'}


class TooLarge(UploadError):
    """A limit of this server is exceeded."""

    http_status = 413
    reason = "too large"


class RangeNotSatisfiable(UploadError):
    """A range that begins beyond the end of the file, which has *size* bytes."""

    http_status = 416
    reason = "range not satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"the file has {size} bytes")
        self.size = size
        self.headers = {"Content-Range": f"bytes */{size}"}


class ChecksumMismatch(UploadError):
    """The body does not match the checksum in the request."""

    http_status = 422
    reason = "checksum mismatch"


class NotCommitted(UploadError):
    """The engine refused the commit, or failed; nothing was changed."""

    def __init__(self, error: EngineError) -> None:
        super().__init__(error.detail)
        self.reason = error.reason
        self._status = _status(error)

    @property
    def http_status(self) -> int:  # type: ignore[override]
        return self._status


class TryAgain(UploadError):
    """The request is valid but cannot be served now."""

    http_status = 503
    headers: Mapping[str, str] = MappingProxyType({"Retry-After": "1"})

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason
        self.args = (reason,)


def _status(error: EngineError) -> int:
    if isinstance(error, LimitExceeded):
        return 413
    if isinstance(error, MissingObject):
        return 503  # a collector took what was stored long ago: sent again, it is stored again
    if isinstance(error, (PathViolation, MergeError)):
        return 409
    return 507 if isinstance(error, StorageError) else 500
