"""Object packs: how a publisher sends many objects at once.

::

    pack    = header *OCTET                        ; the objects' bytes, one after the other
    header  = "V2" LF "S" size LF "N" count LF "--" LF *item
    item    = "C" SP hash SP size LF               ; size: of the object as stored; S: the sum of them
    hash    = 40HEXDIG [ "-" algorithm ] [ suffix ]

Header and bytes travel together with the SHA-1 of the header and its length. Objects are sent as they are to
be stored, so an object's hash is the hash of its bytes here. A pack may be empty, and so may objects.

A pack may be larger than memory, and so may a single object in it. :class:`PackParser` is therefore incremental: it
takes bytes as they arrive and returns events. Small objects come whole and many at a time (:class:`Batch`), without
copying, so that another thread can hash and store them; large ones come in slices and are hashed by the parser.
Several parsers that are fed the same bytes can divide the objects among themselves (:class:`Share`).

Source: the payload of ``POST /payloads``.
Divergence: the reference also accepts items ``N`` (named files, written to any path) and objects whose bytes do not
match their hash. Both are refused here. No publisher sends either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from cvmfs_objstore.compression import PIECE
from cvmfs_objstore.errors import ObjectPackError
from cvmfs_objstore.hashes import Algorithm, ContentHash, Hasher, Suffix

MAX_HEADER_SIZE: Final = 10_000_000
"""The largest header, in bytes, that a receiver accepts: 100,000 items of 100 bytes each."""

MAX_PACK_SIZE: Final = 200 * 1024 * 1024
"""Bytes that a sender puts into one pack at most, unless a single object is larger."""

MAX_PACK_OBJECTS: Final = 100_000
"""Objects that a sender puts into one pack at most."""

SMALL_OBJECT: Final = 1024 * 1024
"""An object of at most this many bytes comes whole, in a batch; a larger one comes in slices."""

# number = "0" / (%x31-39 *18DIGIT): fits into a signed 64-bit number
_NUMBER: Final = rb"(0|[1-9][0-9]{0,17})"
_HEAD: Final = re.compile(rb"V2\nS" + _NUMBER + rb"\nN" + _NUMBER + rb"\n--\n")
_ITEM: Final = re.compile(rb"C ([0-9a-f]{40})((?:-rmd160|-shake128)?)([CHXMPL]?) " + _NUMBER + rb"\n")
_ALGORITHMS: Final = {algorithm.tag.encode(): algorithm for algorithm in Algorithm}
_SUFFIXES: Final = {suffix.value.encode(): suffix for suffix in Suffix}


@dataclass(frozen=True, slots=True)
class Share:
    """Every *of*-th object of a pack, starting with the object number *first*."""

    first: int = 0
    of: int = 1


WHOLE: Final = Share()


@dataclass(frozen=True, slots=True)
class PackItem:
    """One object of a pack: its name, and its stored size in bytes."""

    name: ContentHash
    size: int
    offset: int = field(default=0, compare=False)
    """Where its bytes begin, counted from the end of the header."""


@dataclass(frozen=True, slots=True)
class PackHeader:
    """The parsed header; the first event of every pack."""

    items: tuple[PackItem, ...]
    size: int
    """The sum of all object sizes, in bytes."""

    @classmethod
    def parse(cls, data: bytes, share: Share = WHOLE) -> PackHeader:
        """Check the whole header, and keep the items of *share*. Raises :exc:`ObjectPackError`."""
        head = _HEAD.match(data)
        if head is None:
            raise ObjectPackError("not the header of an object pack of version 2")
        size, count = int(head[1]), int(head[2])
        items: list[PackItem] = []
        position, end, total, number = head.end(), len(data), 0, 0
        match, first, every = _ITEM.match, share.first, share.of
        while position < end:
            item = match(data, position)
            if item is None:
                raise _bad_line(data[position : position + 200])
            digest, algorithm, suffix, length = item.groups()
            size_of_it = int(length)
            if number % every == first:
                name = ContentHash(bytes.fromhex(digest.decode()), _ALGORITHMS[algorithm], _SUFFIXES[suffix])
                items.append(PackItem(name, size_of_it, total))
            total += size_of_it
            number += 1
            position = item.end()
        if number != count:
            raise ObjectPackError(f"the header promises {count} objects and lists {number}")
        if total != size:
            raise ObjectPackError(f"the header promises {size} bytes and lists {total}")
        return cls(tuple(items), size)

    def serialize(self) -> bytes:
        lines = [f"V2\nS{self.size}\nN{len(self.items)}\n--\n"]
        lines += [f"C {item.name} {item.size}\n" for item in self.items]
        return "".join(lines).encode("ascii")


@dataclass(frozen=True, slots=True)
class Batch:
    """Whole small objects. Their bytes are slices of the input and not verified yet."""

    objects: tuple[tuple[ContentHash, memoryview], ...]

    def verified(self) -> Iterator[tuple[ContentHash, memoryview]]:
        """The objects, each after its hash was verified; raises :exc:`ObjectPackError` at the first mismatch."""
        for name, data in self.objects:
            hasher = name.algorithm.new()
            hasher.update(data)
            _check(name, hasher.digest())
            yield name, data


@dataclass(frozen=True, slots=True)
class ObjectBegin:
    """A large object follows, in slices."""

    item: PackItem


@dataclass(frozen=True, slots=True)
class ObjectSlice:
    """The next bytes of the large object: a slice of the input."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class ObjectEnd:
    """The large object is complete, and its bytes match its hash."""

    item: PackItem


