from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cvmfs_notify.supervisor import Supervisor
from tests.notify.real import wait_for

_PARENT = """
import os, sys
from cvmfs_notify.sockets import listen
from cvmfs_notify.supervisor import Supervisor
sockets = listen("127.0.0.1", 0)
print(sockets[0].getsockname()[1], flush=True)
sys.exit(Supervisor([sys.executable, "-m", "tests.notify.worker", *sys.argv[1:]], {"test": sockets}, os.environ).run())
"""


class Parent:
    """A supervisor in a process of its own."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PARENT, *arguments], stdout=subprocess.PIPE, env={**os.environ, **environment}
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def ask(self) -> str:
        """What the worker answers; waits in the backlog while there is none."""
        with self.connect() as connection:
            return connection.recv(100).decode()

    def kill(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[Parent]:
    parent = Parent(*arguments, **environment)
    try:
        yield parent
    finally:
        parent.close()


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_stop() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with running() as parent:
            worker = int(parent.ask())
            parent.kill(number)
            assert parent.process.wait(20) == 0
            assert gone(worker)
            with pytest.raises(ConnectionRefusedError):
                parent.connect()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_dies_is_replaced_and_nobody_is_refused(number: signal.Signals) -> None:
    with running() as parent:
        worker = int(parent.ask())
        for _ in range(3):
            os.kill(worker, number)
            with ExitStack() as waiting:
                connections = [waiting.enter_context(parent.connect()) for _ in range(50)]
                answers = {connection.recv(100).decode() for connection in connections[1:]}
            (answer,) = answers
            assert int(answer) != worker
            worker = int(answer)
        parent.kill(signal.SIGTERM)
        assert parent.process.wait(20) == 0


def test_replacement() -> None:
    with running() as parent:
        first = int(parent.ask())
        parent.kill(signal.SIGUSR2)
        wait_for("there is another worker", lambda: parent.ask() not in (str(first), ""))
        assert gone(first)


def test_hup_is_passed_on() -> None:
    with running() as parent:
        worker = parent.ask()
        parent.kill(signal.SIGHUP)
        wait_for("the worker has heard", lambda: parent.ask() == "again")
        assert not gone(int(worker))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
def test_signals_before_the_worker_is_ready(tmp_path: Path, number: signal.Signals) -> None:
    """It has no handlers yet: HUP is kept for later, and a worker that is starting is new enough."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with running(GATE=str(gate)) as parent:
        wait_for("the worker waits", (tmp_path / "gate.reached").exists)
        parent.kill(number)
        gate.write_text("go")
        if number == signal.SIGHUP:
            wait_for("the worker has heard", lambda: parent.ask() == "again")
        assert parent.ask()
        assert parent.process.poll() is None


def test_a_worker_that_cannot_start_ends_the_parent() -> None:
    with running("fail") as parent:
        assert parent.process.wait(20) == 7


def test_the_worker_does_not_outlive_its_parent() -> None:
    with running() as parent:
        worker = int(parent.ask())
        parent.kill(signal.SIGKILL)
        parent.process.wait()
        wait_for("the worker has ended", lambda: gone(worker))


def test_a_worker_that_crashes_again_and_again() -> None:
    with running(CRASH="1") as parent:
        for _ in range(4):
            with parent.connect() as connection, pytest.raises((ConnectionResetError, AssertionError)):
                assert connection.recv(100), "the worker died"
        parent.kill(signal.SIGTERM)
        assert parent.process.wait(20) == 0


def test_systemd_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        with running(NOTIFY_SOCKET=str(tmp_path / "notify")) as parent:
            assert manager.recv(100).decode() == f"READY=1\nMAINPID={parent.process.pid}"
            parent.kill(signal.SIGTERM)
            assert manager.recv(100).startswith(b"STOPPING=1")
            parent.process.wait(20)


def test_orphans_are_reaped() -> None:
    """As the first process of a container, the parent gets the children of those who died."""
    script = (
        "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1);"  # PR_SET_CHILD_SUBREAPER
        "pid = os.fork() or (os.fork() == 0 and os._exit(0)) or os._exit(0);" + _PARENT
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()

        def children() -> list[str]:
            return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()

        wait_for("only the worker is left", lambda: len(children()) == 1)
        process.terminate()
        assert process.wait(20) == 0


def test_signal_and_end_of_the_pipe_seen_in_one_look() -> None:
    """Whichever of the two comes first says that the worker is dead; the other then says nothing new."""
    supervisor = Supervisor([sys.executable, "-c", ""], {}, os.environ)
    reader, writer = socket.socketpair()
    with reader, writer, supervisor._selector:
        supervisor._selector.register(reader, selectors.EVENT_READ)
        writer.send(bytes([signal.SIGCHLD]))  # first, so that it is looked at first
        supervisor._start_at = 0.0
        supervisor._start_when_due()
        assert supervisor._worker is not None
        os.waitid(os.P_PID, supervisor._worker.pid, os.WEXITED | os.WNOWAIT)
        assert len(supervisor._selector.select(10)) == 2
        supervisor._wait(reader)
        assert supervisor._worker is None
        assert supervisor._control is None
