"""The interface between the gateway and the engine: the request and the result of a commit.

The gateway knows leases and keys, the engine knows repositories; these types are all that they share.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Protocol

from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix


@dataclass(frozen=True, slots=True)
class UploadStatistics:
    """What was uploaded under a lease, for the repository's publish statistics. Sizes in bytes, as stored."""

    objects_added: int = 0
    objects_duplicated: int = 0
    catalogs_added: int = 0
    bytes_added: int = 0
    catalog_bytes_added: int = 0

    def __add__(self, other: UploadStatistics) -> UploadStatistics:
        return UploadStatistics(
            self.objects_added + other.objects_added,
            self.objects_duplicated + other.objects_duplicated,
            self.catalogs_added + other.catalogs_added,
            self.bytes_added + other.bytes_added,
            self.catalog_bytes_added + other.catalog_bytes_added,
        )


class UploadedObjects:
    """Names of objects uploaded under a lease: they are known to be in the storage and need not be looked up.

    (The collector spares everything newer than the oldest open lease.) Only the first *most* names are kept, or a few
    more if several threads add names at the same time.
    """

    __slots__ = ("_digests", "_most")

    def __init__(self, most: int = 0) -> None:
        self._most = most
        self._digests: dict[tuple[Algorithm, Suffix], set[bytes]] = {}

    def add(self, name: ContentHash) -> None:
        """Add a name, if there is room."""
        if len(self) < self._most:
            self._digests.setdefault((name.algorithm, name.suffix), set()).add(name.digest)

    def update(self, other: UploadedObjects) -> None:
        """Add the names of *other*, as long as there is room."""
        for kind, digests in other._digests.items():
            if self.room:
                self._digests.setdefault(kind, set()).update(digests)

    @property
    def room(self) -> int:
        """How many more names there is room for."""
        return max(0, self._most - len(self))

    def digests(self, algorithm: Algorithm, suffix: Suffix = Suffix.NONE) -> Set[bytes]:
        """The names of one kind."""
        return self._digests.get((algorithm, suffix), frozenset())

    def __len__(self) -> int:
        return sum(map(len, self._digests.values()))


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """One commit, as requested by the publisher and allowed by the lease.

    ``lease_path`` is ``""`` for the whole repository, otherwise ``"/a/b"`` (surrogateescape, never with ``.``,
    ``..``, doubled or trailing slashes). Both root hashes carry the suffix ``C``. ``auto_tag_threshold`` is in
    seconds since the epoch: automatic tags older than it go in this commit; 0 is off.

    ``started_ms`` is when the lease was granted, in milliseconds since the epoch. ``repeated`` means that an
    earlier attempt with the same token and hashes was cut off (the process was killed), so its result may already
    be published.
    """

    fqrn: str
    lease_path: str
    old_root: ContentHash
    new_root: ContentHash
    tag_name: str = ""
    tag_description: str = ""
    tag_channel: int = 0
    auto_tag_threshold: int = 0
    delete_tags: tuple[str, ...] = ()
    create_ancestors: bool = False
    """The lease speaks protocol 4: missing ancestors of the lease path are created."""
    started_ms: int = 0
    repeated: bool = False
    uploads: UploadStatistics = field(default_factory=UploadStatistics)
    uploaded: UploadedObjects = field(default_factory=UploadedObjects, compare=False)


@dataclass(frozen=True, slots=True)
class CommitOutcome:
    """The result of a commit: the new head, and the final name of its tag (``""``: none)."""

    final_revision: int
    root_hash: ContentHash
    tag_name: str = ""
    missing_objects: int = 0
    """The number of objects that changed entries refer to and that are not in the storage (yet)."""
    phases: Mapping[str, float] = field(default_factory=dict, compare=False)
    """Seconds by phase, see :data:`cvmfs_gw.engine.phases.Phase`. Empty if nothing had to be done."""


class CommitEngine(Protocol):
    """The engine, as the gateway sees it."""

    def prepare(self, fqrn: str, catalogs: tuple[ContentHash, ...]) -> None:
        """Cache uploaded catalogs, which a commit will need soon. Never raises. Called from any thread."""

    def check_lease(self, fqrn: str, lease_path: str) -> None:
        """Raise :exc:`~cvmfs_gw.engine.errors.PathViolation` if nothing could ever be published at *lease_path*.

        A missing ancestor is accepted, as it may be created. Called from any thread.
        """

    def commit(self, request: CommitRequest) -> CommitOutcome:
        """Merge, tag, sign and publish; durable on return. Raises :exc:`~cvmfs_gw.engine.errors.EngineError`.

        Called from worker threads: one call at a time for a repository, several at once for different ones.
        """
