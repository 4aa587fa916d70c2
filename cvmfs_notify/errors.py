"""Errors of the notification system, and how they are reported to publishers and subscribers.

::

    NotifyError                        HTTP   reason
    ├── InvalidMessage                 400    invalid_message       not an activity message, or over a limit
    ├── InvalidSubscription            400    invalid_subscription  not a subscription, or over a limit
    ├── MessageRefused
    │   ├── WrongRepository            200    wrong_repository      the manifest is of another repository
    │   ├── UntrustedManifest          200    untrusted_manifest    ... is not signed by a trusted certificate
    │   ├── OlderRevision              200    older_revision        ... is older than the newest known one
    │   └── TooManyRepositories        200    too_many_repositories
    ├── PublisherRefused               200    invalid_hmac          the publisher's signature is missing or wrong
    ├── SubscriberRefused              503    too_many_subscribers  also when the server is about to stop
    ├── ServerUnreachable              never on the wire; exit code 3
    └── NotifyConfigError              never on the wire; the process ends with exit code 1

Source: a malformed message is answered with HTTP 400, as ``invalid_message`` by the older stand-alone server; every
other refusal of a publisher with 200.
Divergence: the reference checks only the JSON and passes everything on. A deployed client gives up for good after it
has received an invalid manifest ten times, so one bad message would lose every client.
"""

from __future__ import annotations

from typing import ClassVar, Final

_MAX_DETAIL: Final = 300
"""The maximum length of ``detail`` in a reply, in characters."""


class NotifyError(Exception):
    """Base of all exceptions that this package raises on purpose."""

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
    """The chain of trust from the public master key to the manifest is broken."""

    reason = "untrusted_manifest"
    exit_code = 4


class OlderRevision(MessageRefused):
    """A newer revision is already known."""

    reason = "older_revision"


class TooManyRepositories(MessageRefused):
    """This repository is new and the limit on their number is reached."""

    reason = "too_many_repositories"


class PublisherRefused(NotifyError):
    """This server requires publishers to sign, and the signature is missing or wrong."""

    reason = "invalid_hmac"


class SubscriberRefused(NotifyError):
    """There are too many subscribers, or the server is stopping."""

    http_status = 503
    reason = "too_many_subscribers"


class ServerUnreachable(NotifyError):
    """A notification server or a repository cannot be reached."""

    reason = "unreachable"
    exit_code = 3


class NotifyConfigError(NotifyError):
    """The configuration is unreadable or invalid."""

    reason = "configuration"