Event = PackHeader | Batch | ObjectBegin | ObjectSlice | ObjectEnd


class PackParser:
    """An incremental parser: takes a pack's bytes as they arrive, returns events. No I/O; memory is bounded.

    *digest* and *header_size* are what the sender announced about the header. Only objects of *share* make events; the
    bytes of others are skipped. Raises :exc:`ObjectPackError` at the first error, and on every call after that.
    """

    def __init__(
        self, digest: ContentHash, header_size: int, *, small_object: int = SMALL_OBJECT, share: Share = WHOLE
    ) -> None:
        if not 0 < header_size <= MAX_HEADER_SIZE:
            raise ObjectPackError(f"a header of {header_size} bytes: at most {MAX_HEADER_SIZE} are accepted")
        self._digest = digest
        self._header_size = header_size
        self._small_object = small_object
        self._share = share
        self._header: PackHeader | None = None
        self._items: Iterator[PackItem] = iter(())
        self._item: PackItem | None = None  # the one whose bytes come next
        self._position = 0  # how many bytes have come behind the header
        self._hasher: Hasher | None = None  # of the item, while it is a large one
        self._carry = bytearray()  # what has come of the header, or of a small object
        self._failed = False

    @property
    def done(self) -> bool:
        """True once the last byte has come."""
        return self._header is not None and self._position == self._header.size and not self._failed

    def feed(self, data: bytes | memoryview) -> list[Event]:
        """Take the next bytes, any number of them; returns the resulting events, in the order of the pack.

        Events hold slices of *data*, which must not be changed while they are in use.
        """
        if self._failed:
            raise ObjectPackError("the object pack is broken")
        try:
            return self._feed(memoryview(data))
        except ObjectPackError:
            self._failed = True
            raise

    def finish(self) -> None:
        """Mark the end of the input; raises :exc:`ObjectPackError` if the pack is incomplete."""
        if not self.done:
            self._failed = True
            raise ObjectPackError("the object pack ends early")

    def _feed(self, view: memoryview) -> list[Event]:
        events: list[Event] = []
        if self._header is None:
            rest = self._header_size - len(self._carry)
            self._carry += view[:rest]
            if len(self._carry) < self._header_size:
                return events
            view = view[rest:]
            self._header = self._begin()
            events.append(self._header)
        before = self._position
        self._position = end = before + len(view)
        if end > self._header.size:
            raise ObjectPackError("bytes behind the end of the object pack")
        batch: list[tuple[ContentHash, memoryview]] = []
        while (item := self._item) is not None:
            stop = item.offset + item.size
            if stop > end and item.offset >= end:
                break  # nothing of it is here
            part = view[max(item.offset - before, 0) : stop - before]
            if item.size > self._small_object:
                if batch:
                    events.append(Batch(tuple(batch)))
                    batch = []
                self._take_slice(item, part, events)
            elif stop <= end and not self._carry:
                batch.append((item.name, part))
            else:
                self._carry += part
                if stop <= end:
                    batch.append((item.name, memoryview(self._carry).toreadonly()))
                    self._carry = bytearray()
            if stop > end:
                break
            self._item = next(self._items, None)
        if batch:
            events.append(Batch(tuple(batch)))
        return events

    def _begin(self) -> PackHeader:
        raw, self._carry = bytes(self._carry), bytearray()
        if ContentHash.of(raw, self._digest.algorithm).digest != self._digest.digest:
            raise ObjectPackError("the header does not have the digest that was announced")
        header = PackHeader.parse(raw, self._share)
        self._items = iter(header.items)
        self._item = next(self._items, None)
        return header

    def _take_slice(self, item: PackItem, part: memoryview, events: list[Event]) -> None:
        if self._hasher is None:
            self._hasher = item.name.algorithm.new()
            events.append(ObjectBegin(item))
        self._hasher.update(part)
        events.append(ObjectSlice(part))
        if self._position >= item.offset + item.size:
            _check(item.name, self._hasher.digest())
            self._hasher = None
            events.append(ObjectEnd(item))


