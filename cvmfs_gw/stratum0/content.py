"""Turns a body into objects, chunked and compressed according to ``server.conf``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cvmfs_gw.engine.errors import ConfigurationError
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.ingest.archive import ArchiveSource
from cvmfs_gw.ingest.contents import ContentOptions, Contents, StoredContent
from cvmfs_gw.ingest.errors import BadTarget, IngestError, SourceTooLarge
from cvmfs_gw.ingest.gather import Devices, Gathered, GatherOptions, gather
from cvmfs_gw.ingest.image import ImageSource
from cvmfs_gw.ingest.items import Source
from cvmfs_gw.serverconf import ServerConf
from cvmfs_gw.stratum0.conditions import ALWAYS, Condition
from cvmfs_gw.stratum0.errors import InvalidRequest, PathConflict, TooLarge
from cvmfs_gw.stratum0.intake import Body
from cvmfs_gw.stratum0.settings import RepositorySettings
from cvmfs_objstore.chunksizes import DEFAULT_SIZES, ChunkSizes
from cvmfs_objstore.compression import Compression
from cvmfs_objstore.errors import FormatError
from cvmfs_objstore.hashes import Algorithm

IN_FLIGHT: Final = 64 << 20
"""Bytes of all large bodies together that may be queued for compressing, hashing and writing, plus a chunk of each."""
SMALL: Final = 1 << 20
"""A body of at most this many bytes is small: it is processed by one thread."""
_UNKNOWN: Final = 1 << 50  # surely longer than any body


def content_options(configuration: ServerConf, algorithm: Algorithm) -> ContentOptions:
    """How contents are stored; raises :exc:`ConfigurationError`."""
    chunks = None
    try:
        if configuration.flag("CVMFS_USE_FILE_CHUNKING", default=True):
            chunks = ChunkSizes(
                configuration.limit("CVMFS_MIN_CHUNK_SIZE") or DEFAULT_SIZES.smallest,
                configuration.limit("CVMFS_AVG_CHUNK_SIZE") or DEFAULT_SIZES.average,
                configuration.limit("CVMFS_MAX_CHUNK_SIZE") or DEFAULT_SIZES.largest,
            )
        return ContentOptions(algorithm, Compression.from_config(configuration.compression_algorithm), chunks)
    except FormatError as error:
        raise ConfigurationError(str(error)) from error


def store_file(body: Body, length: int | None, repository: Repository, others: int = 0) -> StoredContent:
    """Read *body*, of *length* bytes if that is known, to its end and store it as one file's content.

    *others* is the number of large bodies stored at the same time. Raises :exc:`UploadError`, :exc:`EngineError` and
    ``OSError``.
    """
    threads = 1 if length is not None and length <= SMALL else None
    with _contents(repository, others, threads) as contents:
        stored = contents.add(body, _UNKNOWN if length is None else length)
        body.finish()  # its checksum is known at its end only
        contents.finish()
    return stored


def _contents(
    repository: Repository, others: int, threads: int | None, progress: Callable[[int], None] = lambda size: None
) -> Contents:
    settings = content_options(repository.configuration(), repository.head().root_hash.algorithm)
    in_flight = IN_FLIGHT // (others + 1)
    if others >= (os.cpu_count() or 1):
        threads = 1
    return Contents(repository.storage, settings, threads=threads, in_flight=in_flight, progress=progress)


class Archive(StrEnum):
    """The supported archives: a tar archive, compressed or not, or a container image in one."""

    TAR = "tar"
    OCI = "oci"


@dataclass(frozen=True, slots=True)
class Unpack:
    """What to unpack: if the archive has several images, the one for *platform*, or the one named *tag*."""

    kind: Archive
    platform: str | None = None
    tag: str | None = None

    def source(self, body: Body) -> Source:
        """The kind of archive in *body*."""
        if self.kind is Archive.TAR:
            return ArchiveSource(body)
        return ImageSource(body, platform=self.platform, tag=self.tag)


@dataclass(frozen=True, slots=True)
class Upload:
    """The options of an upload. *ttl_s* None: the repository's default; *wait_s*: patience with a leased path."""

    overwrite: bool = False
    ttl_s: int | None = None
    mode: int = 0o644
    unpack: Unpack | None = None
    """If set, the body is an archive to be unpacked."""
    condition: Condition = ALWAYS
    """The condition on the present content; only for a file."""
    checksum: str = ""
    length: int | None = None
    """The length of the body in bytes, if known."""
    wait_s: float = 0.0
    who: str = ""
    """Who sends it; see :class:`~cvmfs_gw.stratum0.authorization.Grant`."""


def store_archive(
    body: Body, wanted: Unpack, repository: Repository, limits: RepositorySettings, others: int = 0
) -> Gathered:
    """Read *body* to its end and store its content; of an image, the merged layers.

    Device files are left out. Raises :exc:`UploadError`, :exc:`EngineError` and ``OSError``.
    """
    taken = 0

    def progress(size: int) -> None:
        nonlocal taken
        taken += size
        if taken > limits.max_bytes:
            raise TooLarge(f"the archive holds more than {limits.max_bytes} bytes")

    options = GatherOptions(Devices.SKIP, limits.max_bytes, limits.max_entries)
    with translated(), _contents(repository, others, None, progress) as contents:
        gathered = gather(wanted.source(body), contents, options)
        body.finish()
    return gathered


@contextmanager
def translated() -> Iterator[None]:
    """Convert errors in an archive to :exc:`UploadError`."""
    try:
        yield
    except SourceTooLarge as error:
        raise TooLarge(str(error)) from error
    except BadTarget as error:
        raise PathConflict(str(error)) from error
    except IngestError as error:
        raise InvalidRequest(str(error)) from error
