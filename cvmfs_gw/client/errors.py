"""Errors of the publishing client, with the exit code of the command line.

::

    ClientError                1
    ├── NotThere               1   no such path, tag or revision in the repository
    ├── PathBusy               2   somebody else holds an overlapping lease
    ├── GatewayRefused         1   the gateway answered with an error
    ├── GatewayUnreachable     3   no (valid) answer from the gateway or the Stratum 0
    │   └── CommitInDoubt      5   the reply to a commit was lost, and its outcome is unknown
    └── UntrustedRepository    4   the chain of trust to the root catalog is broken
"""

from __future__ import annotations

from typing import ClassVar


class ClientError(Exception):
    """Base of all exceptions that this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class NotThere(ClientError):
    """No such path, tag or revision in the repository."""


class PathBusy(ClientError):
    """Somebody else holds an overlapping lease; *remaining* is its remaining life, in the gateway's words.

    *in_doubt*: it may be our own lease: the reply to our request was lost, and this gateway cannot grant it again.
    """

    exit_code = 2

    def __init__(self, path: str, remaining: object, *, in_doubt: bool = False) -> None:
        whom = "somebody else, or by us in a reply that was lost," if in_doubt else "somebody else"
        super().__init__(f"{path} is leased by {whom} for another {remaining}")
        self.remaining = remaining


class GatewayRefused(ClientError):
    """The gateway answered with an error and this *reason*."""

    def __init__(self, what: str, reason: str, detail: str = "") -> None:
        super().__init__(f"{what}: {reason}" + (f" ({detail})" if detail else ""))
        self.reason = reason


class GatewayUnreachable(ClientError):
    """No (valid) answer from the gateway or the Stratum 0; *passing*: the error may be temporary."""

    exit_code = 3

    def __init__(self, what: str, *, passing: bool = True) -> None:
        super().__init__(what)
        self.passing = passing


class CommitInDoubt(GatewayUnreachable):
    """The reply to a commit was lost, and its outcome is unknown."""

    exit_code = 5


class UntrustedRepository(ClientError):
    """A signature on the way to the root catalog is missing, wrong or too old."""

    exit_code = 4