class PackBuilder:
    """Collects objects, and serializes them as a pack."""

    def __init__(self) -> None:
        self._items: dict[ContentHash, tuple[PackItem, bytes | Callable[[], BinaryIO]]] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._items)

    def fits(self, size: int) -> bool:
        """Whether an object of *size* bytes may be added; the first always may, however large it is."""
        return not self._items or (len(self) < MAX_PACK_OBJECTS and self.size + size <= MAX_PACK_SIZE)

    def add(self, name: ContentHash, data: bytes) -> bool:
        """Add an object that is in memory. Returns False for one that the pack already has."""
        return self._add(PackItem(name, len(data)), data)

    def add_file(self, name: ContentHash, size: int, source: Callable[[], BinaryIO]) -> bool:
        """Add an object of *size* bytes that *source* opens when its turn comes."""
        return self._add(PackItem(name, size), source)

    def _add(self, item: PackItem, source: bytes | Callable[[], BinaryIO]) -> bool:
        if item.name in self._items:
            return False
        self._items[item.name] = (item, source)
        self.size += item.size
        return True

    def header(self) -> bytes:
        return PackHeader(tuple(item for item, _ in self._items.values()), self.size).serialize()

    def stream(self) -> Iterator[bytes]:
        """The header, then the objects' bytes, in pieces.

        Raises :exc:`ObjectPackError` if a source does not yield exactly as many bytes as announced.
        """
        yield self.header()
        for item, source in self._items.values():
            if isinstance(source, bytes):
                if source:
                    yield source
                continue
            left = item.size
            with source() as file:
                while piece := file.read(PIECE):
                    left -= len(piece)
                    if left < 0:
                        break
                    yield piece
            if left:
                raise ObjectPackError(f"{item.name} does not have {item.size} bytes any more")


def header_digest(header: bytes) -> ContentHash:
    """The ``payload_digest`` of a header: its SHA-1, whatever the repository's algorithm."""
    return ContentHash.of(header)


def _check(name: ContentHash, digest: bytes) -> None:
    if digest != name.digest:
        raise ObjectPackError(f"the bytes of {name} have the hash {digest.hex()}")


def _bad_line(start: bytes) -> ObjectPackError:
    if start.startswith(b"N "):
        return ObjectPackError("named files are not accepted")
    line = start.split(b"\n")[0][:100]
    return ObjectPackError(f"not a line of an object pack's header: {line!r}")
