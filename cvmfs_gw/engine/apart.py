"""Work in a process of its own, so that what takes seconds keeps the interpreter from nobody.

::

    here                        the process
    function, arguments   ───▶  calls it, with less of the processors than whoever waits for a short answer
    logged as here        ◀───  what it logs
    returned or raised    ◀───  what it returns or raises

An interpreter runs one thread at a time, and a thread that asks it for something gets it only after a while each time:
what is done in many small steps takes several times as long beside one that computes. The process ends when this one
does, whatever it is at. What it has used of memory is free afterwards.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from typing import Final, NoReturn, TypeVar

T = TypeVar("T")

NICE: Final = 5
"""Behind short answers, before what only stores in bulk."""
_PROGRAM: Final = "from cvmfs_gw.engine.apart import main; main()"


class ProcessEnded(Exception):
    """The process was killed: nobody knows how far it came."""


@dataclass(frozen=True, slots=True)
class _Call:
    function: Callable[..., object]
    arguments: tuple[object, ...]
    level: int
    """What is less than that is not logged."""


@dataclass(frozen=True, slots=True)
class _Returned:
    result: object


@dataclass(frozen=True, slots=True)
class _Raised:
    error: Exception


def call_apart(function: Callable[..., T], *arguments: object) -> T:
    """What *function* returns or raises; it, its arguments and that must go through pickle.

    What is raised has the traceback there as a note. Raises :exc:`ProcessEnded`, and ``OSError`` where no process can
    be started.
    """
    ours, theirs = Pipe()
    with ours:
        with theirs:
            command = [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno())]
            process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
        try:
            ours.send(_Call(function, arguments, logging.getLogger().getEffectiveLevel()))
            while isinstance(answer := ours.recv(), logging.LogRecord):
                logging.getLogger(answer.name).handle(answer)
        except (EOFError, ConnectionError) as error:
            raise ProcessEnded(f"a process has ended with status {process.wait()}") from error
        finally:
            ours.close()  # nothing more is wanted of it, should it still be there
            process.wait()
    if isinstance(answer, _Raised):
        raise answer.error
    result: T = answer.result
    return result


class _Sender(QueueHandler):
    """Hands on what is logged, with its text made."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(SimpleQueue())
        self._connection = connection

    def enqueue(self, record: logging.LogRecord) -> None:
        self._connection.send(record)


def main() -> None:
    """The process: one descriptor on its command line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the other side's business, which may wish to see this through
    os.nice(NICE)
    connection: Connection = Connection(int(sys.argv[1]))
    wanted: _Call = connection.recv()
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    root = logging.getLogger()
    root.addHandler(_Sender(connection))
    root.setLevel(wanted.level)
    answer: _Returned | _Raised
    try:
        answer = _Returned(wanted.function(*wanted.arguments))
    except Exception as error:
        error.add_note(traceback.format_exc())
        answer = _Raised(error)
    connection.send(answer)


def _end_with(connection: Connection) -> NoReturn:
    with suppress(EOFError, OSError, pickle.UnpicklingError):
        connection.recv()
    os._exit(1)
