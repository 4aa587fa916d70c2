"""What the suite is told about the gateway that it tries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conformance.wire import Key


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway and one of its repositories, which the suite fills with rubbish.

    Only the first four are needed; cases that need more are not applicable without.
    """

    gateway: str
    stratum0: str
    fqrn: str
    key: Key
    name: str = ""
    admin_key: Key | None = None
    other_key: Key | None = None
    """Another key for the same repository."""
    restricted_key: Key | None = None
    """A key for the same repository that is good for ``restricted_path`` (``/a/b``) only."""
    restricted_path: str = ""
    foreign_key: Key | None = None
    """A key that the gateway knows, for another repository."""
    notify: str = ""
    """Where notifications are; the gateway itself if empty."""
    websocket: str = ""
    """The older stand-alone notification server, or one that speaks like it."""
    public_key: bytes = b""
    """The repository's public master key or keys, PEM."""
    store: Path | None = None
    """The repository's storage on disk."""
    sessions: Path | None = None
    """Recorded sessions, whose repositories have been put onto the target."""
    restart_command: str = ""
    """A shell command that restarts the gateway and returns when it listens again."""
    timeout: float = 60.0
    seed: int = 1
    """Of random histories."""
    publishes: int = 12
    """How many revisions a random history has."""

    @property
    def api(self) -> str:
        """Where publishers are told that the gateway is."""
        return f"{self.gateway}/api/v1"

    @property
    def web(self) -> str:
        """Where clients find the repository."""
        url = self.stratum0.rstrip("/")
        return url if url.endswith(f"/{self.fqrn}") else f"{url}/{self.fqrn}"

    @property
    def title(self) -> str:
        return self.name or self.gateway
