"""The supervisor: a parent process that holds the listening sockets and keeps a worker running that accepts from them.

::

    signal       effect
    TERM, INT    stop the worker, wait for it, exit with code 0
    HUP          passed on: the worker reloads its configuration; nobody is disconnected
    USR2         replace the worker: the old one finishes, the new one runs the program as now installed
    CHLD         reap; a worker that died is restarted, immediately at first, then with growing delays

It does nothing else, so there is little that could make it fail, and no reason to restart it. While no worker accepts,
connections wait in the backlog: none is refused. The old worker exits before the new one starts, as both would write
the same files.

The worker is the same program in a child process. The two share a socket pair, on which the worker reports that it is
ready, and by which each notices the other's end. If a worker exits before any worker was ever ready, the supervisor
exits with its exit code: probably the configuration is wrong.

As process 1 of a container, the supervisor also reaps orphans.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, MutableMapping, Sequence
from types import FrameType
from typing import Final

from cvmfs_notify.sockets import Sockets, close_all, hand_down

log = logging.getLogger(__name__)

CONTROL: Final = "CVMFS_SUPERVISOR"
"""The environment variable with the file descriptor of the worker's end of the socket pair."""
FIRST_DELAY_S: Final = 0.05
LAST_DELAY_S: Final = 5.0
"""Seconds before a worker is restarted: doubled each time, from the first to the last."""
HEALTHY_S: Final = 10.0
"""A worker that was ready for this many seconds is restarted at once."""
STOP_S: Final = 90.0
"""Seconds that a worker may take to stop before it is killed."""

_READY: Final = b"R"
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)


def this_program() -> list[str]:
    """The command that started this process, for starting another one like it."""
    return [sys.executable, *sys.orig_argv[1:]]


def is_worker(environment: Mapping[str, str]) -> bool:
    """Whether this process was started by a supervisor."""
    return CONTROL in environment


