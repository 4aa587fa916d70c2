"""``/etc/cvmfs/notify/config.json``: settings of the stand-alone server; the gateway reads some of them, too.

::

    {
      "port": 4930, "log_level": "info",
      "host": "localhost",
      "state": "/var/lib/cvmfs-notify/notifications.db",
      "publish_keys": {"<key id>": "<secret>"},
      "repositories": {"<fqrn>": {"url": "http://stratum0/cvmfs/<fqrn>", "public_key": "/etc/cvmfs/keys/<fqrn>.pub"}},
      "relay": [{"url": "http://gateway:4929/api/v1", "repositories": ["<fqrn>"]}],
      "webhooks": [{"url": "https://ci/hook", "secret": "...", "repositories": ["<fqrn>"]}]
    }

Everything is optional. ``repositories`` are those whose signatures can be checked; ``relay`` lists servers to subscribe
to, by default to all their repositories, which the reference's gateway does not support. The gateway reads
``publish_keys`` and ``webhooks``.

Source: ``port`` and ``log_level`` are those of the older stand-alone server; its ``amqp`` is ignored, as there is no
message broker behind this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from cvmfs_notify.errors import NotifyConfigError
from cvmfs_notify.messages import EVERYTHING

DEFAULT_PATH: Final = "/etc/cvmfs/notify/config.json"
DEFAULT_STATE: Final = "/var/lib/cvmfs-notify/notifications.db"
PORT: Final = 4930


class RepositorySource(msgspec.Struct, frozen=True):
    """The URL of a repository, for its whitelist and certificate, and the file with its public master keys."""

    url: str
    public_key: str


class RelaySource(msgspec.Struct, frozen=True):
    """A server to subscribe to; *url* ends with ``/api/v1``."""

    url: str
    repositories: list[str] = msgspec.field(default_factory=lambda: [EVERYTHING])


class WebhookTarget(msgspec.Struct, frozen=True):
    """The target of a webhook. Without a *secret*, requests are not signed."""

    url: str
    secret: str = ""
    repositories: list[str] = msgspec.field(default_factory=lambda: [EVERYTHING])


class NotifyConfig(msgspec.Struct, frozen=True):
    """The settings."""

    host: str = "localhost"
    port: int = PORT
    log_level: str = "info"
    state: str | None = None
    publish_keys: dict[str, str] = {}
    repositories: dict[str, RepositorySource] = {}
    relay: list[RelaySource] = []
    webhooks: list[WebhookTarget] = []

    @property
    def keys(self) -> Mapping[str, bytes]:
        return {key_id: secret.encode() for key_id, secret in self.publish_keys.items()}

    @classmethod
    def load(cls, path: str) -> NotifyConfig:
        """Read the file; a missing one counts as empty. Raises :exc:`NotifyConfigError`."""
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise NotifyConfigError(f"cannot read {path}: {error.strerror}") from error
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.MsgspecError as error:
            raise NotifyConfigError(f"{path}: {error}") from None
