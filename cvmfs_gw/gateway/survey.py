"""The present state of the repositories, for the status page and monitoring: revision, age, free space."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass

from cvmfs_gw.gateway.heads import Head
from cvmfs_gw.gateway.repositories import Repositories

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """One repository. ``head`` is None if it cannot be read; sizes are in bytes, 0 if unknown."""

    fqrn: str
    enabled: bool
    head: Head | None
    free_bytes: int = 0
    size_bytes: int = 0


async def survey(repositories: Repositories) -> list[RepositoryState]:
    """All repositories, sorted by name. Reads from disk, in a thread."""
    names = [(name, view.enabled) for name, view in sorted(repositories.all().items())]
    return await asyncio.to_thread(lambda: [_look(repositories, name, enabled) for name, enabled in names])


def _look(repositories: Repositories, fqrn: str, enabled: bool) -> RepositoryState:
    try:
        head = repositories.head(fqrn)
        # only a store on a local disk has a folder
        root = getattr(repositories.store(fqrn).storage, "root", None)
        if root is None:
            return RepositoryState(fqrn, enabled, head)
        room = os.statvfs(root)
        return RepositoryState(fqrn, enabled, head, room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize)
    except Exception as error:  # of any kind: the others are shown nevertheless
        log.debug("%s: %s", fqrn, error)
        return RepositoryState(fqrn, enabled, None)
