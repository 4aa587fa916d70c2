"""The catalogue of what can be wrong with a repository: each kind of fault, what it means, and its remedy.

A check reports :class:`Fault` objects: a kind of this catalogue, the place (a path of the repository, an object, a
file) and the details. The name of a kind, in lower case and with hyphens, is stable: monitoring may look for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final


class Severity(StrEnum):
    """``ERROR``: clients, replicas or the next publish go wrong. ``WARNING``: they will, or somebody should know."""

    ERROR = "error"
    WARNING = "warning"


class Repair(StrEnum):
    """How ``check --repair`` mends a fault of a kind, and in which order: all but ``NONE``."""

    NONE = ""
    FOLDERS = "folders"
    CHECKSUM = "checksum"
    REFLOG = "reflog"
    TAGS = "tags"
    CATALOGS = "catalogs"


_RESTORE: Final = "fetch it from a Stratum 1, or roll back to a tag that does not need it"
_REPLACE: Final = "remove it and fetch it from a Stratum 1, or roll back to a tag that does not need it"
_RESIGN: Final = "cvmfs-gw resign (with the master key)"
_REPUBLISH: Final = "publish the directory again, or roll back to the last tag that checks well"
_REPAIR: Final = "cvmfs-gw check --repair"


class FaultKind(Enum):
    """One kind of fault: what it is, and what to do."""

    # -- the chain of trust
    MANIFEST_MISSING = ("there is no manifest", "restore .cvmfspublished from a Stratum 1")
    MANIFEST_UNREADABLE = ("the manifest cannot be read", "restore .cvmfspublished from a Stratum 1")
    MANIFEST_NAME = ("the manifest is of another repository", "restore .cvmfspublished of this repository")
    MANIFEST_SIGNATURE = ("the manifest's hash or signature is wrong", "cvmfs-gw resign --manifest")
    MANIFEST_ROOT_PATH = ("the manifest's root path is not the empty one", "cvmfs-gw resign --manifest")
    MANIFEST_TIME = ("the manifest is from the future: clients refuse the next one", "set the clock", "warning")
    WHITELIST_MISSING = ("there is no whitelist", _RESIGN)
    WHITELIST_UNREADABLE = ("the whitelist cannot be read", _RESIGN)
    WHITELIST_NAME = ("the whitelist is of another repository", _RESIGN)
    WHITELIST_SIGNATURE = ("the whitelist is not signed by the master key", _RESIGN)
    WHITELIST_EXPIRED = ("the whitelist's time is over: clients refuse the repository", _RESIGN)
    WHITELIST_EXPIRES_SOON = ("the whitelist's time is nearly over", _RESIGN, "warning")
    PUBLIC_KEY = ("the public master key cannot be read", "put FQRN.pub into the keys folder")
    CERTIFICATE_MISSING = ("the certificate is not in the storage", "cvmfs-gw resign --manifest stores it again")
    CERTIFICATE_UNREADABLE = ("the certificate is no certificate", "cvmfs-gw resign --manifest stores it again")
    CERTIFICATE_NOT_LISTED = ("the certificate is not on the whitelist", _RESIGN)
    SIGNING_KEY = ("nothing can be published with the key files", "put FQRN.key and FQRN.crt into the keys folder")
    META_INFO = ("the meta info object is missing or damaged", "cvmfs-gw repoinfo -f FILE")

    # -- reflog
    REFLOG_MISSING = ("there is no reflog", _REPAIR, "error", Repair.REFLOG)
    REFLOG_UNREADABLE = ("the reflog cannot be read", _REPAIR, "error", Repair.REFLOG)
    REFLOG_NAME = ("the reflog is of another repository", _REPAIR, "error", Repair.REFLOG)
    REFLOG_LACKS_HEAD = ("the reflog does not name an object of the head", _REPAIR, "error", Repair.REFLOG)
    REFLOG_LACKS_TAG = (
        "the reflog does not name a tag's catalog: a collector removes it",
        _REPAIR,
        "error",
        Repair.REFLOG,
    )
    REFLOG_DANGLING = ("the reflog names an object that is not there", _REPAIR, "error", Repair.REFLOG)
    REFLOG_CHECKSUM_MISSING = ("reflog.chksum is missing: commits fail", _REPAIR, "error", Repair.CHECKSUM)
    REFLOG_CHECKSUM = ("reflog.chksum is not that of the reflog: commits fail", _REPAIR, "error", Repair.CHECKSUM)
    REFLOG_MANIFEST = ("the manifest has the hash of another reflog", _REPAIR, "warning", Repair.CHECKSUM)

    # -- tag database
    HISTORY_MISSING = ("the tag database is not in the storage", _RESTORE)
    HISTORY_UNREADABLE = ("the tag database cannot be read", _REPLACE)
    HISTORY_NAME = ("the tag database is of another repository", "restore the repository's own")
    TAG_INVALID = ("a tag's row makes no sense", "cvmfs-gw tag remove")
    TAG_CATALOG_MISSING = ("a tag's root catalog is not in the storage", "cvmfs-gw tag remove, or " + _RESTORE)
    TAG_CATALOG_DIFFERS = ("a tag does not say what its root catalog does", "cvmfs-gw tag move to the same revision")
    TAG_BRANCH = ("a tag is of a branch that is unknown or younger", "cvmfs-gw tag remove")
    BRANCH_UNUSED = ("no tag is of this branch", _REPAIR, "error", Repair.TAGS)
    TRUNK_DIFFERS = ("the tag trunk does not name the head", _REPAIR, "warning", Repair.TAGS)

    # -- catalogs as files
    CATALOG_MISSING = ("a catalog is not in the storage", _RESTORE)
    CATALOG_CORRUPT = ("a catalog's bytes do not have the hash of its name, or do not inflate", _REPLACE)
    CATALOG_UNREADABLE = ("a catalog is no database of a known schema", _REPLACE)
    CATALOG_DAMAGED = ("a catalog's database is damaged inside", _REPLACE)
    CATALOG_SIZE = ("a catalog has another size than is recorded", _REPUBLISH)
    CATALOG_PREFIX = ("a catalog belongs to another path than it is registered for", _REPUBLISH)
    CATALOG_PROPERTY = ("a property of a catalog makes no sense", _REPUBLISH)
    CATALOG_SCHEMA = (
        "a catalog says that it is of an older schema than it is: clients do not see all that is in it",
        _REPAIR,
        "error",
        Repair.CATALOGS,
    )
    CATALOG_REVISION = ("the root catalog's revision is not the manifest's", "publish again")
    COUNTER_MISSING = ("a counter of a catalog is missing", _REPAIR, "error", Repair.CATALOGS)
    COUNTER_OWN = ("a catalog counts its own entries wrongly", _REPAIR, "error", Repair.CATALOGS)
    COUNTER_SUBTREE = ("a catalog counts the entries below it wrongly", _REPAIR, "error", Repair.CATALOGS)

    # -- nesting
    ROOT_ENTRY_MISSING = ("a catalog has no entry for its own root directory", _REPUBLISH)
    ROOT_ENTRY_KIND = ("a catalog's root entry is no directory, or has the wrong flags", _REPUBLISH)
    TRANSITION_DIFFERS = ("the two rows of a nested catalog's directory differ", _REPUBLISH)
    NESTED_UNREGISTERED = ("a mountpoint has no registered nested catalog", _REPUBLISH)
    NESTED_NO_MOUNTPOINT = ("a nested catalog is registered where no mountpoint is", _REPUBLISH)
    NESTED_INVALID = ("a registration makes no sense", _REPUBLISH)
    NESTED_NOT_EMPTY = ("a catalog has entries below one of its mountpoints", _REPUBLISH)
    NESTED_AND_BIND = ("a directory is a nested catalog and a bind mountpoint", _REPUBLISH)
    NESTED_NO_MARKER = ("a nested catalog has no file .cvmfscatalog", "add the file, and publish", "warning")
    MARKER_ABANDONED = (".cvmfscatalog lies where no nested catalog begins", "remove the file, and publish", "warning")

    # -- entries
    ROW_TYPE = ("a row or chunk holds what is not of its column's type", _REPUBLISH)
    NAME_INVALID = ("an entry's name is none", _REPUBLISH)
    PATH_HASH = ("an entry's key is not that of its path: nobody can open it", _REPUBLISH)
    ORPHAN = ("an entry's parent is missing, no directory, or below itself", _REPUBLISH)
    ENTRY_KIND = ("an entry's flags and mode do not say the same of its kind", _REPUBLISH)
    ENTRY_ALGORITHM = ("an entry has an unknown hash or compression algorithm", _REPUBLISH)
    ENTRY_FLAGS = ("an entry has flags that its kind cannot have", _REPUBLISH)
    LINK_COUNT_ZERO = ("an entry's link count is zero", _REPAIR, "error", Repair.CATALOGS)
    LINK_COUNT_DIRECTORY = (
        "a directory's link count is not 2 plus its sub-directories",
        _REPAIR,
        "error",
        Repair.CATALOGS,
    )
    HARDLINK_GROUP = ("a hard link group has another number of members than it says", _REPAIR, "error", Repair.CATALOGS)
    HARDLINK_NO_GROUP = ("an entry has several links and no hard link group", _REPAIR, "error", Repair.CATALOGS)
    HARDLINK_DIFFERS = ("the members of a hard link group are not alike", _REPUBLISH)
    HARDLINK_DIRECTORY = ("a directory is in a hard link group", _REPUBLISH)
    SYMLINK_SIZE = ("a symlink's size is not the length of its target", _REPUBLISH, "warning")
    UNEXPECTED_HASH = ("a link or special file has a content hash, or a special file a target", _REPUBLISH)
    FILE_NO_HASH = ("a file has neither content hash nor chunks", _REPUBLISH)
    SIZE_NEGATIVE = ("an entry's size is negative", _REPUBLISH)
    XATTR_INVALID = ("an entry's extended attributes cannot be read", _REPUBLISH)
    CHUNKS_MISSING = ("a chunked file has no chunks", _REPUBLISH)
    CHUNKS_LAYOUT = ("a file's chunks leave a gap or overlap", _REPUBLISH)
    CHUNKS_SIZE = ("a file's chunks do not add up to its size", _REPUBLISH)
    CHUNKS_ORPHANED = ("there are chunks of an entry that is not there or not chunked", _REPUBLISH)

    # -- storage
    OBJECT_MISSING = ("an object that an entry refers to is not in the storage", _RESTORE)
    OBJECT_CORRUPT = ("an object's bytes do not have the hash of its name", _REPLACE)
    OBJECT_COMPRESSION = ("an object does not inflate", _REPLACE)
    OBJECT_SIZE = ("an object's content has another length than its entry says", _REPUBLISH)
    STRAY_FILE = ("something lies in data/ that is no object", "move it away", "warning")
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
    """One thing that is wrong: its kind, where, and what exactly (may be empty)."""

    kind: FaultKind
    place: str
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.kind.severity} {self.kind.code} {self.place}: {self.kind.what}{detail}"


class Faults:
    """What a check has found so far, at most *limit* of each kind by name; all are counted. Thread-safe to add to."""

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
        """In the order of the catalogue."""
        for kind in FaultKind:
            yield from self._found.get(kind, ())

    def __bool__(self) -> bool:
        return bool(self.counts)

    @property
    def errors(self) -> int:
        """How many are errors."""
        return sum(count for kind, count in self.counts.items() if kind.severity is Severity.ERROR)

    @property
    def warnings(self) -> int:
        """How many are warnings."""
        return sum(count for kind, count in self.counts.items() if kind.severity is Severity.WARNING)

    def kinds(self) -> set[FaultKind]:
        """The kinds that were found."""
        return set(self.counts)
