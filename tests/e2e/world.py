"""A gateway with its web server and repositories as their users see them, and publishers and clients around it.

The server is the console script, run by a user that may do nothing, in a mount namespace of its own. Publishers and
clients are the deployed CernVM-FS programs, each in a :class:`~conformance.machines.machine.Machine` of its own. All
talk over loopback, on ports that were free.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import cvmfs_gw
from conformance.machines.client import Client
from conformance.machines.machine import ENVIRONMENT, PROGRAMS, CommandFailed, Finished, Machine, run_command
from conformance.machines.publisher import Publisher
from conformance.machines.site import same
from conformance.machines.snapshot import Tree
from conformance.repository import Repository as Published
from conformance.servers import free_port
from conformance.target import Target
from conformance.wire import Key

NOBODY: Final = 65534
_DEADLINE_S: Final = 30.0
_WRONG_CLOCK: Final = """
import pathlib, time
right, ahead = time.time, pathlib.Path(__file__).parent / "ahead"
time.time = lambda: right() + float(ahead.read_text())
"""
"""What an interpreter runs first. The system's own clock cannot be another one for some processes."""


def wait_for(what: str, condition: Callable[[], bool], seconds: float = _DEADLINE_S) -> None:
    """Poll *condition* until it holds; fails, naming *what*, when that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.02)


def _closed_folders() -> dict[str, list[str]]:
    """Folders that the unprivileged user cannot pass, each with what it needs below."""
    closed: dict[str, list[str]] = {}
    for needed in {sys.prefix, sys.base_prefix, str(Path(cvmfs_gw.__file__).parents[1])}:
        for folder in reversed(Path(needed).parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                closed.setdefault(str(folder), []).append(needed)
                break
    return closed


def unprivileged(command: list[str]) -> list[str]:
    """*command*, to be run by a user without any rights, in a mount namespace of its own.

    It has neither FUSE nor the CernVM-FS programs there. That user must reach interpreter and sources: where they lie
    in somebody's closed home directory, it is covered, in that namespace, by an open one that holds nothing else.
    """
    script = ["mount -t tmpfs -o mode=755 tmpfs /mnt", "touch /mnt/closed; chmod 0 /mnt/closed"]
    script.append(f"for it in /dev/fuse $(type -ap {' '.join(PROGRAMS)}); do mount --bind /mnt/closed $it; done")
    closed = _closed_folders()
    for needed in closed.values():
        script += [f"mkdir -p '/mnt{path}'; mount --bind '{path}' '/mnt{path}'" for path in needed]
    for folder, needed in closed.items():
        script.append(f"mount -t tmpfs -o mode=755 tmpfs '{folder}'")
        script += [f"mkdir -p '{path}'; mount --bind '/mnt{path}' '{path}'" for path in needed]
    script.append('exec "$@"')
    rights = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--pdeathsig=TERM"]
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", *rights]
    space = ["unshare", "--mount", "--propagation", "private"]
    return [*space, "bash", "-euc", "\n".join(script), "server", *user, *command]


@dataclass(frozen=True)
class Repository:
    """A repository of the server, and what its publishers need to know."""

    fqrn: str
    web: str
    gateway: str
    folder: Path
    """The server's ``--root``."""

    @property
    def storage(self) -> Path:
        return self.folder / "srv/cvmfs" / self.fqrn

    def key(self, kind: str) -> bytes:
        return (self.folder / "etc/cvmfs/keys" / f"{self.fqrn}.{kind}").read_bytes()

    @property
    def target(self) -> Target:
        """The same as the conformance suite is told of it."""
        key = Key.read(str(self.folder / "etc/cvmfs/keys" / f"{self.fqrn}.gw"))
        gateway = self.gateway.removesuffix("/api/v1")
        return Target(gateway, self.web, self.fqrn, key, public_key=self.key("pub"), store=self.storage)

    @property
    def revision(self) -> int:
        """The published revision, as the web server tells it."""
        return Published(self.web, self.fqrn).manifest().revision


