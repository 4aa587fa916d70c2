"""A worker process that stores object packs, or its share of each: the messages, and the work.

The gateway reads bodies into shared blocks and tells the process which block is next. Each pack has its own thread, so
that a slow disk of one repository does not delay another. The process exits when the gateway does.

::

    Begin ─▶ Block* ─▶ End     Stored for each block, at the end Finished
                    └▶ Abort   Refused; also at any time, on an error in the pack or of the storage

Each ``Begin`` is answered by exactly one ``Finished`` or ``Refused``, after which no more blocks are read.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Final

from cvmfs_gw.engine.commit_api import UploadedObjects, UploadStatistics
from cvmfs_gw.gateway.blocks import BlockReader
from cvmfs_gw.gateway.errors import PayloadError, StoreFailure
from cvmfs_gw.gateway.packs import PackReceiver
from cvmfs_objstore.formats.objectpack import Share
from cvmfs_objstore.hashes import ContentHash
from cvmfs_objstore.objects import ObjectStore
from cvmfs_objstore.storage import Storage

log = logging.getLogger(__name__)

NICE: Final = 10
"""What is bulk work leaves the processors to commits and to whoever waits for a short answer."""


@dataclass(frozen=True, slots=True)
class Begin:
    """A pack comes for the storage of *opener*. *most* is how many names of objects to report for each block."""

    upload: int
    opener: Callable[[], Storage]
    digest: str
    header_size: int
    max_size: int
    share: Share
    most: int


@dataclass(frozen=True, slots=True)
class Block:
    """The next *length* bytes of the pack."""

    upload: int
    number: int
    length: int


@dataclass(frozen=True, slots=True)
class End:
    """That was the pack."""

    upload: int


@dataclass(frozen=True, slots=True)
class Abort:
    """Nobody wants the rest."""

    upload: int


Order = Begin | Block | End | Abort


@dataclass(frozen=True, slots=True)
class Stored:
    """A block was read, and is not used any more. *objects* is how many are there so far."""

    upload: int
    objects: int
    uploaded: UploadedObjects


@dataclass(frozen=True, slots=True)
class Finished:
    """The share is stored."""

    upload: int
    brought: UploadStatistics
    catalogs: tuple[ContentHash, ...]
    uploaded: UploadedObjects
    """Those that were not there yet when the last block had been read."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing more is stored."""

    upload: int
    error: PayloadError


Answer = Stored | Finished | Refused


class Storer:
    """Does what it is told over *connection*, with the blocks in the file *blocks*."""

    def __init__(self, connection: Connection, blocks: int) -> None:
        self._connection = connection
        self._blocks = BlockReader(blocks)
        self._sending = threading.Lock()
        self._uploads: dict[int, SimpleQueue[Order]] = {}
        self._threads: set[threading.Thread] = set()

    def run(self) -> None:
        """Work until the other side is gone. Returns when nothing half written is left."""
        try:
            while True:
                self._take(self._connection.recv())
        except (EOFError, ConnectionError):
            for upload, orders in list(self._uploads.items()):
                orders.put(Abort(upload))
        for thread in list(self._threads):
            thread.join()

    def _take(self, order: Order) -> None:
        if isinstance(order, Begin):
            orders: SimpleQueue[Order] = SimpleQueue()
            self._uploads[order.upload] = orders
            thread = threading.Thread(target=self._store, args=(order, orders))
            self._threads.add(thread)
            thread.start()
        elif (waiting := self._uploads.get(order.upload)) is not None:  # it may be refused at any moment
            waiting.put(order)

    def _store(self, begin: Begin, orders: SimpleQueue[Order]) -> None:
        try:
            answer = self._result(begin, orders)
        except PayloadError as error:
            answer = Refused(begin.upload, error)
        except OSError as error:
            answer = Refused(begin.upload, StoreFailure(error.strerror or type(error).__name__))
        except Exception as error:
            log.exception("storing an object pack failed")
            answer = Refused(begin.upload, StoreFailure(type(error).__name__))
        del self._uploads[begin.upload]
        self._answer(answer)
        self._threads.discard(threading.current_thread())

    def _result(self, begin: Begin, orders: SimpleQueue[Order]) -> Answer:
        uploaded = UploadedObjects(begin.most)
        receiver = PackReceiver(
            ObjectStore(begin.opener()),
            begin.digest,
            begin.header_size,
            max_size=begin.max_size,
            note=lambda name: uploaded.add(name),
            share=begin.share,
        )
        try:
            while isinstance(order := orders.get(), Block):
                receiver.feed([self._blocks.view(order.number, order.length)])
                self._answer(Stored(begin.upload, receiver.objects, uploaded))
                uploaded = UploadedObjects(begin.most)
            if isinstance(order, Abort):
                return Refused(begin.upload, StoreFailure("the upload was given up"))
            return Finished(begin.upload, receiver.finish(), tuple(receiver.catalogs), uploaded)
        finally:
            receiver.abort()

    def _answer(self, answer: Answer) -> None:
        try:
            with self._sending:
                self._connection.send(answer)
        except ConnectionError:
            pass  # the gateway has gone, and run is told of it


def main() -> None:
    """The process: ``CONNECTION BLOCKS`` on its command line, two descriptors."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the gateway's business, which then lets go of us
    os.nice(NICE)
    connection, blocks = map(int, sys.argv[1:])
    Storer(Connection(connection), blocks).run()
