"""What of a Stratum 0's former ``server.conf`` goes along when it is taken over.

Each assignment is one of four kinds, and the report says of each what became of it:

* what is about the repository and means the same here is taken (:data:`TAKEN`);
* what says where things are is decided anew (:data:`DECIDED`);
* what is about the mounted publisher of ``cvmfs_server`` has no meaning here (:data:`MEANINGLESS`);
* what nobody knows is kept, for whoever wrote it.

The repository itself has the last word: hash algorithm and the like are read from what is signed.

Source: the assignments that ``cvmfs_server`` writes and reads, and those that the reference's receiver takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cvmfs_gw.serverconf import ServerConf

TAKEN: Final = frozenset(
    {
        "CVMFS_AUTO_GC", "CVMFS_AUTO_GC_LAPSE", "CVMFS_AUTO_GC_TIMESPAN", "CVMFS_GARBAGE_COLLECTION",
        "CVMFS_GC_DELETION_LOG",
        "CVMFS_AUTO_TAG", "CVMFS_AUTO_TAG_TIMESPAN",
        "CVMFS_COMPRESSION_ALGORITHM", "CVMFS_EXTERNAL_DATA", "CVMFS_USE_FILE_CHUNKING",
        "CVMFS_MIN_CHUNK_SIZE", "CVMFS_AVG_CHUNK_SIZE", "CVMFS_MAX_CHUNK_SIZE",
        "CVMFS_ENFORCE_LIMITS", "CVMFS_FILE_MBYTE_LIMIT", "CVMFS_NESTED_KCATALOG_LIMIT", "CVMFS_ROOT_KCATALOG_LIMIT",
        "CVMFS_AUTOCATALOGS", "CVMFS_AUTOCATALOGS_MAX_WEIGHT", "CVMFS_AUTOCATALOGS_MIN_WEIGHT",
        "CVMFS_REPOSITORY_TTL", "CVMFS_UPLOAD_STATS_DB", "CVMFS_VOMS_AUTHZ",
    }
)  # fmt: skip
"""About the repository, or about how its files are taken in."""

_READ: Final = "read from the repository itself"
_HERE: Final = "as it is on this server"
DECIDED: Final[Mapping[str, str]] = {
    "CVMFS_HASH_ALGORITHM": _READ,
    "CVMFS_VOLATILE": _READ,
    "CVMFS_REPOSITORY_NAME": _READ,
    "CVMFS_REPOSITORY_TYPE": _READ,
    "CVMFS_STRATUM0": "as it was, unless another is given",
    **dict.fromkeys(
        (
            "CVMFS_UPSTREAM_STORAGE", "CVMFS_SPOOL_DIR", "CVMFS_UNION_DIR", "CVMFS_USER",
            "CVMFS_CREATOR_VERSION", "CVMFS_SERVER_PROXY",
        ),
        _HERE,
    ),
}  # fmt: skip
"""Decided anew, and by what."""

_MOUNT: Final = "nothing is mounted here"
_PUBLISHER: Final = "for publishers to decide, in theirs"
_EFFORT: Final = "work is shared out otherwise here"
MEANINGLESS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            "CVMFS_UNION_FS_TYPE", "CVMFS_AUTO_REPAIR_MOUNTPOINT", "CVMFS_ASYNC_SCRATCH_CLEANUP",
            "CVMFS_FORCE_REMOUNT_WARNING", "CVMFS_DONT_CHECK_OVERLAYFS_VERSION", "CVMFS_CATALOG_ENTRY_WARN_THRESHOLD",
        ),
        _MOUNT,
    ),
    **dict.fromkeys(
        (
            "CVMFS_IGNORE_XDIR_HARDLINKS", "CVMFS_INCLUDE_XATTRS", "CVMFS_IGNORE_SPECIAL_FILES",
            "CVMFS_ENABLE_MTIME_NS", "CVMFS_GENERATE_LEGACY_BULK_CHUNKS", "CVMFS_PRINT_STATISTICS",
            "CVMFS_SERVER_USE_CATALOG_CACHE", "CVMFS_LOG_LEVEL",
        ),
        _PUBLISHER,
    ),
    **dict.fromkeys(
        (
            "CVMFS_NUM_UPLOAD_TASKS", "CVMFS_MAXIMAL_CONCURRENT_WRITES", "CVMFS_NUM_WORKERS", "CVMFS_SYNCFS_LEVEL",
            "CVMFS_HTTP_TIMEOUT", "CVMFS_HTTP_RETRIES",
        ),
        _EFFORT,
    ),
    "CVMFS_UPLOAD_STATS_PLOTS": "no plots are made: see the status page",
    "CVMFS_CATALOG_ALT_PATHS": "a gateway publishes without alternative paths",
    "CVMFS_VIRTUAL_DIR": "a gateway does not keep /.cvmfs up to date",
}  # fmt: skip
"""Without meaning here, and why."""

_OFF_UNSAID: Final = ("CVMFS_AUTO_GC", "CVMFS_AUTO_TAG")

# What a shell that reads the new file would make something else of.
_UNSAFE: Final = re.compile("[\"'`$\\\\\n\r\0]")


class Fate(StrEnum):
    """What became of an assignment."""

    TAKEN = "taken"
    DECIDED = "decided anew"
    MEANINGLESS = "no meaning here"
    KEPT = "unknown, kept"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Setting:
    """One assignment of a former ``server.conf``, what became of it, and why."""

    key: str
    value: str
    fate: Fate
    why: str = ""

    def __str__(self) -> str:
        why = f" ({self.why})" if self.why else ""
        return f"{self.fate.value}: {self.key}={self.value}{why}"


def read_settings(former: ServerConf) -> Iterator[Setting]:
    """What is to become of each assignment of *former*, in the order of the file."""
    for key, value in former.values.items():
        if key in DECIDED:
            yield Setting(key, value, Fate.DECIDED, DECIDED[key])
        elif key in MEANINGLESS:
            yield Setting(key, value, Fate.MEANINGLESS, MEANINGLESS[key])
        elif _UNSAFE.search(value):
            yield Setting(key, value, Fate.REFUSED, "a shell would make something else of it")
        elif key in TAKEN:
            yield Setting(key, value, Fate.TAKEN)
        else:
            yield Setting(key, value, Fate.KEPT)


def kept(settings: list[Setting]) -> dict[str, str]:
    """The assignments that go into the new ``server.conf``: nothing that was off because nothing was said is on now."""
    if not settings:
        return {}
    said = {setting.key: setting.value for setting in settings if setting.fate in (Fate.TAKEN, Fate.KEPT)}
    return dict.fromkeys(_OFF_UNSAID, "false") | said
