"""Whitelists that do not run out: signed again in time where the master key is, and a warning where it is not."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Final

from cvmfs_gw.care.resign import WhitelistState, resign_whitelist, whitelist_state
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.engine.repository import Repository
from cvmfs_objstore.errors import ObjectStoreError

log = logging.getLogger(__name__)

RENEW_S: Final = 10 * 86_400
"""A whitelist that is good for less than that is signed again, in seconds. It is good for 30 days at first."""
WARN_S: Final = 7 * 86_400
"""Where it cannot be signed again: how long before its end there are warnings, in seconds."""


def look_after(repository: Repository, now: float) -> WhitelistState | None:
    """Sign the whitelist again if it is time to; returns what it is then, None where it cannot be read."""
    try:
        found = whitelist_state(repository)
        if found.expires - now >= RENEW_S:
            return found
        if found.can_sign:
            whitelist = resign_whitelist(repository, now)
            log.info("%s: whitelist signed again, good until %s", repository.fqrn, whitelist.expires)
            return whitelist_state(repository)
    except (EngineError, ObjectStoreError, OSError) as error:
        log.error("%s: the whitelist cannot be looked after: %s", repository.fqrn, error)
        return None
    if found.expires - now < WARN_S:
        end = datetime.fromtimestamp(found.expires, UTC)
        log.warning("%s: the whitelist runs out on %s, and the master key is not here", repository.fqrn, end)
    return found
