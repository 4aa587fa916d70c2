"""How a repository has grown: entries and bytes of its tagged revisions, from the counters of their root catalogs.

A root catalog never changes, so what was read of one is remembered for good; looking again costs what is new.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Final

from cvmfs_gw.engine.publish import load_history
from cvmfs_gw.engine.repository import Repository
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.history import Tag
from cvmfs_objstore.hashes import ContentHash

_log = logging.getLogger(__name__)

MAX_POINTS: Final = 200
"""Tagged revisions that are looked at; of more, some evenly between the first and the last."""
MAX_ROOT: Final = 256 << 20
"""Root catalogs that are larger, in bytes, are left out: a picture is not worth that."""
_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class GrowthPoint:
    """One tagged revision: when it was made (seconds since the epoch), its entries, bytes of files, and catalogs."""

    tag: str
    revision: int
    moment: int
    entries: int
    size: int
    catalogs: int


class Growth:
    """Remembers what root catalogs say. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[ContentHash, tuple[int, int, int] | None] = {}
        self._lock = threading.Lock()

    def of(self, repository: Repository) -> list[GrowthPoint]:
        """The points of a repository, oldest revision first; raises :exc:`EngineError`."""
        with load_history(repository, repository.head()) as history:
            by_revision = {tag.revision: tag for tag in history.tags() if not tag.branch}
        points = []
        for tag in _evenly([by_revision[revision] for revision in sorted(by_revision)]):
            if (facts := self._facts(repository, tag.root_hash)) is not None:
                points.append(GrowthPoint(tag.name, tag.revision, tag.timestamp, *facts))
        return points

    def _facts(self, repository: Repository, root: ContentHash) -> tuple[int, int, int] | None:
        with self._lock:
            if root in self._known:
                return self._known[root]
        try:
            # past the memory of recent catalogs, which commits need
            with Catalog.load(repository.objects.get_plain(root, max_size=MAX_ROOT)) as catalog:
                own, below = catalog.counters()
        except ObjectStoreError as error:
            _log.debug("%s: %s is left out of the picture: %s", repository.fqrn, root, error)
            facts = None
        else:
            nested = own.nested + below.nested
            # the directory of a nested catalog counts in two catalogs
            facts = (own.entries + below.entries - nested, own.file_size + below.file_size, 1 + nested)
        with self._lock:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[root] = facts
        return facts


def _evenly(tags: list[Tag]) -> list[Tag]:
    if len(tags) <= MAX_POINTS:
        return tags
    step = (len(tags) - 1) / (MAX_POINTS - 1)
    return [tags[round(number * step)] for number in range(MAX_POINTS)]
