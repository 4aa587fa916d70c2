"""Checks one catalog row by row: every fault that can be found without opening another catalog.

:mod:`cvmfs_gw.care.check_entry` checks each entry by itself; this module checks how the rows relate to each other.

Nothing is assumed of a catalog except that SQLite can read it: rows may have any type, refer to anything, and form
cycles.

Source: what ``cvmfs_swissknife check`` demands. Divergence: also found here are keys that do not match their paths (the
reference looks entries up by parent and never notices), values of wrong types, chunks of non-existent entries, and hard
link groups that span several directories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cvmfs_gw.care.check_entry import entry_faults, is_name
from cvmfs_gw.care.faults import FaultKind
from cvmfs_objstore.errors import FormatError, InvalidHash
from cvmfs_objstore.formats.catalog import ENTRY_COLUMNS, Catalog, NestedRef
from cvmfs_objstore.formats.entry import (
    COUNTER_NAMES,
    FLAG_BIND_MOUNTPOINT,
    FLAG_DIRECT_IO,
    FLAG_DIRECTORY,
    FLAG_EXTERNAL,
    FLAG_MOUNTPOINT,
    FLAG_NESTED_ROOT,
    FLAG_SPECIAL,
    NO_PARENT,
    Counters,
    Entry,
    Kind,
    PathKey,
    parent_path,
    path_key,
)
from cvmfs_objstore.hashes import ContentHash, Suffix

MARKER: Final = ".cvmfscatalog"
_COLUMNS: Final = ", ".join(ENTRY_COLUMNS)
_INTEGERS: Final = ("md5path_1", "md5path_2", "parent_1", "parent_2", "hardlinks", "size", "mode", "mtime", "flags")
_BAD_ROW: Final = " OR ".join(
    (
        *(f"typeof({column}) != 'integer'" for column in (*_INTEGERS, "uid", "gid")),
        *(f"typeof({column}) != 'text'" for column in ("name", "symlink")),
        "typeof(mtimens) NOT IN ('integer', 'null')",
        "typeof(xattr) NOT IN ('blob', 'null')",
        "hash IS NOT NULL AND (typeof(hash) != 'blob' OR length(hash) NOT IN (0, 20))",
    )
)
_BAD_CHUNK: Final = (
    "typeof(offset) != 'integer' OR typeof(size) != 'integer' OR typeof(hash) != 'blob' OR length(hash) != 20"
)
_ORPHANED_CHUNKS: Final = (
    "SELECT count(*), min(coalesce(e.name, '')) FROM chunks c LEFT JOIN catalog e"
    " ON e.md5path_1 = c.md5path_1 AND e.md5path_2 = c.md5path_2 WHERE e.flags IS NULL OR NOT e.flags & 64"
)
_SHOWN_ROWS: Final = 20
_REVISION_LIMIT: Final = 1 << 31  # readers take 32 bits of it
_SINCE_REVISION: Final = (
    (1, "sizes of nested catalogs", "SELECT 1 FROM nested_catalogs WHERE size IS NOT NULL"),
    (2, "extended attributes", "SELECT 1 FROM catalog WHERE xattr IS NOT NULL"),
    (3, "external files", f"SELECT 1 FROM catalog WHERE flags & {FLAG_EXTERNAL}"),
    (4, "bind mountpoints", "SELECT 1 FROM bind_mountpoints"),
    (5, "special files", f"SELECT 1 FROM catalog WHERE flags & {FLAG_SPECIAL}"),
    (6, "direct I/O", f"SELECT 1 FROM catalog WHERE flags & {FLAG_DIRECT_IO}"),
    (7, "nanoseconds", "SELECT 1 FROM catalog WHERE mtimens IS NOT NULL"),
)
"""Features by the schema revision that introduced them: readers trust the number and ignore newer features."""
Report = Callable[[FaultKind, str, str], None]
"""Takes the kind of a fault, the path, and the details."""


class _Row(NamedTuple):
    key: PathKey
    parent: PathKey
    entry: Entry


@dataclass(slots=True)
class _Directory:
    """A directory of the catalog while its content is checked."""

    parent: PathKey
    entry: Entry
    path: str | None = None
    subdirectories: int = 0
    children: int = 0
    marker: bool = False


@dataclass(slots=True)
class Inspected:
    """The content of a catalog: its root entry, its mountpoints' rows, and the counters computed from its rows."""

    root: Entry | None = None
    transitions: dict[str, Entry] = field(default_factory=dict)
    nested: dict[str, NestedRef] = field(default_factory=dict)
    own: Counters = field(default_factory=Counters)


