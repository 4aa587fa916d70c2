"""The list of all faults that a check can find in a repository: each kind, its meaning, and its remedy.

A check reports :class:`Fault` objects: a kind, the place (a path in the repository, an object, a file) and details. The
name of a kind, in lower case and with hyphens, is stable, so that monitoring can rely on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final


class Severity(StrEnum):
    """``ERROR``: clients, replicas or the next publish fail. ``WARNING``: they will fail later, or it is suspicious."""

    ERROR = "error"
    WARNING = "warning"


class Repair(StrEnum):
    """What ``check --repair`` rebuilds to repair a kind of fault, in the order in which it does so."""

    NONE = ""
    FOLDERS = "folders"
    CHECKSUM = "checksum"
    REFLOG = "reflog"
    TAGS = "tags"
    CATALOGS = "catalogs"


_RESTORE: Final = "fetch it from a Stratum 1, or roll back to a tag that does not need it"
_REPLACE: Final = "remove it and fetch it from a Stratum 1, or roll back to a tag that does not need it"
_RESIGN: Final = "cvmfs-gw resign (with the master key)"
_REPUBLISH: Final = "publish the directory again, or roll back to the last tag without faults"
_REPAIR: Final = "cvmfs-gw check --repair"


class FaultKind(Enum):
    """One kind of fault: its meaning, its remedy, its severity (default: error), and how it is repaired."""

    # -- the chain of trust
    MANIFEST_MISSING = ("there is no manifest", "restore .cvmfspublished from a Stratum 1")
    MANIFEST_UNREADABLE = ("the manifest cannot be read", "restore .cvmfspublished from a Stratum 1")
    MANIFEST_NAME = ("the manifest is of another repository", "restore .cvmfspublished of this repository")
    MANIFEST_SIGNATURE = ("the manifest's hash or signature is wrong", "cvmfs-gw resign --manifest")
    MANIFEST_ROOT_PATH = ("the manifest's root path is not the empty path", "cvmfs-gw resign --manifest")
    MANIFEST_TIME = ("the manifest is from the future: clients refuse the next one", "set the clock", "warning")
    WHITELIST_MISSING = ("there is no whitelist", _RESIGN)
    WHITELIST_UNREADABLE = ("the whitelist cannot be read", _RESIGN)
    WHITELIST_NAME = ("the whitelist is of another repository", _RESIGN)
    WHITELIST_SIGNATURE = ("the whitelist is not signed by the master key", _RESIGN)
    WHITELIST_EXPIRED = ("the whitelist has expired: clients refuse the repository", _RESIGN)
    WHITELIST_EXPIRES_SOON = ("the whitelist expires soon", _RESIGN, "warning")
    PUBLIC_KEY = ("the public master key cannot be read", "put FQRN.pub into the keys folder")
    CERTIFICATE_MISSING = ("the certificate is not in the storage", "cvmfs-gw resign --manifest stores it again")
    CERTIFICATE_UNREADABLE = ("the certificate cannot be read", "cvmfs-gw resign --manifest stores it again")
    CERTIFICATE_NOT_LISTED = ("the certificate is not on the whitelist", _RESIGN)
    SIGNING_KEY = ("the key files cannot be used for signing", "put FQRN.key and FQRN.crt into the keys folder")
    META_INFO = ("the meta info object is missing or damaged", "cvmfs-gw repoinfo -f FILE")

    # -- reflog
    REFLOG_MISSING = ("there is no reflog", _REPAIR, "error", Repair.REFLOG)
    REFLOG_UNREADABLE = ("the reflog cannot be read", _REPAIR, "error", Repair.REFLOG)
    REFLOG_NAME = ("the reflog is of another repository", _REPAIR, "error", Repair.REFLOG)
    REFLOG_LACKS_HEAD = ("the reflog lacks an object that the manifest refers to", _REPAIR, "error", Repair.REFLOG)
    REFLOG_LACKS_TAG = (
        "the reflog lacks a tag's root catalog: garbage collection would remove it",
        _REPAIR,
        "error",
        Repair.REFLOG,
    )
    REFLOG_DANGLING = ("the reflog refers to an object that does not exist", _REPAIR, "error", Repair.REFLOG)
    REFLOG_CHECKSUM_MISSING = ("reflog.chksum is missing: commits fail", _REPAIR, "error", Repair.CHECKSUM)
    REFLOG_CHECKSUM = ("reflog.chksum does not match the reflog: commits fail", _REPAIR, "error", Repair.CHECKSUM)
    REFLOG_MANIFEST = ("the reflog hash in the manifest does not match the reflog", _REPAIR, "warning", Repair.CHECKSUM)

    # -- tag database
    HISTORY_MISSING = ("the tag database is not in the storage", _RESTORE)
    HISTORY_UNREADABLE = ("the tag database cannot be read", _REPLACE)
    HISTORY_NAME = ("the tag database is of another repository", "restore the repository's own")
    TAG_INVALID = ("a tag's row is invalid", "cvmfs-gw tag remove")
    TAG_CATALOG_MISSING = ("a tag's root catalog is not in the storage", "cvmfs-gw tag remove, or " + _RESTORE)
    TAG_CATALOG_DIFFERS = ("a tag disagrees with its root catalog", "cvmfs-gw tag move to the same revision")
    TAG_BRANCH = ("a tag's branch is unknown, or begins after the tag's revision", "cvmfs-gw tag remove")
    BRANCH_UNUSED = ("a branch has no tags", _REPAIR, "error", Repair.TAGS)
    TRUNK_DIFFERS = ("the tag trunk does not point to the head", _REPAIR, "warning", Repair.TAGS)

    # -- catalogs as files
    CATALOG_MISSING = ("a catalog is not in the storage", _RESTORE)
    CATALOG_CORRUPT = ("a catalog's bytes do not match its hash, or do not inflate", _REPLACE)
    CATALOG_UNREADABLE = ("a catalog is not a database of a known schema", _REPLACE)
    CATALOG_DAMAGED = ("a catalog's database file is damaged", _REPLACE)
    CATALOG_SIZE = ("a catalog's size differs from the recorded size", _REPUBLISH)
    CATALOG_PREFIX = ("a catalog belongs to another path than the one it is registered at", _REPUBLISH)
    CATALOG_PROPERTY = ("a property of a catalog is invalid", _REPUBLISH)
    CATALOG_SCHEMA = (
        "a catalog declares an older schema than it has: clients ignore part of it",
        _REPAIR,
        "error",
        Repair.CATALOGS,
    )
    CATALOG_REVISION = ("the root catalog's revision differs from the manifest's", "publish again")
    COUNTER_MISSING = ("a counter of a catalog is missing", _REPAIR, "error", Repair.CATALOGS)
    COUNTER_OWN = ("a catalog's counters of its own entries are wrong", _REPAIR, "error", Repair.CATALOGS)
    COUNTER_SUBTREE = ("a catalog's counters of its subtree are wrong", _REPAIR, "error", Repair.CATALOGS)

    # -- nesting
    ROOT_ENTRY_MISSING = ("a catalog has no entry for its own root directory", _REPUBLISH)
    ROOT_ENTRY_KIND = ("a catalog's root entry is not a directory, or has wrong flags", _REPUBLISH)
    TRANSITION_DIFFERS = ("the two rows of a nested catalog's directory differ", _REPUBLISH)
    NESTED_UNREGISTERED = ("a mountpoint has no registered nested catalog", _REPUBLISH)
    NESTED_NO_MOUNTPOINT = ("a nested catalog is registered at a path that is not a mountpoint", _REPUBLISH)
    NESTED_INVALID = ("the registration of a nested catalog is invalid", _REPUBLISH)
    NESTED_NOT_EMPTY = ("a catalog has entries below one of its mountpoints", _REPUBLISH)
    NESTED_AND_BIND = ("a directory is both a nested catalog and a bind mountpoint", _REPUBLISH)
    NESTED_NO_MARKER = ("a nested catalog has no file .cvmfscatalog", "add the file, and publish", "warning")
    MARKER_ABANDONED = (
        "a directory with a file .cvmfscatalog is not a nested catalog",
        "remove the file, and publish",
        "warning",
    )

    # -- entries
    ROW_TYPE = ("a row or chunk has a value of the wrong type", _REPUBLISH)
    NAME_INVALID = ("an entry's name is invalid", _REPUBLISH)
    PATH_HASH = ("an entry's key does not match its path: it cannot be opened", _REPUBLISH)
    ORPHAN = ("an entry's parent is missing, not a directory, or its own descendant", _REPUBLISH)
    ENTRY_KIND = ("an entry's flags and mode disagree about its kind", _REPUBLISH)
    ENTRY_ALGORITHM = ("an entry has an unknown hash or compression algorithm", _REPUBLISH)
    ENTRY_FLAGS = ("an entry has flags that are invalid for its kind", _REPUBLISH)
    LINK_COUNT_ZERO = ("an entry's link count is zero", _REPAIR, "error", Repair.CATALOGS)
    LINK_COUNT_DIRECTORY = (
        "a directory's link count is not 2 plus its sub-directories",
        _REPAIR,
        "error",
        Repair.CATALOGS,
    )
    HARDLINK_GROUP = ("a hard link group's size differs from its link count", _REPAIR, "error", Repair.CATALOGS)
    HARDLINK_NO_GROUP = ("an entry has several links but no hard link group", _REPAIR, "error", Repair.CATALOGS)
    HARDLINK_DIFFERS = ("the members of a hard link group differ", _REPUBLISH)
    HARDLINK_DIRECTORY = ("a directory is in a hard link group", _REPUBLISH)
    SYMLINK_SIZE = ("a symlink's size is not the length of its target", _REPUBLISH, "warning")
    UNEXPECTED_HASH = ("a link or special file has a content hash, or a special file a target", _REPUBLISH)
    FILE_NO_HASH = ("a file has neither content hash nor chunks", _REPUBLISH)
    SIZE_NEGATIVE = ("an entry's size is negative", _REPUBLISH)
    XATTR_INVALID = ("an entry's extended attributes cannot be read", _REPUBLISH)
    CHUNKS_MISSING = ("a chunked file has no chunks", _REPUBLISH)
    CHUNKS_LAYOUT = ("a file's chunks leave a gap or overlap", _REPUBLISH)
    CHUNKS_SIZE = ("a file's chunks do not add up to its size", _REPUBLISH)
    CHUNKS_ORPHANED = ("there are chunks of an entry that does not exist or is not chunked", _REPUBLISH)

    # -- storage
    OBJECT_MISSING = ("an object that an entry refers to is not in the storage", _RESTORE)
    OBJECT_CORRUPT = ("an object's bytes do not match its hash", _REPLACE)
    OBJECT_COMPRESSION = ("an object does not inflate", _REPLACE)
    OBJECT_SIZE = ("the length of an object's content differs from its entry's size", _REPUBLISH)
    STRAY_FILE = ("a file in data/ is not an object", "move it away", "warning")
    FOLDER_MISSING = ("a folder of the storage is missing", _REPAIR, "error", Repair.FOLDERS)

    def __init__(self, what: str, remedy: str, severity: str = "error", repair: Repair = Repair.NONE, /) -> None:
        self.what = what
        self.remedy = remedy
        self.severity = Severity(severity)
        self.repair = repair

    @property
    def code(self) -> str:
        """The stable name, as in ``reflog-dangling``."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: its kind, its place, and details (may be empty)."""

    kind: FaultKind
    place: str
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.kind.severity} {self.kind.code} {self.place}: {self.kind.what}{detail}"


class Faults:
    """The faults found so far. All are counted; at most *limit* of each kind are kept. Adding is thread-safe."""

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._found: dict[FaultKind, list[Fault]] = {}
        self.counts: dict[FaultKind, int] = {}

    def add(self, kind: FaultKind, place: str, detail: str = "") -> None:
        """Report a fault."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        known = self._found.setdefault(kind, [])
        if len(known) < self._limit:
            known.append(Fault(kind, place, detail))

    def __iter__(self) -> Iterator[Fault]:
        """The faults, in the order of :class:`FaultKind`."""
        for kind in FaultKind:
            yield from self._found.get(kind, ())

    def __bool__(self) -> bool:
        return bool(self.counts)

    @property
    def errors(self) -> int:
        """The number of errors."""
        return sum(count for kind, count in self.counts.items() if kind.severity is Severity.ERROR)

    @property
    def warnings(self) -> int:
        """The number of warnings."""
        return sum(count for kind, count in self.counts.items() if kind.severity is Severity.WARNING)

    def kinds(self) -> set[FaultKind]:
        """The kinds that were found."""
        return set(self.counts)
