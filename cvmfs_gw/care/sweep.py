"""Sweeping: what lies in a folder of the storage and is not kept goes, in this process or in several at once.

Nearly all of the time the kernel looks up and removes one name after the other. Threads of one interpreter do not do
that side by side, processes do::

    collector                     helpers, one for each processor
    mark                    ───▶  list ahead
    a folder, what is kept  ───▶  compare                            nobody waits
    the lock                ───▶  remove, for some 50 ms             commits wait
                            ◀───  how much went, how much is left

A helper gets the repository's lock itself and not just the word that somebody has it: if the collector is killed, the
lock stays until its helpers have let go. They end when nobody asks them any more.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, Final, Protocol

from cvmfs_gw.care.digests import FOLDERS, file_names
from cvmfs_gw.engine.errors import StorageError
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.storage import Storage

AT_ONCE: Final = 200
"""Objects that are removed while an upload of the same ones may have to wait."""
WORTHWHILE: Final = 100_000
"""Objects from which helpers are quicker than doing it oneself: to start them takes a tenth of a second."""
MAX_HELPERS: Final = 4
"""More do not help: they wait for the file system."""
LISTED_AHEAD: Final = 500_000
"""Names that a helper holds, of some 90 bytes each, before it is told what is kept."""
_OBJECT: Final = re.compile(r"[0-9a-f]{38}(?:-rmd160|-shake128)?[CHXMPL]?")
_PROGRAM: Final = "from cvmfs_gw.care.sweep import help_collector; help_collector()"


@dataclass(frozen=True, slots=True)
class Order:
    """Remove what was written before that time (seconds since the epoch), for some *seconds*.

    With *pretend* nothing goes; with *listed* the answer has names. ``kept`` are packed names that stay, too.
    """

    before: float
    seconds: float
    pretend: bool = False
    listed: bool = False
    kept: bytes = b""


@dataclass(slots=True)
class Removed:
    """What an order came to: objects and their bytes, names of catalogs, names and sizes of all if asked for."""

    objects: int = 0
    size: int = 0
    left: int = 0
    """How many objects of the folder have not been looked at yet."""
    catalogs: list[str] = field(default_factory=list)
    listed: list[tuple[str, int]] = field(default_factory=list)


class FolderSweep:
    """Sweeps one folder of ``data/`` after the other. Names in a folder are without its two digits."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._folder = ""
        self._condemned: list[str] = []
        self._ahead: dict[int, Sequence[str]] = {}

    def list_ahead(self, numbers: Iterable[int]) -> None:
        """List the first of these folders, as there is nothing else to do yet."""
        held = 0
        with suppress(OSError):  # which will be told when it is that folder's turn
            for number in numbers:
                if held >= LISTED_AHEAD:
                    break
                self._ahead[number] = self._storage.names(f"data/{number:02x}")
                held += len(self._ahead[number])

    def begin(self, number: int, kept: bytes) -> int:
        """Find out what is to go from folder *number*, of which the packed names stay; returns how many there are."""
        self._folder = f"data/{number:02x}"
        ahead = self._ahead.pop(number, None)
        # what came or went since it was listed does no harm: what is new is young, and what is not there cannot go
        names = set(self._storage.names(self._folder) if ahead is None else ahead) - file_names(kept)
        is_object = _OBJECT.fullmatch
        self._condemned = [name for name in names if is_object(name)]  # the others are none of ours
        return len(self._condemned)

    def remove(self, order: Order) -> Removed:
        """Do as told; call it again while something is left."""
        started = time.monotonic()
        removed, collect = Removed(), self._storage.collect
        if order.kept:
            kept = file_names(order.kept)
            self._condemned = [name for name in self._condemned if name not in kept]
        while self._condemned:
            names = self._condemned[-AT_ONCE:]
            del self._condemned[-AT_ONCE:]
            sizes = collect(self._folder, names, order.before, pretend=order.pretend)
            for name, size in zip(names, sizes, strict=True):
                if size is not None:
                    removed.objects += 1
                    removed.size += size
                    if name[-1] == "C":
                        removed.catalogs.append(name)
                    if order.listed:
                        removed.listed.append((name, size))
            if time.monotonic() - started >= order.seconds:
                break
        removed.left = len(self._condemned)
        return removed


