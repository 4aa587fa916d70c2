"""A repository's rules for its content: sizes within limits, no missing objects.

Source: ``CVMFS_ROOT_KCATALOG_LIMIT``, ``CVMFS_NESTED_KCATALOG_LIMIT``, ``CVMFS_FILE_MBYTE_LIMIT`` and
``CVMFS_ENFORCE_LIMITS`` in ``server.conf``; a limit that is not set does not apply.

Divergence: the reference's receiver crashes when a catalog limit is exceeded, and does not check for missing objects.
Here, exceeding a limit is an ordinary error (or, if limits are not enforced, a warning), and missing objects are
counted, or refused if *strict*.
"""

from __future__ import annotations

import logging
from collections.abc import Set
from typing import Final, NamedTuple

from cvmfs_gw.engine.commit_api import UploadedObjects
from cvmfs_gw.engine.errors import LimitExceeded, MergeError, MissingObject
from cvmfs_gw.engine.newfiles import NewFiles
from cvmfs_gw.engine.rowpaths import RowPaths
from cvmfs_gw.serverconf import ServerConf
from cvmfs_objstore.errors import FormatError
from cvmfs_objstore.formats.entry import FLAG_DIRECTORY, FLAG_EXTERNAL, Chunks, Entry, Kind, storage_algorithm
from cvmfs_objstore.hashes import Suffix, object_path
from cvmfs_objstore.objects import ObjectStore

_log = logging.getLogger(__name__)
_NAMED: Final = 10
"""The number of missing objects that are named in the log."""


class _Kind(NamedTuple):
    """What entries with the same flags share: the algorithm tag of their objects, and the set of uploaded ones."""

    tag: str
    objects: Set[bytes]
    chunks: Set[bytes]


class Rules:
    """The rules of one repository, applied to one publish. Use once."""

    def __init__(
        self,
        configuration: ServerConf,
        objects: ObjectStore,
        uploaded: UploadedObjects | None = None,
        *,
        strict_objects: bool = False,
    ) -> None:
        """Objects that were *uploaded* are known to exist and not looked up."""
        self._uploaded = uploaded or UploadedObjects()
        self._exists = objects.storage.exists
        self._missing_of = objects.storage.missing
        self._kinds: dict[int, _Kind] = {}
        self._strict = strict_objects
        self._enforce = configuration.enforce_limits
        self._root_limit = (configuration.root_kcatalog_limit or 0) * 1000
        self._nested_limit = (configuration.nested_kcatalog_limit or 0) * 1000
        self._file_limit = (configuration.file_mbyte_limit or 0) << 20
        self.missing = 0
        """The number of objects that changed entries refer to and the storage does not have."""

    def check_entry(self, path: str, entry: Entry, chunks: Chunks) -> None:
        """Check an entry that is new or changed. Raises :exc:`LimitExceeded` or :exc:`MissingObject`."""
        flags = entry.flags
        if flags & FLAG_DIRECTORY:
            return
        if self._file_limit and entry.size > self._file_limit and entry.kind is Kind.FILE:
            self._too_large(path, entry.size)
        if flags & FLAG_EXTERNAL:
            return
        kind = self._kind_of(flags)
        if entry.hash is not None and entry.hash not in kind.objects:
            self._look_for(path, entry.hash, kind.tag)
        for chunk in chunks:
            if chunk.hash not in kind.chunks:
                self._look_for(path, chunk.hash, f"{kind.tag}{Suffix.CHUNK}")

    def _look_for(self, path: str, digest: bytes, tag: str) -> None:
        if not self._exists(object_path(digest, tag)):
            self._miss(path, f"{digest.hex()}{tag}")

    def check_files(self, files: NewFiles, paths: RowPaths) -> None:
        """The same for many plain files of one catalog."""
        if self._file_limit:
            for parent, name, size in files.larger_than(self._file_limit):
                self._too_large(f"{paths.directory(parent)}/{name}", size)
        for flags in files.flags():
            if flags & FLAG_EXTERNAL:
                continue
            tag, known, _ = self._kind_of(flags)
            # a loop lets other threads run; building and subtracting such large sets in one call would not
            digests = {digest for digest in files.hashes(flags) if digest not in known}
            unknown = {object_path(digest, tag): digest for digest in digests}
            missing = {unknown[path] for path in self._missing_of(unknown)}
            for parent, name, digest in files.holders(flags) if missing else ():
                if digest in missing:
                    self._miss(f"{paths.directory(parent)}/{name}", f"{digest.hex()}{tag}")

    def _kind_of(self, flags: int) -> _Kind:
        # Called for up to 100,000 entries, most of them with the same flags.
        kind = self._kinds.get(flags)
        if kind is None:
            try:
                algorithm = storage_algorithm(flags)
            except FormatError as error:
                raise MergeError(f"an entry has an unknown hash algorithm (flags {flags:#x})") from error
            digests = self._uploaded.digests
            kind = _Kind(algorithm.tag, digests(algorithm), digests(algorithm, Suffix.CHUNK))
            self._kinds[flags] = kind
        return kind

    def check_catalog(self, mountpoint: str, entries: int) -> None:
        """Check the number of entries of a catalog that is new or changed; raises :exc:`LimitExceeded`."""
        limit = self._nested_limit if mountpoint else self._root_limit
        if limit and entries > limit:
            self._exceeded(f"the catalog at {mountpoint or '/'} has {entries} entries, more than the {limit} allowed")

    def _too_large(self, path: str, size: int) -> None:
        self._exceeded(f"{path} has {size} bytes, more than the {self._file_limit} that are allowed")

    def _exceeded(self, what: str) -> None:
        if self._enforce:
            raise LimitExceeded(what)
        _log.warning("%s", what)

    def _miss(self, path: str, name: str) -> None:
        if self._strict:
            raise MissingObject(f"not in the storage: {name}, which {path} refers to")
        self.missing += 1
        if self.missing <= _NAMED:
            _log.warning("not in the storage: %s, which %s refers to", name, path)
