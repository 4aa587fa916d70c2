"""The request and the result of a publish."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from cvmfs_gw.engine.statistics import PublishCounts
from cvmfs_gw.gateway.authorization import Key
from cvmfs_gw.ingest.gather import GatherOptions
from cvmfs_gw.ingest.items import Source
from cvmfs_gw.ingest.ownership import SAME, IdMap
from cvmfs_objstore.chunksizes import DEFAULT_SIZES, ChunkSizes
from cvmfs_objstore.compression import Compression

_EVERYTHING: Final = GatherOptions()


class Action(Enum):
    """How a source is applied to the target path."""

    REPLACE = "replace"
    """The path becomes equal to the source."""
    ADD = "add"
    """The source is put over what is there."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on *target* (``""`` or ``/a/b``); without a source, the target is removed. Use sources once."""

    target: str
    source: Source | None = None
    action: Action = Action.REPLACE


@dataclass(frozen=True, slots=True)
class Destination:
    """A repository and how to get at it: *public_keys* is the PEM text of its masters, *key* the gateway's."""

    fqrn: str
    gateway: str
    stratum0: str
    key: Key
    public_keys: bytes


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """How contents are stored and whose they are. The defaults are those of deployed publishers.

    *chunks* None: no file is cut. *fast*: compress several times faster, with names that other tools would not give.
    *wait_s*: how long a busy path is waited for. *work_folder*: where new objects are kept until they are sent (None:
    the system's folder for temporary files). *threads* None: one for each core.
    """

    compression: Compression = Compression.ZLIB
    chunks: ChunkSizes | None = DEFAULT_SIZES
    fast: bool = False
    uids: IdMap = SAME
    gids: IdMap = SAME
    gather: GatherOptions = _EVERYTHING
    wait_s: float = 0.0
    work_folder: str | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """Steps, in order, that become visible together, as one revision; *tag* names it."""

    destination: Destination
    steps: tuple[Step, ...]
    tag: str = ""
    description: str = ""
    options: PublishOptions = PublishOptions()


@dataclass(frozen=True, slots=True)
class PublishReport:
    """The result of a publish: the revision, and how many objects and bytes were sent to the gateway.

    If there was nothing to change, *changed* is False and the revision is the present one. *files* and *bytes* were
    read, *unchanged* files were not. *missing* objects do not exist, according to the gateway: this needs attention.
    """

    revision: int
    objects: int = 0
    sent: int = 0
    changed: bool = True
    tag: str = ""
    files: int = 0
    bytes: int = 0
    unchanged: int = 0
    counts: PublishCounts | None = None
    missing: tuple[str, ...] = ()


class Progress:
    """Follows the progress, partly from other threads. This base class does nothing; the command line displays it."""

    def stored(self, path: str, size: int) -> None:
        """A file's content of *size* bytes is being compressed and hashed."""

    def planned(self, revision: int, counts: PublishCounts) -> None:
        """The new catalogs are made: that is what changes in the revision that is there."""

    def busy(self, detail: str) -> None:
        """Somebody else has the path."""

    def sending(self, objects: int, size: int) -> None:
        """The path is leased, and that many objects and bytes are to be sent, less what the repository has already."""

    def sent(self, objects: int, size: int) -> None:
        """That many objects and bytes have arrived."""

    def end(self) -> None:
        """Nothing more comes."""
