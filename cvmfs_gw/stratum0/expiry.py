"""Expiry: the end of an entry's time to live, stored as an extended attribute of the entry.

::

    user.cvmfs.expires = decimal seconds since the epoch, by the clock of times to live

The catalog is part of every copy of a repository. So the expiry is still there after a restart, on another host and
after a rollback; it is set in the same commit that makes the entry visible; it disappears when a publisher replaces the
file; and mounted clients can read it (``getfattr``). A separate database would have to be kept in step with all that.

Expired entries are found without reading everything: counters show which catalogs have extended attributes at all, and
results are cached by the catalog's hash, so that after a commit only changed catalogs are searched.

An expired directory is removed once it is empty. So directories that were created by uploads disappear with their last
entry, and no entry is removed together with its directory.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_objstore.errors import FormatError
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.entry import Entry, pack_xattrs, unpack_xattrs
from cvmfs_objstore.hashes import ContentHash

ATTRIBUTE: Final = "user.cvmfs.expires"
_REMEMBERED: Final = 20_000
"""The number of catalogs for which the time of the first expiry is cached."""
_MAX_DIGITS: Final = 12


def expires(entry: Entry) -> int | None:
    """The expiry of an entry, in seconds since the epoch; None: never."""
    if not entry.xattr:
        return None
    try:
        value = unpack_xattrs(entry.xattr).get(ATTRIBUTE, b"")
    except FormatError:
        return None  # an unreadable attribute must not make an entry expire
    return int(value) if value.isdigit() and len(value) <= _MAX_DIGITS else None


def with_expiry(entry: Entry, moment: int | None) -> Entry:
    """The same entry with another expiry, or none. Raises :exc:`FormatError` if it has too many attributes."""
    xattrs = unpack_xattrs(entry.xattr)
    xattrs.pop(ATTRIBUTE, None)
    if moment is not None:
        xattrs[ATTRIBUTE] = b"%d" % moment
    return entry._replace(xattr=pack_xattrs(xattrs))


def later(one: int | None, other: int | None) -> int | None:
    """The later of two times of expiry; None means never."""
    return None if one is None or other is None else max(one, other)


@dataclass(frozen=True, slots=True)
class _Facts:
    """The first expiry in a catalog itself, and its nested catalogs that have any."""

    first: float
    nested: tuple[ContentHash, ...]


class ExpiryIndex:
    """Finds expired entries in the trees of one repository. Thread-safe."""

    def __init__(self, catalogs: CatalogStore) -> None:
        self._catalogs = catalogs
        self._facts: OrderedDict[ContentHash, _Facts] = OrderedDict()
        self._lock = threading.Lock()

    def first(self, root: ContentHash) -> float:
        """The next expiry in the tree, in seconds since the epoch; infinity: never.

        Raises :exc:`EngineError`.
        """
        moment, waiting = math.inf, [root]
        while waiting:
            facts = self._look(waiting.pop())
            moment = min(moment, facts.first)
            waiting.extend(facts.nested)
        return moment

    def due(self, root: ContentHash, now: float) -> Iterator[tuple[str, int]]:
        """Path and expiry of every expired entry of the tree; within a catalog, the content of a directory before it.

        Raises :exc:`EngineError`.
        """
        waiting = [root]
        while waiting:
            ref = waiting.pop()
            facts = self._look(ref)
            waiting.extend(facts.nested)
            if facts.first <= now:
                with self._catalogs.load(ref) as catalog:
                    found = [(path, moment) for path, moment in _ends(catalog) if moment <= now]
                yield from sorted(found, key=lambda item: item[0].count("/"), reverse=True)

    def _look(self, ref: ContentHash) -> _Facts:
        with self._lock:
            known = self._facts.get(ref)
            if known is not None:
                self._facts.move_to_end(ref)
                return known
        with self._catalogs.load(ref) as catalog:
            facts = _facts(catalog)
        with self._lock:
            self._facts[ref] = facts
            if len(self._facts) > _REMEMBERED:
                self._facts.popitem(last=False)
        return facts


def _facts(catalog: Catalog) -> _Facts:
    own, below = catalog.counters()
    first = min((moment for _, moment in _ends(catalog)), default=math.inf) if own.xattr else math.inf
    nested = tuple(ref.hash for ref in catalog.nested().values()) if below.xattr else ()
    return _Facts(first, nested)


def _ends(catalog: Catalog) -> Iterator[tuple[str, int]]:
    """Path and expiry of the entries of a catalog that have one. The root of a nested catalog is left to its parent."""
    top = catalog.mountpoint
    for path, entry in catalog.with_xattrs():
        if path != top and (moment := expires(entry)) is not None:
            yield path, moment
