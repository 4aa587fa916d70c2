"""A repository's revision as a tree of catalogs, to read and to change.

A change works on copies of the catalogs that it touches and remembers which; :meth:`Tree.build` then does what a
publisher does: counters, ``revision`` and ``previous_revision`` of each touched catalog, from the deepest to the root.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from conformance.catalog import (
    COUNTERS,
    Catalog,
    Counters,
    as_mountpoint,
    as_nested_root,
    as_plain,
    parent_of,
    path_key,
)
from conformance.entry import CHUNKED, FILE, Chunk, Entry, directory
from conformance.objects import NO_HASH, StoredObject, algorithm_of, stored
from conformance.outcomes import Failed

Fetch = Callable[[str], bytes]
"""Gives the (uncompressed) file of a catalog by its name."""


@dataclass(frozen=True, slots=True)
class Built:
    """A new revision that is not yet committed: the root catalog that it was made from, its own, and all objects."""

    base: str
    root: str
    objects: tuple[StoredObject, ...]


class Tree:
    """The revision whose root catalog is *root*. Paths are ``""`` for the root directory, or ``/a/b``."""

    def __init__(self, root: str, fetch: Fetch) -> None:
        self.root = root
        self._fetch = fetch
        self._names: dict[str, str] = {"": root}
        self._open: dict[str, Catalog] = {}
        self._dirty: set[str] = set()
        self._before: dict[str, Counters] = {}
        self._objects: list[StoredObject] = []
        self._algorithm = algorithm_of(root)

    # --- reading --------------------------------------------------------------------------------------------------

    def catalog(self, prefix: str = "") -> Catalog:
        """The catalog that begins at *prefix*."""
        if prefix not in self._open:
            self._open[prefix] = Catalog(self._fetch(self._names[prefix]))
            self._before[prefix] = self._totals(self._open[prefix])
        return self._open[prefix]

    def holder(self, path: str) -> Catalog:
        """The catalog that the entries below *path* are in."""
        found = self.catalog("")
        while True:
            inner = [p for p in found.nested() if path == p or path.startswith(p + "/")]
            if not inner:
                return found
            prefix = min(inner, key=len)
            self._names.setdefault(prefix, found.nested()[prefix][0])
            found = self.catalog(prefix)

    def get(self, path: str) -> Entry | None:
        """The entry at *path*; None if there is none."""
        return self.holder(path).get(path)

    def need(self, path: str) -> Entry:
        """The same; raises :exc:`Failed`."""
        entry = self.get(path)
        if entry is None:
            raise Failed(f"{path or 'the root directory'} is not there in the published revision")
        return entry

    def children(self, path: str) -> dict[str, Entry]:
        return dict(self.holder(path).children(path))

    def walk(self, path: str = "") -> Iterator[tuple[str, Entry]]:
        """*path* and everything below."""
        entry = self.get(path)
        if entry is None:
            return
        yield path, entry
        if entry.is_directory:
            for child, found in self.children(path).items():
                if found.is_directory:
                    yield from self.walk(child)
                else:
                    yield child, found

    def prefixes(self) -> list[str]:
        """Where nested catalogs begin, all of them, after the root's ``""``."""
        found, waiting = [], [""]
        while waiting:
            prefix = waiting.pop(0)
            found.append(prefix)
            for inner, (name, _) in self.catalog(prefix).nested().items():
                self._names[inner] = name
                waiting.append(inner)
        return found

    def name_of(self, prefix: str) -> str:
        """The name of the catalog that begins at *prefix*."""
        return self._names[prefix]

    # --- changing -------------------------------------------------------------------------------------------------

    def put(self, path: str, entry: Entry) -> None:
        """Add or replace an entry. What was below a directory that is replaced by something else goes with it."""
        old = self.get(path)
        if old is not None and old.is_directory and not entry.is_directory:
            self.remove(path)
            old = None
        if old is not None and old.is_directory:
            entry = replace(entry, links=old.links, flags=old.flags)
            if old.is_nested_root:
                above = self._touch(self.holder(parent_of(path)))
                above.put(path, replace(entry, flags=as_mountpoint(entry.flags)))
            self._touch(self.holder(path)).put(path, entry)
            return
        self._touch(self.holder(path)).put(path, entry)
        if entry.is_directory:
            self._count_links(parent_of(path), 1)

    def put_file(self, path: str, content: bytes, mode: int = 0o644) -> Entry:
        """Add or replace a file, whose content becomes an object."""
        made = self.add_object(content)
        digest = bytes.fromhex(made.name[:40])
        entry = Entry(0o100000 | mode, len(content), hash=digest, flags=FILE | self._hash_flags())
        self.put(path, entry)
        return entry

    def put_chunked(self, path: str, pieces: list[bytes]) -> Entry:
        """A file in chunks."""
        chunks, offset = [], 0
        for piece in pieces:
            made = self.add_object(piece, "P")
            chunks.append(Chunk(offset, len(piece), bytes.fromhex(made.name[:40])))
            offset += len(piece)
        entry = Entry(0o100644, offset, flags=FILE | CHUNKED | self._hash_flags(), chunks=tuple(chunks))
        self.put(path, entry)
        return entry

    def make_directories(self, path: str) -> None:
        """Make *path* and what is missing above."""
        if path and self.get(path) is None:
            self.make_directories(parent_of(path))
            self.put(path, directory())

    def remove(self, path: str) -> None:
        """Remove an entry and everything below."""
        entry = self.get(path)
        if entry is None:
            return
        if entry.is_directory:
            if entry.is_nested_root:
                self.unnest(path)
            for child in list(self.children(path)):
                self.remove(child)
            self._count_links(parent_of(path), -1)
        self._touch(self.holder(path)).delete(path)

    def fill(self, path: str, count: int) -> None:
        """Put many small files, all with the same content, into a directory that is made for them."""
        self.make_directories(path)
        entry = self.put_file(f"{path}/f", b"the same for all")
        catalog = self.holder(path)
        for number in range(count):
            catalog.put(f"{path}/f{number}", entry)

    def clear(self, path: str) -> None:
        """Remove a directory with nothing but files in it, however many."""
        catalog = self._touch(self.holder(path))
        catalog.db.execute("DELETE FROM catalog WHERE parent_1 = ? AND parent_2 = ?", path_key(path))
        self.remove(path)

    def nest(self, path: str) -> None:
        """Make a nested catalog of a directory, with the file that says so."""
        if self.get(f"{path}/.cvmfscatalog") is None:
            self.put_file(f"{path}/.cvmfscatalog", b"")
        outer = self._touch(self.holder(path))
        inner = outer.blank(path)
        self._before[path] = dict.fromkeys(COUNTERS, 0)
        entry = outer.get(path)
        if entry is None:
            raise ValueError(path)
        self._move(outer, inner, path)
        inner.put(path, replace(entry, flags=as_nested_root(entry.flags)))
        outer.put(path, replace(entry, flags=as_mountpoint(entry.flags)))
        outer.set_nested(path, NO_HASH, 0)
        self._names[path] = NO_HASH
        self._open[path] = inner
        self._dirty.add(path)

    def unnest(self, path: str) -> None:
        """Dissolve a nested catalog into the one above."""
        inner = self.holder(path)
        outer = self._touch(self.holder(parent_of(path)))
        entry = inner.get(path)
        if entry is None:
            raise ValueError(path)
        for prefix, (name, size) in inner.nested().items():
            outer.set_nested(prefix, name, size)
        outer.drop_nested(path)
        self._move(inner, outer, path)
        outer.put(path, replace(entry, flags=as_plain(entry.flags)))
        self._gone(path)

    def add_object(self, content: bytes, suffix: str = "") -> StoredObject:
        """An object that is to be uploaded."""
        made = stored(content, self._algorithm, suffix)
        self._objects.append(made)
        return made

    def touch(self, prefix: str = "") -> None:
        """Have a catalog written although nothing in it changes."""
        self.catalog(prefix)
        self._dirty.add(prefix)

    # --- the result -----------------------------------------------------------------------------------------------

    def build(self, *, revision: int | None = None, previous: str | None = None) -> Built:
        """Write the catalogs. The root's revision and previous revision are the next ones unless told otherwise."""
        base = self._names[""]
        self._dirty.add("")
        changes: dict[str, Counters] = {}
        for prefix in sorted(self._dirty, key=len, reverse=True):
            catalog = self.catalog(prefix)
            own = catalog.count()
            below = changes.pop(prefix, None) or dict.fromkeys(COUNTERS, 0)
            stated = catalog.counters()
            for name in COUNTERS:
                catalog.set_counter(f"self_{name}", own[name])
                catalog.set_counter(f"subtree_{name}", stated.get(f"subtree_{name}", 0) + below[name])
            difference = {name: value - self._before[prefix][name] for name, value in self._totals(catalog).items()}
            if prefix:
                outer = self._outer(prefix)
                waiting = changes.setdefault(outer, dict.fromkeys(COUNTERS, 0))
                for name in COUNTERS:
                    waiting[name] += difference[name]
            number = int(catalog.property("revision") or 0) + 1
            catalog.set_property("revision", revision if revision is not None and not prefix else number)
            replaced = previous if previous is not None and not prefix else self._names[prefix]
            catalog.set_property("previous_revision", replaced[:40] + algorithm_of(replaced))
            catalog.set_property("last_modified", int(time.time()))
            data = catalog.data()
            made = stored(data, self._algorithm, "C")
            self._objects.append(made)
            if prefix:
                self._touch(self.catalog(outer)).set_nested(prefix, made.name, len(data))
            self._names[prefix] = made.name
        for prefix, lost in changes.items():
            raise AssertionError(f"{prefix!r} was not written although something below it was: {lost}")
        self._dirty.clear()
        unique = {(each.name, each.suffix): each for each in self._objects}
        return Built(base, self._names[""], tuple(unique.values()))

    # --- inside ---------------------------------------------------------------------------------------------------

    def _touch(self, catalog: Catalog) -> Catalog:
        prefix = catalog.prefix
        self._dirty.add(prefix)
        while prefix:
            prefix = self._outer(prefix)
            self._dirty.add(prefix)
        return catalog

    def _outer(self, prefix: str) -> str:
        return self.holder(parent_of(prefix)).prefix

    def _move(self, source: Catalog, target: Catalog, path: str) -> None:
        """Everything below *path*, up to where the next nested catalogs begin."""
        for child, entry in list(source.children(path)):
            target.put(child, entry)
            source.delete(child)
            if entry.is_mountpoint and child in (nested := source.nested()):
                target.set_nested(child, *nested[child])
                source.drop_nested(child)
            elif entry.is_directory:
                self._move(source, target, child)

    def _gone(self, prefix: str) -> None:
        """A nested catalog was dissolved: what it counted for is no longer counted below."""
        catalog = self._open.pop(prefix)
        lost = self._before.pop(prefix)
        stated = catalog.counters()
        self._dirty.discard(prefix)
        del self._names[prefix]
        # Its own entries are counted again where they are now; what is nested deeper stays below the outer catalog.
        outer = self.catalog(self._outer(prefix))
        counted = outer.counters()
        for name in COUNTERS:
            own = lost[name] - stated.get(f"subtree_{name}", 0)
            outer.set_counter(f"subtree_{name}", counted.get(f"subtree_{name}", 0) - own)
        catalog.close()

    @staticmethod
    def _totals(catalog: Catalog) -> Counters:
        stated = catalog.counters()
        return {name: stated.get(f"self_{name}", 0) + stated.get(f"subtree_{name}", 0) for name in COUNTERS}

    def _count_links(self, path: str, number: int) -> None:
        catalog = self.holder(path)
        entry = catalog.get(path)
        if entry is None:
            raise ValueError(f"{path} is not there")
        self._touch(catalog).put(path, replace(entry, links=entry.links + number))
        if path and path == catalog.prefix:
            outer = self.catalog(self._outer(path))
            row = outer.get(path)
            if row is not None:
                self._touch(outer).put(path, replace(row, links=entry.links + number))

    def _hash_flags(self) -> int:
        return {"": 0, "-rmd160": 1, "-shake128": 2}[self._algorithm] << 8
