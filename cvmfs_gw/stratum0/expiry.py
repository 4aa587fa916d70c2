"""When an entry's time is over: an extended attribute of the entry itself.

::

    user.cvmfs.expires = decimal seconds since the epoch, by the clock of times to live

The catalog is the one place that every copy of a repository has. So the time is there after a restart and on another
host, an older revision that comes back brings its own, it is set in the very commit that makes the entry visible,
whoever replaces the file by a publish of their own takes it off, and mounted clients can read it (``getfattr``).
A database beside the repository would have to be kept in step with all of that.

What is due is found without reading everything: counters say which catalogs hold extended attributes at all, and what
was found in a catalog is remembered by its hash, so that after a commit only the changed catalogs are looked at.

A directory that is due goes when it is empty. So a path that uploads have made goes with the last of them, and nothing
dies with its directory.
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
"""Catalogs of which it is remembered when the first of their entries is due."""
_MAX_DIGITS: Final = 12


def expires(entry: Entry) -> int | None:
    """When the entry's time is over, in seconds since the epoch; None: never."""
    if not entry.xattr:
        return None
    try:
        value = unpack_xattrs(entry.xattr).get(ATTRIBUTE, b"")
    except FormatError:
        return None  # nothing dies because it cannot be read
    return int(value) if value.isdigit() and len(value) <= _MAX_DIGITS else None


def with_expiry(entry: Entry, moment: int | None) -> Entry:
    """The same entry with another end, or none. Raises :exc:`FormatError` if it has too many attributes."""
    xattrs = unpack_xattrs(entry.xattr)
    xattrs.pop(ATTRIBUTE, None)
    if moment is not None:
        xattrs[ATTRIBUTE] = b"%d" % moment
    return entry._replace(xattr=pack_xattrs(xattrs))


def later(one: int | None, other: int | None) -> int | None:
    """The later of two ends, of which None is the latest."""
    return None if one is None or other is None else max(one, other)


@dataclass(frozen=True, slots=True)
class _Facts:
    """When the first entry of a catalog itself is due, and the catalogs nested in it that hold any."""

    first: float
    nested: tuple[ContentHash, ...]


class ExpiryIndex:
    """Finds what is due in the trees of one repository. Thread-safe."""

    def __init__(self, catalogs: CatalogStore) -> None:
        self._catalogs = catalogs
        self._facts: OrderedDict[ContentHash, _Facts] = OrderedDict()
        self._lock = threading.Lock()

    def first(self, root: ContentHash) -> float:
        """When the next entry of the tree is due, in seconds since the epoch; infinity: never.

        Raises :exc:`EngineError`.
        """
        moment, waiting = math.inf, [root]
        while waiting:
            facts = self._look(waiting.pop())
            moment = min(moment, facts.first)
            waiting.extend(facts.nested)
        return moment

    def due(self, root: ContentHash, now: float) -> Iterator[tuple[str, int]]:
        """Path and end of every entry of the tree that is due, those in a directory before itself in each catalog.

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
    """Path and end of the entries of a catalog that have one. Its own root directory is its parent's affair."""
    top = catalog.mountpoint
    for path, entry in catalog.with_xattrs():
        if path != top and (moment := expires(entry)) is not None:
            yield path, moment