class Parent:
    """The worker's end of the connection to its supervisor."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        fd = int(environment.pop(CONTROL))
        os.set_inheritable(fd, False)
        self.socket = socket.socket(fileno=fd)
        """Becomes readable when the supervisor has exited."""
        self.socket.setblocking(False)

    def ready(self) -> None:
        """Report that this worker accepts connections."""
        with contextlib.suppress(OSError):
            self.socket.send(_READY)

    def close(self) -> None:
        self.socket.close()


class Supervisor:
    """Runs *command* as the worker with *sockets*, which it closes in the end. Takes over this process's signals."""

    def __init__(self, command: Sequence[str], sockets: Sockets, environment: Mapping[str, str]) -> None:
        self._command = list(command)
        self._sockets = sockets
        self._environment = dict(environment)
        self._notify_address = self._environment.pop("NOTIFY_SOCKET", "")
        self._selector = selectors.DefaultSelector()
        self._worker: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._ready_since: float | None = None
        self._ever_ready = False
        self._stopping = False
        self._reload_when_ready = False
        self._delay = 0.0
        self._start_at: float | None = None
        self._kill_at: float | None = None
        self._exit_code = 0

    def run(self) -> int:
        """Supervise until told to stop; returns the exit code."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        previous = {number: signal.signal(number, _note) for number in _SIGNALS}
        wakeup = signal.set_wakeup_fd(writer.fileno())
        try:
            self._selector.register(reader, selectors.EVENT_READ)
            self._reap()  # children that died before the handler was installed
            self._start_at = time.monotonic()
            while self._worker is not None or self._start_at is not None:
                self._start_when_due()
                self._wait(reader)
            return self._exit_code
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._drop_control()
            self._selector.close()
            reader.close()
            writer.close()
            close_all(self._sockets)

    # --- the loop ------------------------------------------------------------------------------------------------

    def _wait(self, signals: socket.socket) -> None:
        due = [at for at in (self._start_at, self._kill_at) if at is not None]
        timeout = max(0.0, min(due) - time.monotonic()) if due else None
        for key, _ in self._selector.select(timeout):
            if key.fileobj is signals:
                for number in signals.recv(64):
                    self._signalled(number)
            elif key.fileobj is self._control:  # it may have been closed just now, as the worker has exited
                self._worker_speaks()
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._kill_at = None
            log.error("the worker does not stop and is killed")
            self._send(signal.SIGKILL)

    def _signalled(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stopping = True
            self._start_at = None
            self._tell_manager("STOPPING=1")
            self._stop_worker()
        elif number == signal.SIGUSR2:
            if self._ready_since is not None:  # a worker that is just starting is new enough
                log.info("replacing the worker")
                self._delay = 0.0
                self._stop_worker()
        elif number == signal.SIGHUP:
            if self._ready_since is not None:
                self._send(signal.SIGHUP)
            else:
                self._reload_when_ready = True  # it may have read its files already but has no handler yet
        elif number == signal.SIGCHLD:
            self._reap()

    def _stop_worker(self) -> None:
        if self._worker is not None:
            self._kill_at = time.monotonic() + STOP_S
            self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        # only this thread reaps the worker, so its process id cannot have been reused
        if self._worker is not None:
            os.kill(self._worker.pid, number)

    # --- the worker ----------------------------------------------------------------------------------------------

    def _start_when_due(self) -> None:
        if self._start_at is None or time.monotonic() < self._start_at:
            return
        self._start_at = None
        ours, theirs = socket.socketpair()
        with theirs:
            variables, fds = hand_down(self._sockets)
            environment = self._environment | variables | {CONTROL: str(theirs.fileno())}
            try:
                self._worker = subprocess.Popen(self._command, env=environment, pass_fds=(*fds, theirs.fileno()))
            except OSError as error:
                ours.close()
                log.error("cannot start a worker: %s", error)
                if self._ever_ready:
                    self._again()
                else:
                    self._exit_code = 1
                return
        ours.setblocking(False)
        self._control = ours
        self._selector.register(ours, selectors.EVENT_READ)

    def _worker_speaks(self) -> None:
        assert self._control is not None
        try:
            said = self._control.recv(64)
        except (BlockingIOError, ConnectionResetError):
            said = b""
        if not said:
            self._drop_control()  # SIGCHLD reports its exit
        elif self._ready_since is None:
            self._ready_since = time.monotonic()
            self._ever_ready = True
            if self._reload_when_ready:
                self._reload_when_ready = False
                self._send(signal.SIGHUP)
            self._tell_manager("READY=1")

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._worker is not None and pid == self._worker.pid:
                self._worker.returncode = os.waitstatus_to_exitcode(status)
                self._worker_ended(self._worker.returncode)

    def _worker_ended(self, code: int) -> None:
        # it may have become ready and exited before its message was read
        if self._control is not None and self._ready_since is None:
            self._worker_speaks()
        ready_s = time.monotonic() - self._ready_since if self._ready_since is not None else 0.0
        replaced = self._kill_at is not None
        self._worker = None
        self._ready_since = None
        self._kill_at = None
        self._drop_control()
        if self._stopping:
            return
        if not self._ever_ready:
            self._exit_code = code if code > 0 else 1
            return
        if replaced and code == 0:
            self._start_at = time.monotonic()
            return
        log.error("the worker exited with %s and is restarted", code)
        if ready_s >= HEALTHY_S:
            self._delay = 0.0
        self._again()

    def _again(self) -> None:
        self._start_at = time.monotonic() + self._delay
        self._delay = min(max(self._delay * 2, FIRST_DELAY_S), LAST_DELAY_S)

    def _drop_control(self) -> None:
        if self._control is not None:
            self._selector.unregister(self._control)
            self._control.close()
            self._control = None

    # --- systemd -------------------------------------------------------------------------------------------------

    def _tell_manager(self, state: str) -> None:
        """Source: sd_notify(3)."""
        if not self._notify_address:
            return
        address = self._notify_address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, contextlib.suppress(OSError):
            manager.sendto(f"{state}\nMAINPID={os.getpid()}".encode(), address)


def _note(number: int, frame: FrameType | None) -> None:
    """A handler that does nothing: signals are read from the wake-up socket."""
