"""Checks the storage of a repository: every object exists and matches its hash, and there are no stray files.

Works through the folders of ``data/``, several at a time: threads hash and inflate in parallel.

Source: ``cvmfs_swissknife check -c`` and ``scrub``. Divergence: objects are inflated, too, and their length is compared
with the size in the entries.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from cvmfs_gw.care.digests import (
    FOLDERS,
    NAME_BITS,
    NAME_SIZE,
    DigestSet,
    compression_of,
    name_of_record,
    record_of,
    size_of,
)
from cvmfs_gw.care.faults import FaultKind, Faults
from cvmfs_gw.engine.repository import Repository
from cvmfs_objstore.compression import PIECE, Compression, Decoder
from cvmfs_objstore.errors import InvalidHash, ObjectCorrupt, ObjectNotFound, ObjectTooLarge
from cvmfs_objstore.hashes import DIGEST_SIZE, ContentHash, Suffix
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.storage import STAGING

_NO_LIMIT: Final = 1 << 62
_FOLDER: Final = re.compile(r"[0-9a-f]{2}")
_INFLATED: Final = frozenset((Suffix.CATALOG, Suffix.HISTORY, Suffix.CERTIFICATE, Suffix.METAINFO))
"""Kinds of objects that are always compressed, whatever entries say."""


REMOTE_THREADS: Final = 16
"""Folders that are looked at side by side where the storage is on another host."""


class Progress:
    """Follows the progress of checking the objects; this base class does nothing."""

    def begin(self, total: int) -> None:
        """The number of folders that will be checked."""

    def folder_done(self, objects: int, size: int) -> None:
        """A folder is done: the number of objects in it, and of bytes that were read."""

    def end(self) -> None:
        """All folders are done, or the check was interrupted."""


class ObjectCheck:
    """Checks the objects of a repository, adding to *faults*."""

    def __init__(self, repository: Repository, faults: Faults, progress: Progress) -> None:
        self._storage, self._objects = repository.storage, repository.objects
        self._faults, self._progress = faults, progress
        self._lock = threading.Lock()
        self.stored = self.referenced = self.unreferenced = self.bytes_read = 0
        self.missing: set[bytes] = set()
        """Records of the names of missing objects."""

    def check_layout(self) -> None:
        """All folders of ``data/`` must exist, and no others: other tools rename into them without checking."""
        storage = self._storage
        if not isinstance(storage, LocalStorage):
            return
        try:
            found = set(os.listdir(os.path.join(storage.root, "data")))
        except FileNotFoundError:
            found = set()
        wanted = {f"{number:02x}" for number in range(FOLDERS)} | {STAGING.rpartition("/")[2]}
        for name in sorted(wanted - found):
            self._faults.add(FaultKind.FOLDER_MISSING, f"data/{name}")
        for name in sorted(found - wanted):
            self._faults.add(FaultKind.STRAY_FILE, f"data/{name}")

    def check(self, referenced: DigestSet, read: set[ContentHash], *, integrity: bool, everything: bool = True) -> None:
        """Check that the objects in *referenced* exist; with *integrity*, read them, or *everything* that is stored.

        Objects in *read* are not read again.
        """
        already = frozenset(record_of(name) for name in read)
        self._progress.begin(FOLDERS)
        # on another host there is more waiting than computing
        threads = REMOTE_THREADS if self._storage.pool is not None else max(2, os.cpu_count() or 1)
        pool = ThreadPoolExecutor(threads, "check")
        try:
            folder = partial(self._folder, referenced, already, integrity=integrity, everything=everything)
            for _ in pool.map(folder, range(FOLDERS)):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
            self._progress.end()

    def _folder(
        self, referenced: DigestSet, already: frozenset[bytes], number: int, *, integrity: bool, everything: bool
    ) -> None:
        wanted: dict[bytes, list[bytes]] = {}
        for record in referenced.folder(number):
            wanted.setdefault(_name_part(record), []).append(record)
        stored = set(self._stored(number))
        missing = wanted.keys() - stored
        to_read = (stored if everything else stored & wanted.keys()) - already if integrity else ()
        size = sum(self._read(name, wanted.get(name, ())) for name in to_read)
        with self._lock:
            self.stored += len(stored)
            self.referenced += len(wanted)
            self.unreferenced += len(stored - wanted.keys())
            self.bytes_read += size
            for name in missing:
                if _is_content(name):
                    self.missing.add(name)
        self._progress.folder_done(len(stored), size)

    def _stored(self, number: int) -> Iterable[bytes]:
        """Records of the names of all objects in a folder."""
        folder = f"data/{number:02x}"
        for path in self._storage.list(folder):
            name = path[len(folder) + 1 :]
            try:
                yield record_of(ContentHash.parse(f"{number:02x}{name}"))
            except InvalidHash:
                with self._lock:
                    self._faults.add(FaultKind.STRAY_FILE, path)

    def _read(self, name: bytes, records: Iterable[bytes]) -> int:
        """Hash an object, and inflate it as the entries that refer to it require; returns its stored length."""
        ref = name_of_record(name)
        compressions = {compression_of(record) for record in records}
        if ref.suffix in _INFLATED:
            compressions = {Compression.ZLIB}
        decoders = {c: Compression(c).decoder(_NO_LIMIT) for c in compressions if c in tuple(Compression)}
        try:
            size, plain, broken = self._decode(ref, decoders)
        except ObjectNotFound:
            return 0  # removed by a collector
        except (ObjectCorrupt, OSError) as error:
            self._add(FaultKind.OBJECT_CORRUPT, str(ref), str(error))
            return 0
        for detail in broken:
            self._add(FaultKind.OBJECT_COMPRESSION, str(ref), detail)
        for record in records if _is_content(name) else ():
            length = plain.get(compression_of(record))
            if length is not None and length != size_of(record):
                self._add(FaultKind.OBJECT_SIZE, str(ref), f"{length} bytes, not {size_of(record)}")
        return size

    def _decode(self, ref: ContentHash, decoders: dict[int, Decoder]) -> tuple[int, dict[int, int], list[str]]:
        hasher = ref.algorithm.new()
        size, plain, broken = 0, dict.fromkeys(decoders, 0), []
        with self._objects.open(ref) as file:
            while data := file.read(PIECE):
                hasher.update(data)
                size += len(data)
                for number in list(decoders):
                    try:
                        plain[number] += sum(len(piece) for piece in decoders[number].update(data))
                    except (ObjectCorrupt, ObjectTooLarge) as error:
                        broken.append(str(error))
                        del decoders[number], plain[number]
        if hasher.digest() != ref.digest:
            raise ObjectCorrupt(f"it has the content of {hasher.digest().hex()}")
        for number, decoder in decoders.items():
            try:
                decoder.finish()
            except ObjectCorrupt as error:
                broken.append(str(error))
                del plain[number]
        return size, plain, broken

    def _add(self, kind: FaultKind, place: str, detail: str) -> None:
        with self._lock:
            self._faults.add(kind, place, detail)


def _name_part(record: bytes) -> bytes:
    """The record of the name alone."""
    return record[:DIGEST_SIZE] + bytes((record[DIGEST_SIZE] & NAME_BITS,))


def _is_content(name: bytes) -> bool:
    """Whether an object is of a file: others are reported where they are missed."""
    return name_of_record(name[:NAME_SIZE]).suffix in (Suffix.NONE, Suffix.CHUNK)
