"""Sweeping: removing what is in a folder of the storage and not kept, in this process or in several at once.

Nearly all of the time is spent in unlink(2). Threads of one interpreter do not run it in parallel, processes do::

    collector                        helpers, one for each processor
    mark                       ───▶  list ahead
    some folders, what is kept ───▶  compare                            nobody waits
    the lock                   ───▶  remove, for some 50 ms             commits wait
                               ◀───  how much was removed, whether some is left

Each helper has its own folders, and gets more when it is done with them, so that nobody waits for the slowest.

A helper gets a copy of the lock's descriptor: if the collector is killed, the lock is held until its helpers have
released it, too. They exit when their input ends.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, Final, Protocol

from cvmfs_gw.care.digests import FOLDERS, file_names
from cvmfs_gw.engine.errors import StorageError
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.storage import Storage

AT_ONCE: Final = 64
"""Objects that are removed between two looks at the clock."""
WORTHWHILE: Final = 100_000
"""The number of objects from which helpers pay off: starting them takes a tenth of a second."""
MAX_HELPERS: Final = 4
"""More do not help: they wait for the file system."""
HELD: Final = 600_000
"""Names that a helper holds at a time, of some 90 bytes each: listed ahead, or of the folders that it has got."""
_PLAIN: Final = 38
"""Length of the names of most objects: without a suffix, and hashed with SHA-1."""
_DIGITS: Final = b"0123456789abcdef"
_OBJECT: Final = re.compile(r"[0-9a-f]{38}(?:-rmd160|-shake128)?[CHXMPL]?")
_PROGRAM: Final = "from cvmfs_gw.care.sweep import help_collector; help_collector()"

Kept = Mapping[int, bytes]
"""The names that stay, for each folder of ``data/`` packed as :meth:`DigestSet.packed` does it."""


@dataclass(frozen=True, slots=True)
class Order:
    """Remove what was last written *before* a time (seconds since the epoch), for up to *seconds*.

    With *pretend*, nothing is removed; without *sizes*, sizes are not determined; with *listed*, the answer has names.
    What is in *kept* is kept, too.
    """

    before: float
    seconds: float
    pretend: bool = False
    sizes: bool = False
    listed: bool = False
    kept: Kept = field(default_factory=dict)


@dataclass(slots=True)
class Removed:
    """The result of an order: objects and their bytes, names of catalogs, and of all objects if requested."""

    objects: int = 0
    size: int = 0
    left: bool = False
    """Whether there are objects that have not been looked at yet."""
    catalogs: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)

    def count(self, folder: int, names: Sequence[str], sizes: Sequence[int | None], *, listed: bool) -> None:
        """Add what :meth:`Storage.collect` has done in a folder."""
        kept = sizes.count(None)
        self.objects += len(sizes) - kept
        self.size += sum(filter(None, sizes))
        if listed or kept:
            names = [name for name, size in zip(names, sizes, strict=True) if size is not None]
        if listed:
            self.listed += [f"{folder:02x}{name}" for name in names]
        self.catalogs += [f"{folder:02x}{name}" for name in names if name[-1] == "C"]


class FolderSweep:
    """Sweeps folders of ``data/`` one after the other. Names in a folder are without its two digits."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._condemned: list[tuple[int, list[str]]] = []
        self._ahead: dict[int, Sequence[str]] = {}

    def list_ahead(self, numbers: Iterable[int]) -> None:
        """List the first of these folders in advance."""
        held = 0
        with suppress(OSError):  # which will be told when it is that folder's turn
            for number in numbers:
                if held >= HELD:
                    break
                self._ahead[number] = self._storage.names(f"data/{number:02x}")
                held += len(self._ahead[number])

    def begin(self, kept: Kept) -> bool:
        """Determine what to remove from the folders in *kept*; returns whether there is anything."""
        found = ((number, self._compare(number, packed)) for number, packed in kept.items())
        self._condemned = [(number, names) for number, names in found if names]
        return bool(self._condemned)

    def _compare(self, number: int, kept: bytes) -> list[str]:
        ahead = self._ahead.pop(number, None)
        # what came or went since it was listed does no harm: what is new is young, and what is not there cannot go
        names = self._storage.names(f"data/{number:02x}") if ahead is None else ahead
        return _objects(set(names) - file_names(kept))

    def remove(self, order: Order) -> Removed:
        """Execute an order; call it again while something is left."""
        until, removed = time.monotonic() + order.seconds, Removed()
        for number, names in self._condemned:
            if number in order.kept:
                kept = file_names(order.kept[number])
                names[:] = [name for name in names if name not in kept]
        while self._condemned:
            number, names = self._condemned[-1]
            taken: list[str] = []
            sizes = self._storage.collect(
                f"data/{number:02x}",
                _until(until, names, taken),
                order.before,
                pretend=order.pretend,
                sizes=order.sizes,
            )
            removed.count(number, taken, sizes, listed=order.listed)
            if not names:
                self._condemned.pop()
            if time.monotonic() >= until:
                break
        removed.left = bool(self._condemned)
        return removed


