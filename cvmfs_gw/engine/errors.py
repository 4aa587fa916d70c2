"""Errors of the engine: why a commit or a publish did not happen.

::

    EngineError                reason on the wire
    ├── PathViolation          path_violation   a change at a path where it is not allowed
    ├── MergeError             merge_error      the three-way merge is impossible
    │   ├── LimitExceeded      merge_error      a catalog or file over a limit that server.conf enforces
    │   └── MissingObject      merge_error      a catalog or other object that the commit refers to does not exist
    ├── MissingReflog          missing_reflog   reflog.chksum or the reflog is gone or does not match
    ├── TagError               miscellaneous    a tag name that exists, is reserved or not allowed
    ├── ConfigurationError     miscellaneous    server.conf is missing or invalid
    ├── SigningError           miscellaneous    a key, certificate or whitelist that is missing or not trusted
    ├── StorageError           uploader_error   the storage failed to read or write
    └── Conflict               miscellaneous    someone else published in between (the caller may try again)

Every leaf has the wire ``reason`` as a class attribute; the text of the exception is for people and logs. A failed
commit changes nothing in the repository and leaves its lease usable.

Source: the reasons that the reference's commit and payload replies carry (``path_violation``, ``merge_error``,
``missing_reflog``, ``uploader_error``, ``other_error``, ``miscellaneous``).
"""

from __future__ import annotations

from typing import ClassVar


class EngineError(Exception):
    """Base of all exceptions that the engine raises on purpose.

    *detail* explains the error to people. It must not contain secrets, as it is sent to the publisher.
    """

    reason: ClassVar[str] = "miscellaneous"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or self.reason)
        self.detail = detail


class PathViolation(EngineError):
    """A change at a path where it is not allowed."""

    reason = "path_violation"


class MergeError(EngineError):
    """The three-way merge is impossible."""

    reason = "merge_error"


class LimitExceeded(MergeError):
    """A catalog or a file is over a limit that the repository's ``server.conf`` enforces."""


class MissingObject(MergeError):
    """A catalog or other object that the commit refers to is not in the store."""


class MissingReflog(EngineError):
    """``reflog.chksum`` or the reflog is gone, or they do not match."""

    reason = "missing_reflog"


class TagError(EngineError):
    """A tag name that exists, is reserved (the undo tags) or not allowed."""


class ConfigurationError(EngineError):
    """The repository's ``server.conf`` is missing or invalid."""


class SigningError(EngineError):
    """A key, a certificate or a whitelist that is missing or cannot be trusted."""


class StorageError(EngineError):
    """The storage failed to read or write."""

    reason = "uploader_error"


class Conflict(EngineError):
    """Someone else published in between; nothing was changed, and the caller may try again."""
