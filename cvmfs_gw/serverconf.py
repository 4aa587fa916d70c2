"""A repository's ``server.conf``: shell assignments, read and never executed.

::

    # comment
    CVMFS_UPSTREAM_STORAGE=local,/srv/cvmfs/x.org/data/txn,/srv/cvmfs/x.org
    export CVMFS_AUTO_TAG="true"    # the last assignment of a key wins

Source: the file that ``cvmfs_server mkfs`` writes, and what the reference's receiver takes from it: ``export`` and
``readonly`` in front, ``@fqrn@`` and ``@org@`` filled in, booleans on for ``YES``, ``ON``, ``1`` and ``TRUE`` in
any case and off for all else, numbers by their leading digits.

Divergence: ``#`` inside quotes belongs to the value and ``""`` is empty, as in the shell that reads the same file;
the reference's parser cuts the first and keeps the quotes of the second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from cvmfs_objstore.hashes import Algorithm

UPSTREAM_OVERRIDE: Final = "TEST_CVMFS_RECEIVER_UPSTREAM_STORAGE"
"""Overrides ``CVMFS_UPSTREAM_STORAGE`` for the gateway alone, in the environment or in the file."""

# assignment = [export | readonly | eval] KEY "=" value
_ASSIGNMENT: Final = re.compile(r"\s*(?:(?:export|readonly|eval)\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)", re.DOTALL)
_COMMENT: Final = re.compile(r"(?:^|\s)#.*", re.DOTALL)
_DIGITS: Final = re.compile(r"\s*\+?(\d+)")
_ON: Final = frozenset({"YES", "ON", "1", "TRUE"})

Environment = Mapping[str, str]
_NO_ENVIRONMENT: Final[Environment] = MappingProxyType({})


class ServerConfError(ValueError):
    """A ``server.conf`` that is missing, unreadable, or lacks or garbles what was asked for."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a repository is stored: ``<kind>,<temporary folder>,<location>``.

    ``location`` is a folder for kind ``local``, ``<prefix>@<configuration file>`` for ``S3`` and a URL for ``gw``.
    """

    kind: str
    temp_dir: str
    location: str

    @classmethod
    def parse(cls, text: str) -> Upstream:
        """Raises :exc:`ServerConfError`."""
        parts = text.split(",", 2)
        if len(parts) != 3 or not all(parts):
            raise ServerConfError(f"not an upstream storage (kind,temporary folder,location): {text!r}")
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.kind},{self.temp_dir},{self.location}"

    @property
    def is_local(self) -> bool:
        return self.kind == "local"

    @property
    def is_gateway(self) -> bool:
        """Whether somebody else writes the storage."""
        return self.kind == "gw"


@dataclass(frozen=True, slots=True)
class ServerConf:
    """The assignments of one ``server.conf``. Missing keys have the defaults of ``cvmfs_server`` or none."""

    values: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    @classmethod
    def load(cls, path: str, fqrn: str = "") -> ServerConf:
        """Read *path*; with *fqrn*, fill in ``@fqrn@`` and ``@org@``. Raises :exc:`ServerConfError`."""
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                return cls.parse(file, fqrn, path)
        except OSError as error:
            raise ServerConfError(f"cannot read {path}: {error.strerror}") from error

    @classmethod
    def parse(cls, lines: Iterable[str], fqrn: str = "", source: str = "") -> ServerConf:
        """Read *lines*; anything that is no assignment is passed over."""
        values = dict(_assignments(lines))
        if fqrn:
            org = fqrn.partition(".")[0]
            values = {k: v.replace("@fqrn@", fqrn).replace("@org@", org) for k, v in values.items()}
        return cls(MappingProxyType(values), source)

    # --- by type -----------------------------------------------------------------------------------------------

    def get(self, key: str, default: str = "") -> str:
        return self.values.get(key, default)

    def require(self, key: str) -> str:
        """The value of *key*; raises :exc:`ServerConfError` where it is missing or empty."""
        value = self.values.get(key)
        if not value:
            raise ServerConfError(f"{self.source or 'server.conf'}: {key} is not set")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.values.get(key)
        return default if value is None else value.strip().upper() in _ON

    def number(self, key: str) -> int | None:
        """The value as a number; ``None`` where it is not set, 0 where it does not begin with digits."""
        value = self.values.get(key)
        if value is None:
            return None
        match = _DIGITS.match(value)
        return int(match[1]) if match else 0

    def limit(self, key: str) -> int | None:
        """A limit; ``None`` where it is not set or 0, which both mean that there is none."""
        return self.number(key) or None

    # --- by meaning --------------------------------------------------------------------------------------------

    @property
    def stratum0(self) -> str:
        return self.get("CVMFS_STRATUM0")

    def upstream(self, environment: Environment = _NO_ENVIRONMENT) -> Upstream:
        """The storage that the gateway writes: the override in *environment*, in the file, or the file's upstream.

        Raises :exc:`ServerConfError`.
        """
        override = environment.get(UPSTREAM_OVERRIDE) or self.get(UPSTREAM_OVERRIDE)
        return Upstream.parse(override or self.require("CVMFS_UPSTREAM_STORAGE"))

    @property
    def hash_algorithm(self) -> Algorithm:
        """Raises :exc:`~cvmfs_objstore.errors.InvalidHash` for a name that is unknown."""
        return Algorithm.from_config(self.get("CVMFS_HASH_ALGORITHM") or "sha1")

    @property
    def compression_algorithm(self) -> str:
        """``default`` (zlib), ``zlib`` or ``none``, as the file says it; for file contents only."""
        return self.get("CVMFS_COMPRESSION_ALGORITHM") or "default"

    @property
    def garbage_collection(self) -> bool:
        return self.flag("CVMFS_GARBAGE_COLLECTION")

    @property
    def auto_gc(self) -> bool:
        """Whether garbage is collected after a publish. Source: the reference takes ``true`` alone for that."""
        return self.get("CVMFS_AUTO_GC") == "true"

    @property
    def auto_gc_timespan(self) -> str:
        """How long revisions are kept by automatic collections, as ``date --date`` takes it."""
        return self.get("CVMFS_AUTO_GC_TIMESPAN") or "3 days ago"

    @property
    def auto_gc_lapse(self) -> str:
        """Since when there must have been no collection for an automatic one, as ``date --date`` takes it."""
        return self.get("CVMFS_AUTO_GC_LAPSE") or "1 day ago"

    @property
    def auto_tag(self) -> bool:
        return self.flag("CVMFS_AUTO_TAG", default=True)

    @property
    def auto_tag_timespan(self) -> str:
        """How long automatic tags live, as ``date --date`` takes it (``4 weeks ago``); empty: for ever."""
        return self.get("CVMFS_AUTO_TAG_TIMESPAN")

    @property
    def volatile(self) -> bool:
        return self.flag("CVMFS_VOLATILE")

    @property
    def ttl(self) -> int | None:
        """How long clients keep a manifest, in seconds; ``None``: what the catalog says."""
        return self.limit("CVMFS_REPOSITORY_TTL")

    @property
    def nested_kcatalog_limit(self) -> int | None:
        """Thousands of entries, directories included, in a nested catalog."""
        return self.limit("CVMFS_NESTED_KCATALOG_LIMIT")

    @property
    def root_kcatalog_limit(self) -> int | None:
        """Thousands of entries, directories included, in the root catalog."""
        return self.limit("CVMFS_ROOT_KCATALOG_LIMIT")

    @property
    def file_mbyte_limit(self) -> int | None:
        """Size of a file, in MiB."""
        return self.limit("CVMFS_FILE_MBYTE_LIMIT")

    @property
    def enforce_limits(self) -> bool:
        """Whether going over a limit fails the commit; otherwise it is only logged."""
        return self.flag("CVMFS_ENFORCE_LIMITS")

    @property
    def autocatalogs(self) -> bool:
        return self.flag("CVMFS_AUTOCATALOGS")

    @property
    def autocatalogs_max_weight(self) -> int:
        """Entries above which an automatic nested catalog is split."""
        return self.limit("CVMFS_AUTOCATALOGS_MAX_WEIGHT") or 100_000

    @property
    def autocatalogs_min_weight(self) -> int:
        """Entries below which an automatic nested catalog is merged into its parent."""
        return self.limit("CVMFS_AUTOCATALOGS_MIN_WEIGHT") or 1_000

    @property
    def upload_stats_db(self) -> bool:
        return self.flag("CVMFS_UPLOAD_STATS_DB")


def _assignments(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        match = _ASSIGNMENT.fullmatch(line.rstrip("\r\n"))
        if match is not None:
            yield match[1], _value(match[2])


def _value(text: str) -> str:
    """The value without its quotes and without the comment behind it."""
    text = text.strip()
    if text[:1] in ("'", '"'):
        end = text.find(text[0], 1)
        if end > 0 and not _COMMENT.sub("", text[end + 1 :]).strip():
            return text[1:end]
    return _COMMENT.sub("", text).strip()
