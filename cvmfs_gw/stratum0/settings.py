"""``uploads.json``: which repositories accept uploads, with which limits, and the tokens.

::

    {"version": 1,
     "repositories": {"ci.example.org": {"default_ttl_s": 604800, "max_ttl_s": 2592000}},
     "tokens": [{"id": "ci", "repository": "ci.example.org", "path": "/builds", "sha256": "9f86d0..."}]}

Uploads are enabled only for repositories listed in this file. Gateway keys are those of ``repo.json`` and may be used
wherever uploads are enabled; this file adds tokens, as hashes.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from cvmfs_gw.engine.repository import replace_file
from cvmfs_gw.gateway.errors import ConfigError, InvalidLeasePath
from cvmfs_gw.gateway.leasepath import LeasePath

MAX_TTL_S: Final = 10 * 365 * 86_400
"""The longest time to live that may be configured or requested, in seconds."""
MAX_FILE: Final = 1 << 40
"""The default limit of a request's body, in bytes."""
MAX_ENTRIES: Final = 1_000_000
"""The default limit of entries in an archive."""
MAX_TOKEN: Final = 256
"""The longest bearer token accepted, in characters."""
_PREFIX: Final = "cvgw"
_NOBODY: Final = hashlib.sha256(b"a token that nobody has").hexdigest()


class RepositorySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings for uploads to one repository. Times are in seconds."""

    default_ttl_s: int = 0
    """The time to live of uploads that do not request one; 0: unlimited."""
    max_ttl_s: int = 0
    """The longest time to live, and then also the default; 0: no limit."""
    max_bytes: int = MAX_FILE
    """The limit for a body, and for the total content of an archive."""
    max_entries: int = MAX_ENTRIES
    """The limit for the entries of an archive."""
    public_read: bool = False
    """Whether anybody may list and download."""

    def __post_init__(self) -> None:
        for name in ("default_ttl_s", "max_ttl_s"):
            if not 0 <= getattr(self, name) <= MAX_TTL_S:
                raise ValueError(f"{name}: not from 0 to {MAX_TTL_S}")
        if not 0 < self.max_bytes <= MAX_FILE or not 0 < self.max_entries <= MAX_ENTRIES:
            raise ValueError(f"max_bytes and max_entries: not from 1 to {MAX_FILE} and {MAX_ENTRIES}")
        if self.max_ttl_s and self.default_ttl_s > self.max_ttl_s:
            raise ValueError("default_ttl_s is more than max_ttl_s")


class TokenSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token: the path that it gives access to, and the SHA-256 of its text."""

    id: str
    repository: str
    sha256: str
    path: str = "/"
    read_only: bool = False

    def __post_init__(self) -> None:
        if not self.id or len(self.id) > 64 or not self.id.isascii() or not self.id.replace("-", "").isalnum():
            raise ValueError(f"not the id of a token (letters, digits, '-'): {self.id[:80]!r}")
        if len(self.sha256) != 64 or not set(self.sha256) <= set("0123456789abcdef"):
            raise ValueError(f"token {self.id}: sha256 is not a SHA-256 in lower-case hex")

    @property
    def scope(self) -> LeasePath:
        """The path that it gives access to; raises :exc:`InvalidLeasePath`."""
        return LeasePath.parse(f"{self.repository}/{self.path.strip('/')}")


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int = 1
    repositories: dict[str, RepositorySettings] = {}
    tokens: list[TokenSettings] = []
    public_url: str = ""
    gateway_url: str = ""


@dataclass(frozen=True, slots=True)
class UploadSettings:
    """The content of ``uploads.json``. Tokens are by id. The URLs, if set, are those given to clients."""

    repositories: Mapping[str, RepositorySettings]
    tokens: Mapping[str, TokenSettings]
    public_url: str = ""
    """Where the repositories are served, as in ``http://stratum0.example.org:8080``."""
    gateway_url: str = ""
    """Where the gateway is, as in ``http://stratum0.example.org:4929/api/v1``."""

    @classmethod
    def load(cls, path: str) -> UploadSettings:
        """Read the file; a missing one enables nothing. Raises :exc:`ConfigError`."""
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return cls({}, {})
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        try:
            content = msgspec.json.decode(data, type=_File)
            if content.version != 1:
                raise ConfigError(f"{path}: version {content.version} is not known")
            for token in content.tokens:
                if token.scope.fqrn not in content.repositories:
                    raise ConfigError(f"{path}: token {token.id}: uploads are not enabled for {token.repository}")
        except (msgspec.MsgspecError, InvalidLeasePath, ValueError) as error:
            raise ConfigError(f"{path}: {error}") from error
        tokens = {token.id: token for token in content.tokens}
        if len(tokens) != len(content.tokens):
            raise ConfigError(f"{path}: two tokens have the same id")
        return cls(content.repositories, tokens, content.public_url.rstrip("/"), content.gateway_url.rstrip("/"))

    def save(self, path: str, like: str = "") -> None:
        """Write the file. Raises ``OSError``.

        A new one is for whoever may read the file *like* or, without that, for its owner alone.
        """
        content = _File(1, dict(self.repositories), [*self.tokens.values()], self.public_url, self.gateway_url)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        replace_file(path, msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n", 0o600, like)

    def token(self, text: str) -> TokenSettings | None:
        """The token with this text, or None. Takes as long for an unknown one as for a wrong one."""
        parts = text.split("_", 2) if len(text) <= MAX_TOKEN else []
        known = self.tokens.get(parts[1]) if len(parts) == 3 and parts[0] == _PREFIX else None
        right = hmac.compare_digest(_digest(text[:MAX_TOKEN]), known.sha256 if known else _NOBODY)
        return known if right else None


def stamp(path: str) -> tuple[int, ...] | None:
    """What is another one when the file has been written; None: it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def new_token(token_id: str, scope: LeasePath, *, read_only: bool = False) -> tuple[str, TokenSettings]:
    """A new token's text, which nobody will ever see again, and what is kept of it. Raises ``ValueError``."""
    text = f"{_PREFIX}_{token_id}_{secrets.token_urlsafe(32)}"
    return text, TokenSettings(token_id, scope.fqrn, _digest(text), scope.stored, read_only)


def _digest(text: str) -> str:
    # the text is 32 random bytes, so a slow hash would protect nothing
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