def inspect_catalog(catalog: Catalog, mountpoint: str, report: Report) -> Inspected:
    """Check *catalog*, which is registered for *mountpoint*. Raises ``sqlite3.Error`` if it is damaged."""
    return _Inspection(catalog, mountpoint, report).run()


class _Inspection:
    def __init__(self, catalog: Catalog, mountpoint: str, report: Report) -> None:
        self._catalog, self._mountpoint, self._report = catalog, mountpoint, report
        self._connection = catalog.connection
        self._directories: dict[PathKey, _Directory] = {}
        self._groups: dict[int, list[tuple[str, PathKey, Entry]]] = {}
        self._binds: set[str] = set()
        self._result = Inspected()

    def run(self) -> Inspected:
        self._check_properties()
        self._check_types()
        self._result.nested = self._registrations("nested_catalogs")
        bound = self._registrations("bind_mountpoints")
        for path in sorted(self._result.nested.keys() & bound.keys()):
            self._report(FaultKind.NESTED_AND_BIND, path, "registered twice")
        self._read_directories()
        for row in self._rows():
            self._check_row(row)
        self._check_directories()
        self._check_groups()
        self._check_nesting(bound)
        self._check_chunk_owners()
        self._result.own.nested = len(self._result.nested)
        return self._result

    @property
    def _place(self) -> str:
        return self._mountpoint or "/"

    def _check_properties(self) -> None:
        catalog = self._catalog
        if catalog.mountpoint != self._mountpoint:
            self._report(FaultKind.CATALOG_PREFIX, self._place, f"it belongs to {catalog.mountpoint or '/'}")
        for name in ("revision", "TTL", "last_modified"):
            try:
                if catalog.int_property(name, 0) < 0:
                    raise FormatError(f"{name} is negative")
            except FormatError as error:
                self._report(FaultKind.CATALOG_PROPERTY, self._place, str(error))
        if not 0 <= catalog.loaded_revision < _REVISION_LIMIT:
            detail = f"schema revision {catalog.loaded_revision}"
            self._report(FaultKind.CATALOG_PROPERTY, self._place, detail)
        unseen = [
            what
            for revision, what, sql in _SINCE_REVISION
            if revision > catalog.loaded_revision and self._connection.execute(f"{sql} LIMIT 1").fetchone()
        ]
        if unseen:
            detail = f"revision {catalog.loaded_revision}, with {', '.join(unseen)}"
            self._report(FaultKind.CATALOG_SCHEMA, self._place, detail)
        try:
            catalog.previous_revision  # noqa: B018 (asked for what it raises)
        except FormatError as error:
            self._report(FaultKind.CATALOG_PROPERTY, self._place, str(error))

    def _check_types(self) -> None:
        for table, bad, what in (("catalog", _BAD_ROW, "name"), ("chunks", _BAD_CHUNK, "offset")):
            sql = f"SELECT {what} FROM {table} WHERE {bad} LIMIT {_SHOWN_ROWS}"
            for (value,) in self._connection.execute(sql):
                self._report(FaultKind.ROW_TYPE, self._place, f"{table}, {what} {str(value)[:80]!r}")

    def _registrations(self, table: str) -> dict[str, NestedRef]:
        found: dict[str, NestedRef] = {}
        for path, text, size in self._connection.execute(f"SELECT path, sha1, size FROM {table}"):
            try:
                if not isinstance(path, str) or path[:1] != "/" or path[-1:] == "/":
                    raise ValueError("not a path below the root")
                found[path] = NestedRef(ContentHash.parse(text, Suffix.CATALOG), int(size or 0))
            except (InvalidHash, TypeError, ValueError) as error:
                self._report(FaultKind.NESTED_INVALID, str(path)[:200], f"{table}: {error}")
        return found

    # -- rows

    def _rows(self, where: str = "") -> Iterator[_Row]:
        sql = f"SELECT md5path_1, md5path_2, parent_1, parent_2, {_COLUMNS} FROM catalog WHERE NOT ({_BAD_ROW}) {where}"
        for row in self._connection.execute(sql):
            yield _Row(row[:2], row[2:4], Entry._make(row[4:]))

    def _read_directories(self) -> None:
        """Read all directories and determine their paths, starting from the catalog's root."""
        for key, parent, entry in self._rows("AND flags & 1"):
            self._directories[key] = _Directory(parent, entry)
        top = path_key(self._mountpoint)
        root = self._directories.get(top)
        if root is None:
            row = self._catalog.get_key(top)
            kind = FaultKind.ROOT_ENTRY_MISSING if row is None else FaultKind.ROOT_ENTRY_KIND
            self._report(kind, self._place, "")
            return
        self._result.root = root.entry
        root.path = self._mountpoint
        expected = path_key(parent_path(self._mountpoint)) if self._mountpoint else NO_PARENT
        if root.parent != expected:
            self._report(FaultKind.PATH_HASH, self._place, "the root entry has the wrong parent")
        if bool(root.entry.flags & FLAG_NESTED_ROOT) != bool(self._mountpoint):
            self._report(FaultKind.ROOT_ENTRY_KIND, self._place, f"flags {root.entry.flags:#x}")
        by_parent: dict[PathKey, list[PathKey]] = {}
        for key, directory in self._directories.items():
            if key != top:
                by_parent.setdefault(directory.parent, []).append(key)
        level = [top]
        while level:
            following: list[PathKey] = []
            for key in level:
                above = self._directories[key]
                for below in by_parent.pop(key, ()):
                    directory = self._directories[below]
                    directory.path = f"{above.path}/{directory.entry.name}"
                    following.append(below)
            level = following

    def _check_row(self, row: _Row) -> None:
        key, parent, entry = row
        flags, chunk_count = entry.flags, 0
        above = self._directories.get(parent)
        if key == path_key(self._mountpoint):
            path = self._mountpoint
            above = None
        elif above is None or above.path is None:
            self._report(FaultKind.ORPHAN, self._place, f"name {entry.name[:80]!r}")
            path = f"?/{entry.name}"
        else:
            path = f"{above.path}/{entry.name}"
            if not is_name(entry.name):
                self._report(FaultKind.NAME_INVALID, path, repr(entry.name[:80]))
            elif path_key(path) != key:
                self._report(FaultKind.PATH_HASH, path, "")
            above.children += 1
        shown = path or "/"
        for kind, detail in entry_faults(entry):
            self._report(kind, shown, detail)
        if flags & FLAG_DIRECTORY:
            if above is not None:
                above.subdirectories += 1
            if flags & FLAG_MOUNTPOINT:
                self._result.transitions[path] = entry
            if flags & FLAG_BIND_MOUNTPOINT:
                self._binds.add(path)
        else:
            if entry.name == MARKER and above is not None:
                above.marker = True
            if entry.hardlink_group:
                self._groups.setdefault(entry.hardlink_group, []).append((shown, parent, entry))
            if entry.kind is Kind.FILE and entry.is_chunked:
                chunk_count = self._check_chunks(shown, key, entry)
        self._result.own.count(entry, chunk_count)

    def _check_chunks(self, path: str, key: PathKey, entry: Entry) -> int:
        sql = f"SELECT offset, size FROM chunks WHERE md5path_1 = ? AND md5path_2 = ? AND NOT ({_BAD_CHUNK})"
        chunks = self._connection.execute(f"{sql} ORDER BY offset", key).fetchall()
        if not chunks:
            self._report(FaultKind.CHUNKS_MISSING, path, "")
            return 0
        end = 0
        for offset, size in chunks:
            if offset != end or size < 0:
                self._report(FaultKind.CHUNKS_LAYOUT, path, f"one begins at {offset}, not at {end}")
                break
            end = offset + size
        total = sum(size for _, size in chunks)
        if total != entry.size:
            self._report(FaultKind.CHUNKS_SIZE, path, f"{total} bytes, not {entry.size}")
        return len(chunks)

    # -- what several rows say together

    def _check_directories(self) -> None:
        mountpoint = FLAG_MOUNTPOINT | FLAG_BIND_MOUNTPOINT
        for directory in self._directories.values():
            path, entry = directory.path, directory.entry
            if path is None:
                continue
            at_root = path == self._mountpoint
            if entry.flags & mountpoint and not at_root:
                if directory.children:
                    self._report(FaultKind.NESTED_NOT_EMPTY, path, f"{directory.children} entries")
                continue  # its links are those of the nested catalog's root
            if entry.linkcount != 2 + directory.subdirectories:
                detail = f"{entry.linkcount}, not {2 + directory.subdirectories}"
                self._report(FaultKind.LINK_COUNT_DIRECTORY, path or "/", detail)
            if directory.marker and not at_root:
                self._report(FaultKind.MARKER_ABANDONED, f"{path}/{MARKER}", "")
            if at_root and path and not directory.marker:
                self._report(FaultKind.NESTED_NO_MARKER, path, "")

    def _check_groups(self) -> None:
        for group, members in self._groups.items():
            path, parent, first = members[0]
            counts = {entry.linkcount for _, _, entry in members}
            if counts != {len(members)}:
                detail = f"group {group} has {len(members)}, not {', '.join(map(str, sorted(counts)))}"
                self._report(FaultKind.HARDLINK_GROUP, path, detail)
            for other, folder, entry in members[1:]:
                if folder != parent:
                    self._report(FaultKind.HARDLINK_DIFFERS, other, f"in another directory than {path}")
                elif entry._replace(name=first.name, hardlinks=first.hardlinks) != first:
                    self._report(FaultKind.HARDLINK_DIFFERS, other, f"not as {path}")

    def _check_nesting(self, bound: dict[str, NestedRef]) -> None:
        result = self._result
        for path in sorted(result.transitions.keys() - result.nested.keys()):
            self._report(FaultKind.NESTED_UNREGISTERED, path, "")
        for path in sorted(result.nested.keys() - result.transitions.keys()):
            self._report(FaultKind.NESTED_NO_MOUNTPOINT, path, "")
        for path in sorted(self._binds ^ bound.keys()):
            kind = FaultKind.NESTED_UNREGISTERED if path in self._binds else FaultKind.NESTED_NO_MOUNTPOINT
            self._report(kind, path, "a bind mountpoint")

    def _check_chunk_owners(self) -> None:
        count, name = self._connection.execute(_ORPHANED_CHUNKS).fetchone()
        if count:
            self._report(FaultKind.CHUNKS_ORPHANED, self._place, f"{count} chunks, of {name or 'nothing'!r}")


def counter_faults(catalog: Catalog, inspected: Inspected, below: Counters) -> Iterator[tuple[FaultKind, str]]:
    """Check the stored counters of a catalog; *below* are those of the catalogs below it."""
    stored = dict(catalog.connection.execute("SELECT counter, value FROM statistics"))
    for kind, scope, expected in (
        (FaultKind.COUNTER_OWN, "self", inspected.own),
        (FaultKind.COUNTER_SUBTREE, "subtree", below),
    ):
        for name in COUNTER_NAMES:
            value, wanted = stored.get(f"{scope}_{name}"), getattr(expected, name)
            if value is None:
                yield FaultKind.COUNTER_MISSING, f"{scope}_{name}"
            elif value != wanted:
                yield kind, f"{scope}_{name} is {str(value)[:40]}, not {wanted}"
