"""Gateways started for one run, each on a fresh repository: this product's, and the reference where it is installed.

Programs are run, nothing is imported. What is configured is the same for both::

    conf.example.org     key main (all), key second (all), key narrow (/narrow only)
    other.example.org    key foreign (all)
    key boss             administrator
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from conformance.outcomes import Failed
from conformance.session import install
from conformance.target import Target
from conformance.wire import Key

FQRN: Final = "conf.example.org"
OTHER: Final = "other.example.org"
NARROW: Final = "/narrow"
KEYS: Final = {
    name: Key(name, f"secret of {name}".replace(" ", "-").encode())
    for name in ("main", "second", "narrow", "foreign", "boss")
}
_START_S: Final = 60.0
ALONE: Final = ("unshare", "--mount", "--propagation", "private")
"""What to put before a command that is to have a mount namespace of its own."""
_SMALL: Final = 1 << 30


def access_file(sessions: Sequence[str] = ()) -> dict[str, Any]:
    """The gateway's ``repo.json``; *sessions* are repositories whose key is in their own key file."""
    grants = {
        FQRN: [("main", "/"), ("second", "/"), ("narrow", NARROW)],
        OTHER: [("foreign", "/")],
    }
    repos: list[Any] = [
        {"domain": name, "keys": [{"id": key, "path": path} for key, path in keys]} for name, keys in grants.items()
    ]
    keys = [
        {"type": "plain_text", "id": key.id, "secret": key.secret.decode(), "admin": key.id == "boss"}
        for key in KEYS.values()
    ]
    return {"version": 2, "repos": repos + list(sessions), "keys": keys}


def described(name: str, gateway: str, stratum0: str, root: Path, **more: Any) -> Target:
    """The target as the suite is told of it. *root* is where its files are."""
    return Target(
        gateway=gateway,
        stratum0=stratum0,
        fqrn=FQRN,
        key=KEYS["main"],
        name=name,
        admin_key=KEYS["boss"],
        other_key=KEYS["second"],
        restricted_key=KEYS["narrow"],
        restricted_path=NARROW,
        foreign_key=KEYS["foreign"],
        public_key=(root / f"etc/cvmfs/keys/{FQRN}.pub").read_bytes(),
        store=root / "srv/cvmfs" / FQRN,
        **more,
    )


def free_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Own:
    """This product's gateway: a process, and the folder that it works in."""

    root: Path
    port: int = field(default_factory=free_port)
    web_port: int = field(default_factory=free_port)
    notify_port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None
    _notify: subprocess.Popen[bytes] | None = None

    def prepare(self, sessions: Path | None) -> None:
        """Make the repositories."""
        for name in (FQRN, OTHER):
            self._run(
                "mkfs", name, "--garbage-collection", "--stratum0", f"http://127.0.0.1:{self.web_port}/cvmfs/{name}"
            )
        names = install(sessions, self.root) if sessions is not None else []
        config = self.root / "etc/cvmfs/gateway"
        config.mkdir(parents=True, exist_ok=True)
        (config / "repo.json").write_text(json.dumps(access_file(names)))

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = self._command("serve", "--host", "127.0.0.1", "--no-fsync", "--in-process")
        command += ["--port", str(self.port), "--web-port", str(self.web_port)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CVMFS_")}
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        (self.root / "pid").write_text(str(self._process.pid))
        _wait_for(self.port, self.web_port)

    def start_notify(self) -> None:
        """Start the stand-alone notification server behind it."""
        command = [sys.executable, "-m", "cvmfs_notify", "serve", "--config", str(self.root / "none"), "--in-process"]
        command += ["--host", "127.0.0.1", "--port", str(self.notify_port), "--state", str(self.root / "notify.db")]
        command += ["--relay", f"http://127.0.0.1:{self.port}/api/v1"]
        with (self.root / "log").open("ab") as log:
            self._notify = subprocess.Popen(command, stdout=log, stderr=log)
        _wait_for(self.notify_port)

    def said(self) -> str:
        """What they have logged."""
        log = self.root / "log"
        return log.read_text(errors="replace") if log.exists() else ""

    def stop(self) -> None:
        """End both, and whatever :func:`restart_own` has put in the gateway's place."""
        if self._notify is not None:
            self._notify.terminate()
            try:
                self._notify.wait(30)
            except subprocess.TimeoutExpired:
                self._notify.kill()
                self._notify.wait()
        if not (self.root / "pid").exists():
            return
        pid = int((self.root / "pid").read_text())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        if self._process is not None:
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        _wait_gone(pid)

    def target(self, sessions: Path | None = None) -> Target:
        again = [sys.executable, "-m", "conformance.servers", str(self.root), str(self.port), str(self.web_port)]
        return described(
            "cvmfs-gw",
            f"http://127.0.0.1:{self.port}",
            f"http://127.0.0.1:{self.web_port}/cvmfs",
            self.root,
            sessions=sessions,
            websocket=f"http://127.0.0.1:{self.notify_port}",
            restart_command=shlex.join(again),
        )

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "cvmfs_gw", "--root", str(self.root), *arguments]

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(self._command(*arguments), capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"cvmfs-gw {arguments[0]} failed: {done.stderr.strip()[-300:]}")


def memory() -> str | None:
    """Where repositories are put, so that no disk is measured; None for the usual place."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


@contextlib.contextmanager
def room(prefix: str, *, small: bool) -> Iterator[Path]:
    """A new folder in memory, if there is such a file system; *small*: one of its own, which cases may fill.

    Mounting takes a mount namespace that nobody else is in.
    """
    with tempfile.TemporaryDirectory(prefix=prefix, dir=memory()) as folder:
        if not small:
            yield Path(folder)
            return
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=755,size={_SMALL}", "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=False)


def may_be_alone() -> bool:
    """Whether this user may have a mount namespace."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*ALONE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    return not tried.returncode


@contextlib.contextmanager
def own(sessions: Path | None = None, *, small: bool = False) -> Iterator[Target]:
    """This product's gateway with its web server, running; see :func:`room`."""
    with room("conformance-", small=small) as folder:
        server = Own(folder)
        try:
            server.prepare(sessions)
            server.start()
            server.start_notify()
            yield server.target(sessions)
        except (Failed, OSError):
            print(server.said()[-3000:], file=sys.stderr)
            raise
        finally:
            server.stop()


def restart_own(root: Path, port: int, web_port: int) -> None:
    """Kill it, without a word of warning, and start it again."""
    pid = int((root / "pid").read_text())
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _wait_gone(pid)
    Own(root, port, web_port).start()


def _wait_gone(pid: int) -> None:
    """Until a process that may not be a child of this one has ended."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.01)
    raise Failed(f"the process {pid} does not end")


def _wait_for(*ports: int) -> None:
    deadline = time.monotonic() + _START_S
    for port in ports:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise Failed(f"nothing listens on port {port}") from None
                time.sleep(0.02)


if __name__ == "__main__":
    restart_own(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
