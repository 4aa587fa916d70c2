"""Errors of the notification system, and what a publisher or subscriber gets to read of them.

::

    NotifyError                        HTTP   reason
    ├── InvalidMessage                 400    invalid_message       no activity message, or over a limit
    ├── InvalidSubscription            400    invalid_subscription  no subscription, or over a limit
    ├── MessageRefused
    │   ├── WrongRepository            200    wrong_repository      the manifest is of another repository
    │   ├── UntrustedManifest          200    untrusted_manifest    ... is not signed by whom it should be
    │   ├── OlderRevision              200    older_revision        ... is older than the newest that is known
    │   └── TooManyRepositories        200    too_many_repositories
    ├── PublisherRefused               200    invalid_hmac          the publisher's signature is missing or wrong
    ├── SubscriberRefused              503    too_many_subscribers  or the server is about to stop
    ├── ServerUnreachable              never on the wire; exit code 3
    └── NotifyConfigError              never on the wire; the process ends with exit code 1

Source: a message that makes no sense is answered with HTTP 400, everything else that a publisher hears with 200; the
older stand-alone server called it ``invalid_message``.
Divergence: the reference looks at nothing but the JSON and passes everything on. A deployed client that is sent a
manifest which does not verify gives up for good after ten of them, so that one bad message would lose every client.
"""

from __future__ import annotations

from typing import ClassVar, Final

_MAX_DETAIL: Final = 300
"""Longest ``detail`` in a reply, in characters."""


class NotifyError(Exception):
    """Base of everything that this package raises on purpose."""

    http_status: ClassVar[int] = 200
    reason: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, detail: str = "") -> None:
        super().__init__(f"{self.reason}: {detail}" if detail else self.reason)
        self.detail = detail

    def reply(self) -> dict[str, str]:
        """The JSON object that answers the request."""
        body = {"status": "error", "reason": self.reason}
        if self.detail:
            body["detail"] = self.detail[:_MAX_DETAIL]
        return body


class InvalidMessage(NotifyError):
    """Not an activity message, or one that is over a limit."""

    http_status = 400
    reason = "invalid_message"


class InvalidSubscription(NotifyError):
    """A subscription that names no repository, or too many."""

    http_status = 400
    reason = "invalid_subscription"


class MessageRefused(NotifyError):
    """A well-formed message that is not passed on."""


class WrongRepository(MessageRefused):
    """The manifest in the message is not of the repository that the message names."""

    reason = "wrong_repository"


class UntrustedManifest(MessageRefused):
    """The chain from the public key to the manifest does not hold."""

    reason = "untrusted_manifest"
    exit_code = 4


class OlderRevision(MessageRefused):
    """A newer revision is known already."""

    reason = "older_revision"


class TooManyRepositories(MessageRefused):
    """The limit of repositories is reached, and this one is new."""

    reason = "too_many_repositories"


class PublisherRefused(NotifyError):
    """Publishers have to sign here, and this one did not, or wrongly."""

    reason = "invalid_hmac"


class SubscriberRefused(NotifyError):
    """No more subscribers, or none any more."""

    http_status = 503
    reason = "too_many_subscribers"


class ServerUnreachable(NotifyError):
    """A notification server or a repository cannot be read from."""

    reason = "unreachable"
    exit_code = 3


class NotifyConfigError(NotifyError):
    """A configuration that cannot be used."""

    reason = "configuration"
