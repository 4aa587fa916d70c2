"""The repositories of a gateway: who may change them, whether leases are granted, and where they stand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from cvmfs_gw.gateway.access import Access
from cvmfs_gw.gateway.changes import Changes
from cvmfs_gw.gateway.committer import Committer
from cvmfs_gw.gateway.config import Config
from cvmfs_gw.gateway.errors import (
    CertificateNotFound,
    GatewayError,
    KeyEndpointDisabled,
    LeaseDatabaseError,
    PublicKeyNotFound,
    RepositoryBusy,
    StoreFailure,
    UnknownRepository,
)
from cvmfs_gw.gateway.heads import Head, Heads
from cvmfs_gw.gateway.leases import LeaseBook
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.objects import ObjectStore

log = logging.getLogger(__name__)

MAX_KEY_FILE: Final = 1 << 20
"""Longest key file that the key endpoint hands out, in bytes."""


@dataclass(frozen=True, slots=True)
class RepositoryView:
    """A repository as ``GET /repos`` shows it: key id -> path, and whether leases are granted."""

    keys: dict[str, str]
    enabled: bool


class Commits(Protocol):
    """Something that commits to repositories."""

    def busy(self, fqrn: str) -> bool:
        """Whether a commit to the repository is running or waiting."""

    async def idle(self, fqrn: str) -> None:
        """Wait until every commit to the repository that is running or waiting now has ended."""


class Repositories:
    """The configured repositories. To be used from one event loop only, but for :meth:`head` and :meth:`store`.

    *stores* gives the object store of a repository, by preference the same each time; it is called in threads, and
    may raise :exc:`EngineError`, ``OSError`` or ``ValueError``. *heads* tells a repository's present head; without it
    nobody knows.
    """

    def __init__(
        self,
        *,
        access: Access,
        config: Config,
        paths: SystemPaths,
        book: LeaseBook,
        changes: Changes,
        commits: Committer,
        stores: Callable[[str], ObjectStore],
        heads: Callable[[str], Head | None] | None = None,
    ) -> None:
        self._access = access
        self._config = config
        self._paths = paths
        self._book = book
        self._changes = changes
        self.commits: list[Commits] = [commits]
        """All that commit: disabling waits for them."""
        self._stores = stores
        self._look_at_head = heads or (lambda fqrn: None)
        self.heads = Heads(self._look_at_head)
        self._enabled = dict.fromkeys(access.config.repositories, True)
        try:
            book.record_repositories(self._enabled)
        except LeaseDatabaseError as error:  # a full disk; only the reference would read it
            log.error("%s", error)

    def all(self) -> dict[str, RepositoryView]:
        return {name: self.get(name) for name in self._access.config.repositories}

    def get(self, fqrn: str) -> RepositoryView:
        """Raises :exc:`UnknownRepository`."""
        keys = self._access.config.repositories.get(fqrn)
        if keys is None:
            raise UnknownRepository
        return RepositoryView(dict(keys), self.enabled(fqrn))

    def enabled(self, fqrn: str) -> bool:
        """Whether leases are granted. From any thread."""
        return self._enabled.get(fqrn, True)

    async def enable(self, fqrn: str, enable: bool, *, wait: bool = False) -> None:
        """Let leases be granted and uploads committed, or no longer; leases that are open may be used on.

        While a commit is running, disabling with *wait* takes effect at once and returns when the commit has ended;
        without, it raises :exc:`RepositoryBusy` and changes nothing. Raises :exc:`UnknownRepository`.

        Source: the state does not outlive the process. Divergence: the reference always says ok, whatever happened.
        """
        self.get(fqrn)
        if not enable and not wait and any(commits.busy(fqrn) for commits in self.commits):
            raise RepositoryBusy
        self._enabled[fqrn] = enable
        await self._changes(self._book.record_repositories, dict(self._enabled))
        if not enable and wait:
            for commits in self.commits:
                await commits.idle(fqrn)

    async def configured(self) -> None:
        """The configuration was read again: those that stay keep being enabled or disabled, new ones are enabled."""
        self._enabled = {name: self.enabled(name) for name in self._access.config.repositories}
        await self._changes(self._book.record_repositories, dict(self._enabled))

    async def public_keys(self, fqrn: str) -> tuple[bytes, bytes]:
        """The repository's public master key and its certificate; raises :exc:`KeyEndpointError`."""
        if not self._config.enable_key_endpoint:
            raise KeyEndpointDisabled
        self.get(fqrn)
        public = await asyncio.to_thread(_read_key, self._paths.key_file(fqrn, "pub"), PublicKeyNotFound)
        certificate = await asyncio.to_thread(_read_key, self._paths.key_file(fqrn, "crt"), CertificateNotFound)
        return public, certificate

    def head(self, fqrn: str) -> Head | None:
        """The repository's present head, None if it cannot be read. Looks at the disk."""
        return self._look_at_head(fqrn)

    def store(self, fqrn: str) -> ObjectStore:
        """The repository's object store; raises :exc:`GatewayError` and :exc:`EngineError`. Looks at the disk."""
        try:
            return self._stores(fqrn)
        except (OSError, ValueError) as error:
            log.exception("cannot open the storage of %s", fqrn)
            raise StoreFailure(f"the storage of {fqrn} is not available") from error


def _read_key(path: str, missing: type[GatewayError]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_KEY_FILE)
    except OSError as error:
        raise missing from error