def _objects(names: Iterable[str]) -> list[str]:
    """Those of the names in a folder that objects have; the others are none of ours."""
    plain: list[str] = []
    others: list[str] = []
    for name in names:
        (plain if len(name) == _PLAIN else others).append(name)
    if "".join(plain).encode(errors="surrogateescape").translate(None, _DIGITS):
        others += plain
        plain = []
    return plain + [name for name in others if _OBJECT.fullmatch(name)]


def _until(moment: float, names: list[str], taken: list[str]) -> Iterator[str]:
    """Take names off the end until a moment of the monotonic clock; at least some."""
    while names:
        some = names[-AT_ONCE:]
        del names[-AT_ONCE:]
        taken += some
        yield from some
        if time.monotonic() >= moment:
            return


class Folders:
    """Assigns the folders of ``data/`` to *hands* sweepers, which list theirs in advance: see :class:`Helper`."""

    def __init__(self, hands: int, names: int) -> None:
        """*names* is the approximate number of names in one folder."""
        self._step = hands
        self._left = list(range(FOLDERS))
        self._at_once = max(1, HELD // max(names, 1))

    def take(self, hand: int) -> list[int]:
        """Unassigned folders, first those that this sweeper has listed; empty if there are no more."""
        own = [number for number in self._left if number % self._step == hand]
        taken = (own or self._left)[: self._at_once]
        self._left = [number for number in self._left if number not in taken]
        return taken


class Hand(Protocol):
    """The interface of a sweeper: send orders to several, then get the answer of each."""

    def begin(self, kept: Kept) -> None:
        """See :meth:`FolderSweep.begin`."""

    def ready(self) -> bool:
        """Whether an answer is available without waiting."""

    def condemned(self) -> bool:
        """The result of :meth:`begin`; raises what that raised, and :exc:`StorageError`."""

    def remove(self, order: Order, lock: int | None) -> None:
        """See :meth:`FolderSweep.remove`. *lock* is the descriptor of the repository's lock."""

    def removed(self) -> Removed:
        """The result of :meth:`remove`; raises what that raised, and :exc:`StorageError`."""


class OwnHand:
    """Sweeps in this process, at once."""

    def __init__(self, storage: Storage) -> None:
        self._sweep = FolderSweep(storage)
        self._found, self._removed = False, Removed()

    def begin(self, kept: Kept) -> None:
        self._found = self._sweep.begin(kept)

    def ready(self) -> bool:
        return True

    def condemned(self) -> bool:
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
        """Let the process finish what it is doing and exit."""
        self._connection.close()
        self._process.wait()

    def begin(self, kept: Kept) -> None:
        self._ask((kept, False))

    def ready(self) -> bool:
        return self._connection.poll()

    def condemned(self) -> bool:
        found = self._answer()
        assert isinstance(found, bool)
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
def hands(storage: Storage, helpers: int | None = None) -> Iterator[tuple[Sequence[Hand], Folders]]:
    """The sweepers of *storage*: helper processes, or this process if those do not pay off; and their folders."""
    # digests are spread evenly, so that one folder tells how much there is
    names = len(storage.names("data/00"))
    if helpers is None:
        helpers = min(os.cpu_count() or 1, MAX_HELPERS) if names * FOLDERS >= WORTHWHILE else 0
    with ExitStack() as stack:
        if not isinstance(storage, LocalStorage) or helpers < 2:
            yield [OwnHand(storage)], Folders(1, names)
            return
        made = []
        for number in range(helpers):
            made.append(Helper(storage.root, number, helpers))
            stack.callback(made[-1].close)
        yield made, Folders(helpers, names)


def help_collector() -> None:
    """The main loop of a helper process, whose arguments are ``DESCRIPTOR ROOT FIRST STEP``."""
    try:
        _help()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)  # the collector waits for that, and not until each name has been freed


def _help() -> None:
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
            answer = sweep.remove(what) if isinstance(what, Order) else sweep.begin(what)
        except Exception as error:
            answer = error
        finally:
            if lock >= 0:
                os.close(lock)
        try:
            connection.send(answer)
        except ConnectionError:
            return
