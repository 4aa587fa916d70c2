"""Looking inside a repository: what is where, how large it is, and what an object belongs to.

A revision's catalogs are opened one after the other, and only one at a time, so that memory is bounded by the largest
of them. What lies below a path is asked of the catalogs that hold it; where only sums are wanted, a nested catalog's
counters stand for all that is in it and below.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from cvmfs_gw.care.digests import DigestSet, size_of
from cvmfs_gw.engine.errors import TagError
from cvmfs_gw.engine.publish import load_history
from cvmfs_gw.engine.repository import Repository
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.entry import Entry, Kind, PathKey, is_below, parent_path, path_key
from cvmfs_objstore.hashes import ContentHash

SPLIT_FROM: Final = 100_000
"""Entries in one catalog from which a place to split it is looked for; publishers warn at 200,000."""

OnCatalog = Callable[[str], None]
"""Told the mountpoint of each catalog that is opened."""
_FILES: Final = "flags & 4 AND NOT flags & 8"


def _ignore(mountpoint: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class OpenCatalog:
    """One catalog while it is open: where it is mounted, its name, how many catalogs are above it."""

    mountpoint: str
    ref: ContentHash
    depth: int
    catalog: Catalog


class Census:
    """Questions about one revision, that of the root catalog *root*. All raise :exc:`EngineError`.

    *on_catalog* is for showing progress.
    """

    def __init__(self, repository: Repository, root: ContentHash, on_catalog: OnCatalog = _ignore) -> None:
        self._repository, self._root, self._on_catalog = repository, root, on_catalog

    def catalogs_total(self) -> int:
        """How many catalogs the revision has."""
        with self._repository.catalogs.load(self._root) as catalog:
            own, below = catalog.counters()
        return 1 + own.nested + below.nested

    def _catalogs(self, wanted: Callable[[str, str], bool] = lambda parent, path: True) -> Iterator[OpenCatalog]:
        """Catalogs, parents first; those nested in *parent* that are *wanted*. Each is closed before the next."""
        waiting = [("", self._root, 0)]
        while waiting:
            mountpoint, ref, depth = waiting.pop()
            self._on_catalog(mountpoint)
            with self._repository.catalogs.load(ref) as catalog:
                nested = sorted(catalog.nested().items(), reverse=True)
                waiting.extend((path, found.hash, depth + 1) for path, found in nested if wanted(mountpoint, path))
                yield OpenCatalog(mountpoint, ref, depth, catalog)

    def _around(self, top: str) -> Iterator[OpenCatalog]:
        """The catalogs on the way to *top* and below it."""
        return self._catalogs(lambda parent, path: _touches(path, top))

    def _holds(self, found: OpenCatalog, top: str) -> bool:
        """Whether content of *top* is in this catalog: none of its nested ones lies at or above it."""
        return is_below(found.mountpoint, top) or not any(is_below(top, path) for path in found.catalog.nested())

    # -- tree and sizes

    def tree(self, top: str = "", depth: int | None = None) -> Iterator[tuple[str, Entry]]:
        """Path and entry of *top* and of what is below it, down to *depth* levels; catalog by catalog.

        Raises :exc:`TagError` if there is nothing at *top*.
        """
        level = top.count("/")
        seen = False

        def is_wanted(parent: str, path: str) -> bool:
            return _touches(path, top) and (depth is None or path.count("/") - level < max(depth, 1))

        for found in self._catalogs(is_wanted):
            if not self._holds(found, top):
                continue
            inside = found.mountpoint != top and is_below(found.mountpoint, top)
            start = found.mountpoint if inside else top
            entry = found.catalog.get(start)
            if entry is not None and not inside:
                seen = True
                yield start, entry
            if entry is not None and entry.is_directory:
                room = None if depth is None else depth - (start.count("/") - level)
                yield from _walk(found.catalog, start, room)
        if not seen:
            raise TagError(f"there is nothing at {top or '/'}")

    def sizes(self, top: str = "", depth: int = 1) -> list[DirectorySize]:
        """Directories at and below *top*, down to *depth* levels, with all that is in them, the largest first."""
        level = top.count("/")
        sums: dict[str, DirectorySize] = {}

        def add(directory: str, entries: int, size: int) -> None:
            """Count something in *directory*, for it and for those above it that are shown."""
            parts = directory.split("/")
            for end in range(level + 1, min(len(parts), level + depth + 1) + 1):
                place = "/".join(parts[:end])
                found = sums.setdefault(place, DirectorySize(place))
                found.entries += entries
                found.size += size

        def is_summed_up(mountpoint: str) -> bool:
            return is_below(mountpoint, top) and mountpoint.count("/") - level >= depth

        for found in self._catalogs(lambda parent, path: _touches(path, top) and not is_summed_up(parent)):
            here = found.mountpoint
            if is_summed_up(here):
                own, below = found.catalog.counters()
                # the directory of a nested catalog is counted twice: where it is mounted, too
                again = 1 + own.nested + below.nested
                add(here, own.entries + below.entries - again, own.file_size + below.file_size)
            elif self._holds(found, top):
                start = here if is_below(here, top) else top
                add(start, 0, 0)
                for path, entry in _walk(found.catalog, start, None):
                    add(parent_path(path), 1, entry.size if entry.kind is Kind.FILE else 0)
                    if entry.is_directory:
                        add(path, 0, 0)
        return sorted(sums.values(), key=lambda each: (-each.size, each.path))

    def largest(self, top: str = "", number: int = 20) -> list[tuple[str, int]]:
        """Path and size in bytes of the largest files at and below *top*."""
        best: list[tuple[int, str]] = []
        for found in self._around(top):
            sql = f"SELECT md5path_1, md5path_2, size FROM catalog WHERE {_FILES} ORDER BY size DESC"
            taken = 0
            for a, b, size in found.catalog.connection.execute(sql):
                if taken >= number or (len(best) >= number and size <= best[0][0]):
                    break
                path = path_of(found, (a, b))
                if is_below(path, top):
                    taken += 1
                    heapq.heappush(best, (size, path))
                    if len(best) > number:
                        heapq.heappop(best)
        return [(path, size) for size, path in sorted(best, key=lambda each: (-each[0], each[1]))]

    # -- catalogs

    def catalogs(self) -> Iterator[CatalogShape]:
        """All catalogs, parents first."""
        for found in self._catalogs():
            own, below = found.catalog.counters()
            split = _where_to_split(found) if own.entries >= SPLIT_FROM else ()
            size = self._repository.objects.size(found.ref)
            yield CatalogShape(
                found.mountpoint, found.ref, found.depth, own.entries, own.entries + below.entries, size, split
            )

    # -- objects

    def owners(self, name: ContentHash) -> Iterator[str]:
        """What the object of that digest is, in words, one for each place. Its suffix does not matter."""
        yield from self._named_by_head(name)
        for found in self._catalogs():
            if found.ref.digest == name.digest:
                yield f"catalog of {found.mountpoint or '/'}"
            connection = found.catalog.connection
            for a, b in connection.execute("SELECT md5path_1, md5path_2 FROM catalog WHERE hash = ?", (name.digest,)):
                yield f"content of {path_of(found, (a, b))}"
            sql = "SELECT md5path_1, md5path_2, offset, size FROM chunks WHERE hash = ?"
            for a, b, offset, size in connection.execute(sql, (name.digest,)):
                yield f"chunk of {path_of(found, (a, b))}, {size} bytes at {offset}"

    def _named_by_head(self, name: ContentHash) -> Iterator[str]:
        repository = self._repository
        head = repository.head()
        for what, ref in (
            ("certificate", head.certificate), ("tag database", head.history), ("meta info", head.meta_info),
        ):  # fmt: skip
            if ref is not None and ref.digest == name.digest:
                yield f"{what} of the head"
        with load_history(repository, head) as history:
            yield from (
                f"root catalog of tag {tag.name}" for tag in history.tags() if tag.root_hash.digest == name.digest
            )
        with closing(repository.reflog(head)) as reflog:
            yield from (f"in the reflog as {ref}" for ref, _ in reflog.refs() if ref.digest == name.digest)

    def duplicates(self) -> Duplicates:
        """How often contents are referred to, and how much is saved by storing each once."""
        seen = DigestSet(sizes=True)
        references = size = 0
        for found in self._catalogs():
            seen.add_references(found.catalog.connection)
            for sql in (
                f"SELECT count(*), sum(size) FROM catalog WHERE {_FILES} AND NOT flags & 128 AND hash IS NOT NULL",
                "SELECT count(*), sum(size) FROM chunks",
            ):
                number, total = found.catalog.connection.execute(sql).fetchone()
                references += number
                size += total or 0
        objects = unique = 0
        for record in seen:
            objects += 1
            unique += size_of(record)
        return Duplicates(references, size, objects, unique)


@dataclass(slots=True)
class DirectorySize:
    """A directory with all that is below it: entries without itself, bytes of files."""

    path: str
    entries: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class CatalogShape:
    """A catalog: its own entries, those of all below and itself, bytes as stored, and where it might be split."""

    mountpoint: str
    ref: ContentHash
    depth: int
    entries: int
    subtree: int
    size: int
    split: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """References to contents and their bytes, and how much is left when each counts once. Bytes before compression."""

    references: int
    size: int
    objects: int
    unique: int

    @property
    def ratio(self) -> float:
        """How many times larger the repository would be if nothing were shared."""
        return self.size / self.unique if self.unique else 1.0


def path_of(found: OpenCatalog, key: PathKey) -> str:
    """The path of a row of a catalog, by way of the rows above it; raises :exc:`TagError` if that leads nowhere."""
    names: list[str] = []
    top = path_key(found.mountpoint)
    sql = "SELECT name, parent_1, parent_2 FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?"
    while key != top:
        row = found.catalog.connection.execute(sql, key).fetchone()
        if row is None or len(names) > 4096:
            raise TagError(f"catalog {found.ref} has a row that hangs in the air")
        names.append(row[0])
        key = (row[1], row[2])
    return found.mountpoint + "".join(f"/{name}" for name in reversed(names))


def _touches(path: str, top: str) -> bool:
    """Whether one of two paths is the other one or lies above it."""
    return is_below(path, top) or is_below(top, path)


def _walk(catalog: Catalog, top: str, depth: int | None) -> Iterator[tuple[str, Entry]]:
    """What a catalog holds below *top*, in the order of a listing, down to *depth* levels."""
    waiting = [(top, _listing(catalog, top))] if depth is None or depth > 0 else []
    while waiting:
        directory, entries = waiting[-1]
        if not entries:
            waiting.pop()
            continue
        entry = entries.pop()
        path = f"{directory}/{entry.name}"
        yield path, entry
        if entry.is_directory and (depth is None or len(waiting) < depth):
            waiting.append((path, _listing(catalog, path)))


def _listing(catalog: Catalog, directory: str) -> list[Entry]:
    """The entries of a directory, the last one first."""
    return sorted(catalog.children(directory), key=lambda entry: entry.name, reverse=True)


def _where_to_split(found: OpenCatalog, number: int = 3) -> tuple[tuple[str, int], ...]:
    """The directories whose content would make the best nested catalogs: nearest to half of this one."""
    connection = found.catalog.connection
    parents: dict[PathKey, PathKey] = {}
    counts: dict[PathKey, int] = {}
    for a, b, c, d in connection.execute(
        "SELECT md5path_1, md5path_2, parent_1, parent_2 FROM catalog WHERE flags & 1"
    ):
        parents[a, b] = (c, d)
    for a, b, n in connection.execute("SELECT parent_1, parent_2, count(*) FROM catalog GROUP BY 1, 2"):
        key = (a, b)
        # to the directory itself and all above it; a damaged catalog may go in a circle
        for _ in range(4096):
            if key not in parents:
                break
            counts[key] = counts.get(key, 0) + n
            key = parents[key]
    total = found.catalog.counters()[0].entries
    top = path_key(found.mountpoint)
    counts.pop(top, None)
    best = heapq.nsmallest(number, counts.items(), key=lambda item: abs(item[1] - total // 2))
    return tuple((path_of(found, key), count) for key, count in best)
