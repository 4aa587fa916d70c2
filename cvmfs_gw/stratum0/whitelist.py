"""Whitelists that do not run out: signed again in time where the master key is, and a warning where it is not."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cvmfs_gw.care.resign import WHITELIST_PATH, resign_whitelist
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.engine.repository import Repository
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.formats.whitelist import SignedWhitelist

log = logging.getLogger(__name__)

RENEW_S: Final = 10 * 86_400
"""A whitelist that is good for less than that is signed again, in seconds. It is good for 30 days at first."""
WARN_S: Final = 7 * 86_400
"""Where it cannot be signed again: how long before its end there are warnings, in seconds."""


@dataclass(frozen=True, slots=True)
class WhitelistState:
    """How long the whitelist is good, in seconds since the epoch, and whether it can be signed here."""

    expires: float
    can_sign: bool


def state(repository: Repository) -> WhitelistState:
    """Raises :exc:`ObjectStoreError` where there is no whitelist that can be read."""
    whitelist = SignedWhitelist.parse(repository.storage.read(WHITELIST_PATH)).whitelist
    master = repository.paths.key_file(repository.fqrn, "masterkey")
    return WhitelistState(whitelist.expires.replace(tzinfo=UTC).timestamp(), os.access(master, os.R_OK))


def renew(repository: Repository, now: float) -> WhitelistState:
    """Sign the whitelist again, whatever is left of it. *now* is the system's time. Raises :exc:`SigningError`."""
    whitelist = resign_whitelist(repository, now)
    log.info("%s: whitelist signed again, good until %s", repository.fqrn, whitelist.expires)
    return WhitelistState(whitelist.expires.replace(tzinfo=UTC).timestamp(), can_sign=True)


def look_after(repository: Repository, now: float) -> WhitelistState | None:
    """Sign the whitelist again if it is time to; returns what it is then, None where it cannot be read."""
    try:
        found = state(repository)
        if found.expires - now >= RENEW_S:
            return found
        if found.can_sign:
            return renew(repository, now)
    except (EngineError, ObjectStoreError, OSError) as error:
        log.error("%s: the whitelist cannot be looked after: %s", repository.fqrn, error)
        return None
    if found.expires - now < WARN_S:
        end = datetime.fromtimestamp(found.expires, UTC)
        log.warning("%s: the whitelist runs out on %s, and the master key is not here", repository.fqrn, end)
    return found
