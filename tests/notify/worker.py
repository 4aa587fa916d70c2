"""A worker for the tests of the supervisor: answers each connection with its process id. See ``main``."""

from __future__ import annotations

import os
import select
import signal
import sys
import types

from cvmfs_notify.sockets import inherited
from cvmfs_notify.supervisor import Parent


def main() -> int:
    """Argument: ``fail`` ends at once with exit code 7. HUP makes it answer ``again``.

    With ``GATE``, a FIFO, it does nothing until somebody has written there; a file ``.reached`` says that it waits.
    """
    if sys.argv[1:] == ["fail"]:
        return 7
    if gate := os.environ.get("GATE"):
        with open(f"{gate}.reached", "w", encoding="ascii"), open(gate, encoding="ascii") as fifo:
            fifo.read()  # until the test opens it, too
    answer = [str(os.getpid())]

    def stop(number: int, frame: types.FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, lambda number, frame: answer.append("again"))
    parent = Parent(os.environ)
    (listener,) = inherited(os.environ)["test"]
    parent.ready()
    while True:
        readable, _, _ = select.select([parent.socket, listener], [], [])
        if parent.socket in readable:
            return 0
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue
        with connection:
            if os.environ.get("CRASH"):
                os.kill(os.getpid(), signal.SIGKILL)
            connection.sendall(answer[-1].encode())


if __name__ == "__main__":
    sys.exit(main())
