"""Gateways to measure, each on a fresh repository in memory: ours, and the reference's where it is installed.

The reference listens on every interface, reads ``/etc/cvmfs`` and writes ``/var/spool/cvmfs``, so it gets a network and
a mount namespace of its own, which needs root. Its clients are run in there, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

FQRN: Final = "bench.example.org"
MEMORY: Final = "/dev/shm"
REFERENCE_PROGRAMS: Final = ("cvmfs_gateway", "cvmfs_receiver", "unshare", "nsenter", "ip")
_START_S: Final = 30.0
_REFERENCE_PORT: Final = 4929

# the daemon of the reference, on the files in $1
_ENTER: Final = """
ip link set lo up
mkdir -p /var/spool/cvmfs /etc/cvmfs
mount --bind "$1/etc/cvmfs" /etc/cvmfs
mount --bind "$1/var/spool/cvmfs" /var/spool/cvmfs
shift
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A gateway that runs: its port, its process, and what to put before a command that shall reach it."""

    name: str
    port: int
    pid: int
    root: Path
    enter: tuple[str, ...] = ()
    web: int = 0
    """The port of the web server, 0 if there is none."""

    @property
    def key(self) -> tuple[str, str]:
        """Key id and secret."""
        words = (self.root / f"etc/cvmfs/keys/{FQRN}.gw").read_text().split()
        return words[1], words[2]

    def client(self, job: str, path: str, **settings: Any) -> Client:
        """A client process that is ready to begin. *path* is what it leases, below the repository."""
        settings |= {"job": job, "port": self.port, "key": self.key, "path": f"{FQRN}/{path}"}
        return Client([*self.enter, sys.executable, str(Path(__file__).parent / "client.py"), json.dumps(settings)])

    def memory_mib(self) -> float:
        """The largest resident sets that the process and its present children ever had, in MiB; shared parts count
        for each."""
        total = 0
        for pid in [self.pid, *_children(self.pid)]:
            status = Path(f"/proc/{pid}/status").read_text()
            line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
            total += int(line.split()[1])
        return total / 1024


class Client:
    """A client process: made, told to begin, told to end, asked for its result."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = _pipe(self._process.stdout).readline()
        if line != "ready\n":
            raise RuntimeError(f"a client could not begin: {line}")

    def go(self) -> Client:
        pipe = _pipe(self._process.stdin)
        pipe.write("go\n")
        pipe.flush()
        return self

    def result(self) -> dict[str, Any]:
        """What it has measured; tells those that go on for ever to end."""
        out, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError("a client failed")
        found = json.loads(out)
        assert isinstance(found, dict)
        return found


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def reference_missing() -> str:
    """Why the reference is not measured; ``""`` if it is."""
    if absent := [program for program in REFERENCE_PROGRAMS if shutil.which(program) is None]:
        return f"not on PATH: {', '.join(absent)}"
    return "" if os.geteuid() == 0 else "needs root for a network namespace"


@contextlib.contextmanager
def folder(*, memory: bool, repositories: Sequence[str] = (FQRN,)) -> Iterator[Path]:
    """A folder with fresh repositories in it; in memory, if it shall be and there is such a file system."""
    base = MEMORY if memory and os.path.isdir(MEMORY) else None
    with tempfile.TemporaryDirectory(prefix="cvmfs-bench-", dir=base) as name:
        for fqrn in repositories:
            make = [sys.executable, "-m", "cvmfs_gw", "--root", name, "mkfs", fqrn]
            subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
        yield Path(name)


@contextlib.contextmanager
def ours(
    *options: str, memory: bool = True, web: bool = False, repositories: Sequence[str] = (FQRN,)
) -> Iterator[Server]:
    """This gateway, in one process, and as silent as the reference."""
    with folder(memory=memory, repositories=repositories) as root:
        (root / "etc/cvmfs/gateway/user.json").write_text('{"log_level": "error"}')
        port, web_port = _free_port(), _free_port() if web else 0
        command = [sys.executable, "-m", "cvmfs_gw", "--root", str(root), "serve", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--in-process", *options]
        command += ["--web-port", str(web_port)] if web else ["--no-web"]
        with _running(command, root) as process:
            wait_for_port(process, port, ())
            yield Server("ours", port, process.pid, root, web=web_port)


@contextlib.contextmanager
def reference(*, memory: bool = True, own_network: bool = True) -> Iterator[Server]:
    """The reference's gateway. Without a network of its own it has this process's, which must not be the host's."""
    with folder(memory=memory) as root:
        work = root / "var/lib/cvmfs-gateway"
        work.mkdir(parents=True, exist_ok=True)
        daemon = ["cvmfs_gateway", "--work_dir", str(work), "--log_level", "error", "--port", str(_REFERENCE_PORT)]
        space = ["unshare", *(["--net"] if own_network else []), "--mount", "--pid", "--fork", "--kill-child"]
        with _running([*space, "sh", "-euc", _ENTER, "sh", str(root), *daemon], root) as process:
            inner = _child(process)
            enter = ("nsenter", f"--net=/proc/{inner}/ns/net", f"--mount=/proc/{inner}/ns/mnt", "--")
            wait_for_port(process, _REFERENCE_PORT, enter)
            try:
                yield Server("reference", _REFERENCE_PORT, inner, root, enter)
            finally:
                os.kill(inner, signal.SIGKILL)  # unshare passes nothing on


@contextlib.contextmanager
def _running(command: list[str], root: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (root / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd="/") as process:
        try:
            yield process
        except BaseException:
            print((root / "log").read_text(errors="replace")[-5000:], file=sys.stderr)
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def _child(process: subprocess.Popen[bytes]) -> int:
    """The process in the namespace."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if children := _children(process.pid):
            return children[0]
        time.sleep(0.01)
    raise RuntimeError("the reference did not start")


def wait_for_port(process: subprocess.Popen[bytes], port: int, enter: tuple[str, ...]) -> None:
    script = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        tried = subprocess.run([*enter, sys.executable, "-c", script], stderr=subprocess.DEVNULL, check=False)
        if tried.returncode == 0:
            return
        time.sleep(0.05)
    raise RuntimeError(f"no server on port {port}")
