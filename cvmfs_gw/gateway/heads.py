"""A short-lived cache of repositories' heads, for replies to lease requests: concurrent requests share one read.

Leases are granted more often than repositories change, and reading the head costs more than the rest of a grant.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cvmfs_objstore.hashes import ContentHash

log = logging.getLogger(__name__)

FRESH_S: Final = 0.05
"""For how long a head is cached, in seconds. Publishes by other programs are noticed this late."""


@dataclass(frozen=True, slots=True)
class Head:
    """A repository's present head: revision and root catalog."""

    revision: int
    root_hash: ContentHash
    published_s: int = 0
    """When it was published, in seconds since the epoch."""


class Heads:
    """Heads by repository. To be used from one event loop only.

    *look* tells a repository's present head, or None where it cannot be read; it is called in threads.
    """

    def __init__(self, look: Callable[[str], Head | None]) -> None:
        self._look = look
        self._known: dict[str, tuple[float, Head | None]] = {}
        self._moves: Counter[str] = Counter()

    async def get(self, fqrn: str) -> Head | None:
        """The head, None if it cannot be read; never raises."""
        now = asyncio.get_running_loop().time()
        read_at, head = self._known.get(fqrn, (-FRESH_S, None))
        if now - read_at < FRESH_S:
            return head
        moves = self._moves[fqrn]
        try:
            head = await asyncio.to_thread(self._look, fqrn)
        except Exception:
            log.exception("cannot read the head of %s", fqrn)
            return None
        if moves == self._moves[fqrn]:
            self._known[fqrn] = now, head
        return head

    def moved(self, fqrn: str) -> None:
        """Invalidate the cached head, and one that is being read right now: there is a new one."""
        self._moves[fqrn] += 1
        self._known.pop(fqrn, None)