class Hand(Protocol):
    """Somebody who sweeps: tell several what to do, then ask each what came of it."""

    def begin(self, number: int, kept: bytes) -> None:
        """See :meth:`FolderSweep.begin`."""

    def condemned(self) -> int:
        """What :meth:`begin` has found; raises what it raised, and :exc:`StorageError`."""

    def remove(self, order: Order, lock: int | None) -> None:
        """See :meth:`FolderSweep.remove`. *lock* is the descriptor of the lock that makes it safe."""

    def removed(self) -> Removed:
        """What :meth:`remove` came to; raises what it raised, and :exc:`StorageError`."""


class OwnHand:
    """Sweeps in this process, at once."""

    def __init__(self, storage: Storage) -> None:
        self._sweep = FolderSweep(storage)
        self._found, self._removed = 0, Removed()

    def begin(self, number: int, kept: bytes) -> None:
        self._found = self._sweep.begin(number, kept)

    def condemned(self) -> int:
        return self._found

    def remove(self, order: Order, lock: int | None) -> None:
        self._removed = self._sweep.remove(order)

    def removed(self) -> Removed:
        return self._removed


class Helper:
    """Sweeps every *step*-th folder of a local storage from *first* on, in a process of its own. Close it."""

    def __init__(self, root: str, first: int, step: int) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno()), root, str(first), str(step)]
            self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)

    def close(self) -> None:
        """Let the process come to the end of what it does, and end."""
        self._connection.close()
        self._process.wait()

    def begin(self, number: int, kept: bytes) -> None:
        self._ask((number, kept))

    def condemned(self) -> int:
        found = self._answer()
        assert isinstance(found, int)
        return found

    def remove(self, order: Order, lock: int | None) -> None:
        self._ask((order, lock is not None))
        if lock is not None:
            send_handle(self._connection, lock, self._process.pid)

    def removed(self) -> Removed:
        found = self._answer()
        assert isinstance(found, Removed)
        return found

    def _ask(self, what: object) -> None:
        try:
            self._connection.send(what)
        except OSError as error:
            raise StorageError(f"a helper of the collector has ended: {error}") from error

    def _answer(self) -> object:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise StorageError("a helper of the collector has ended") from error
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextmanager
def hands(storage: Storage, helpers: int | None = None) -> Iterator[Sequence[Hand]]:
    """Who sweeps *storage*: some *helpers*, or where it is not worth the while this process.

    Give the folders out in turn, so that each gets those that it has listed. Digests are spread evenly, so that one
    folder tells how much there is.
    """
    if helpers is None:
        many = len(storage.names("data/00")) * FOLDERS >= WORTHWHILE
        helpers = min(os.cpu_count() or 1, MAX_HELPERS) if many else 0
    with ExitStack() as stack:
        if not isinstance(storage, LocalStorage) or helpers < 2:
            yield [OwnHand(storage)]
            return
        made = []
        for number in range(helpers):
            made.append(Helper(storage.root, number, helpers))
            stack.callback(made[-1].close)
        yield made


def help_collector() -> None:
    """What a helper process does until nobody asks any more: ``DESCRIPTOR ROOT FIRST STEP`` on its command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the collector's business, which then lets go of us
    descriptor, root, first, step = sys.argv[1:]
    connection = Connection(int(descriptor))
    sweep = FolderSweep(LocalStorage(root, durable=False))
    sweep.list_ahead(range(int(first), FOLDERS, int(step)))
    while True:
        try:
            what, detail = connection.recv()
            lock = recv_handle(connection) if isinstance(what, Order) and detail else -1
        except (EOFError, ConnectionError):
            return
        answer: Any
        try:
            answer = sweep.remove(what) if isinstance(what, Order) else sweep.begin(what, detail)
        except Exception as error:
            answer = error
        finally:
            if lock >= 0:
                os.close(lock)
        try:
            connection.send(answer)
        except ConnectionError:
            return
