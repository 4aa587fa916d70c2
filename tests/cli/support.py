"""The installed programs, run as a user runs them: in processes of their own, on loopback, below a folder of ours."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

DEADLINE: Final = 60.0
"""How long anything may take, in seconds."""


def program(name: str) -> str:
    """The path of a console entry point of this installation."""
    path = os.path.join(os.path.dirname(sys.executable), name)
    assert os.path.exists(path), f"{name} is not installed beside {sys.executable}"
    return path


def environment(root: Path | str | None = None, **extra: str) -> dict[str, str]:
    """This process's environment without what would reach the programs from outside; warnings are errors."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("CVMFS_", "TEST_CVMFS_", "LISTEN_"))}
    kept["PYTHONWARNINGS"] = "error"
    if root is not None:
        kept["CVMFS_GW_ROOT"] = str(root)
    return kept | extra


def run(name: str, *arguments: str | Path, root: Path | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [program(name), *map(str, arguments)],
        env=environment(root, **extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on just now."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(number):
            found = stack.enter_context(socket.socket())
            found.bind(("127.0.0.1", 0))
            ports.append(int(found.getsockname()[1]))
    return ports


class Process:
    """A program that keeps running. Its output is read as it comes."""

    def __init__(self, name: str, *arguments: str | Path, root: Path | None = None, **extra: str) -> None:
        self._process = subprocess.Popen(
            [program(name), *map(str, arguments)],
            env=environment(root, PYTHONUNBUFFERED="1", **extra),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._coming: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._coming.put(line)
        self._coming.put(None)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for(self, text: str) -> str:
        """The next line of its output that holds *text*."""
        end = time.monotonic() + DEADLINE
        while True:
            try:
                line = self._coming.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {text!r} in time, but: {''.join(self.lines)}") from None
            if line is None:
                raise AssertionError(f"ended without {text!r}, but with: {''.join(self.lines)}")
            self.lines.append(line)
            if text in line:
                return line

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; returns its exit code."""
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; returns its exit code."""
        code = self._process.wait(DEADLINE)
        self._finish()
        return code

    def _finish(self) -> None:
        self._reader.join(DEADLINE)
        while not self._coming.empty():
            self.lines.append(self._coming.get() or "")
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def kill(self) -> None:
        """End it for good, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(DEADLINE)
        self._finish()


@contextmanager
def running(name: str, *arguments: str | Path, root: Path | None = None, **extra: str) -> Iterator[Process]:
    """A program that is gone at the end, whatever happens."""
    process = Process(name, *arguments, root=root, **extra)
    try:
        yield process
    finally:
        process.kill()


def until(question: Callable[[], bool]) -> None:
    """Ask again and again until the answer is yes."""
    end = time.monotonic() + DEADLINE
    while not question():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def answers(port: int) -> bool:
    """Whether somebody listens on *port* of loopback."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0