class World:
    """One server and everything around it; a context manager that leaves nothing behind."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="cvmfs-e2e-"))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.folder.chmod(0o755)
        self.root = self.folder / "root"
        self.root.mkdir()
        os.chown(self.root, NOBODY, NOBODY)
        self.port, self.web_port = free_port(), free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self._client: Client | None = None

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.log.exists():
            print(f"--- the server's log\n{self.log.read_text(errors='replace')[-20_000:]}")
        self._stack.close()

    # -- server

    @property
    def log(self) -> Path:
        """What the server said."""
        return self.folder / "server.log"

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"

    def program(self, *arguments: str, expect: int | None = 0, timeout: float = 120) -> Finished:
        """Run ``cvmfs-gw`` on the server."""
        name = f"cvmfs-gw {' '.join(arguments)}"
        return run_command(unprivileged([*self._program(), *arguments]), name=name, expect=expect, timeout=timeout)

    def _program(self) -> list[str]:
        return [str(Path(sys.executable).parent / "cvmfs-gw"), "--root", str(self.root)]

    def mkfs(self, fqrn: str, *options: str) -> Repository:
        """Make a repository on the server. Before :meth:`serve`."""
        web = f"http://127.0.0.1:{self.web_port}/cvmfs/{fqrn}"
        self.program("mkfs", "-w", web, "--ttl", "1", *options, fqrn)
        return Repository(fqrn, web, self.gateway, self.root)

    def serve(self, *options: str) -> None:
        """Start the server; returns when it answers. What :meth:`set_clock` said is its time."""
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--web-port", str(self.web_port)]
        clock = ["env", f"PYTHONPATH={self._clock}"] if self._clock.exists() else []
        self.run_gateway(unprivileged([*clock, *self._program(), "serve", *where, *options]))

    @property
    def _clock(self) -> Path:
        return self.folder / "clock"

    def set_clock(self, ahead_s: float) -> None:
        """Let the server's clock be wrong by *ahead_s* seconds from now on; at first before :meth:`serve`."""
        self._clock.mkdir(exist_ok=True)
        (self._clock / "sitecustomize.py").write_text(_WRONG_CLOCK)
        (self._clock / "ahead.new").write_text(str(ahead_s))
        (self._clock / "ahead.new").replace(self._clock / "ahead")

    def run_gateway(self, command: list[str]) -> None:
        """Start any gateway; returns when it answers."""
        with self.log.open("ab") as log:
            server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=ENVIRONMENT,
                cwd="/",
            )
        self._server = server
        self._stack.callback(self.stop)
        wait_for("the server answers", self._answers)

    def _answers(self) -> bool:
        assert self._server is not None
        if self._server.poll() is not None:
            raise CommandFailed(f"the server ended\n{self.log.read_text(errors='replace')}")
        try:
            with urllib.request.urlopen(f"{self.gateway}/repos", timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False  # also a timeout: the parent listens, and its worker is not ready yet

    def kill(self) -> None:
        """Kill the server, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop the server the way a service manager does."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        server.send_signal(number)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    # -- machines

    def machine(self, name: str, binds: Mapping[str, str] | None = None) -> Machine:
        """A machine that lives as long as this world."""
        return self._stack.enter_context(Machine(name, binds))

    def publisher(self, name: str, repository: Repository, *options: str, settings: str = "") -> Publisher:
        """A machine that publishes to *repository*. *options* are those of ``cvmfs_server mkfs``."""
        return Publisher(self.machine(name), repository.target, options, settings)

    @property
    def client(self) -> Client:
        """The machine in which repositories are mounted and checked."""
        if self._client is None:
            self._client = Client(self.machine("client", {"/mnt/server": str(self.root)}))
        return self._client

    def mounted(self, repository: Repository) -> Tree:
        """What a client sees that mounts *repository* with an empty cache."""
        return self.client.mounted(repository.target)

    # -- checks

    def verify(self, repository: Repository, expected: Tree, *, nanoseconds: bool = False) -> None:
        """The repository is whole, and a new client sees exactly *expected*."""
        self.check(repository)
        same(expected, self.mounted(repository), "a client sees", nanoseconds=nanoseconds)

    def check(self, repository: Repository) -> None:
        """``cvmfs_swissknife`` finds nothing wrong with catalogs, objects and reflog."""
        fqrn = repository.fqrn
        self.client.check(repository.target, (self.root / f"var/spool/cvmfs/{fqrn}/reflog.chksum").read_text())
        self.client.scrub(f"/mnt/server/srv/cvmfs/{fqrn}")

    def importer(self, name: str, repository: Repository) -> Machine:
        """A machine that took the repository's storage over with ``cvmfs_server import``, as the server's own would."""
        fqrn, storage = repository.fqrn, f"/srv/cvmfs/{repository.fqrn}"
        machine = self.machine(name, {storage: str(repository.storage)})
        for kind in ("masterkey", "key", "crt", "pub"):
            machine.write(f"/srv/keys/{fqrn}.{kind}", repository.key(kind), 0o600)
        owner = pwd.getpwuid(NOBODY).pw_name
        source = ("-w", repository.web, "-u", f"local,{storage}/data/txn,{storage}", "-k", "/srv/keys")
        machine.run("cvmfs_server", "import", "-o", owner, "-p", *source, fqrn)
        with machine.path(f"/etc/cvmfs/repositories.d/{fqrn}/server.conf").open("a") as file:
            file.write("CVMFS_GARBAGE_COLLECTION=true\n")
        return machine

    def adopt_reflog(self, machine: Machine, repository: Repository) -> None:
        """Take the checksum of the reflog from an importing machine that has changed it."""
        name = f"var/spool/cvmfs/{repository.fqrn}/reflog.chksum"
        (repository.folder / name).write_bytes(machine.path(f"/{name}").read_bytes())

    def nested_catalogs(self, repository: Repository) -> set[str]:
        """Where the nested catalogs are, as ``cvmfs_swissknife`` tells."""
        return self.client.nested_catalogs(repository.target)

    def objects(self, repository: Repository, suffix: str) -> int:
        """How many objects of that kind the storage holds."""
        return sum(1 for path in repository.storage.glob("data/??/*") if path.name.endswith(suffix))
