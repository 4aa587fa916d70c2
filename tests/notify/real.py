"""A gateway in processes of its own, and the deployed subscribers around it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from cvmfs_gw.client.keys import read_key_file
from cvmfs_gw.client.publish import publish
from cvmfs_gw.client.request import Destination, PublishRequest, Step
from cvmfs_gw.engine.configure import RepositoryOptions
from cvmfs_gw.engine.create import create_repository
from cvmfs_gw.ingest.directory import DirectorySource
from cvmfs_gw.paths import SystemPaths
from cvmfs_notify.messages import Activity
from cvmfs_objstore.formats.keychain import RepositoryKey
from cvmfs_objstore.formats.manifest import SignedManifest

FQRN: Final = "real.example.org"
DEADLINE_S: Final = 30.0


def need(*programs: str) -> None:
    """Skip the test unless it may become root's namespaces and all *programs* are on PATH."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("needs root, for a mount namespace")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("cannot make a mount namespace")


def wait_for(what: str, condition: Callable[[], bool], seconds: float = DEADLINE_S) -> float:
    """Poll *condition*; returns how many seconds it took, fails when that is too long."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise AssertionError(f"waited {seconds} s in vain: {what}")
        time.sleep(0.01)
    return time.monotonic() - started


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Supervised:
    """A server: a parent and a worker."""

    url: str
    _process: subprocess.Popen[bytes] | None = None

    @property
    def parent(self) -> int:
        assert self._process is not None
        assert self._process.poll() is None, "the parent has ended"
        return self._process.pid

    @property
    def worker(self) -> int:
        """The worker's process id; 0 while there is none."""
        children = Path(f"/proc/{self.parent}/task/{self.parent}/children").read_text().split()
        return int(children[0]) if children else 0

    def is_up(self) -> bool:
        try:
            with urllib.request.urlopen(self.url, timeout=10) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)


class RealGateway(Supervised):
    """``cvmfs-gw serve`` with one repository below *folder*."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = SystemPaths(str(folder / "root"))
        self.port, self.web_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}/api/v1"
        self.stratum0 = f"http://127.0.0.1:{self.web_port}/cvmfs/{FQRN}"
        self.log = folder / "gateway.log"
        self.revision = 1
        create_repository(FQRN, self.paths, {}, RepositoryOptions(stratum0=self.stratum0), time.time())
        client_conf = folder / "root/etc/cvmfs/repositories.d" / FQRN / "client.conf"
        client_conf.write_text(f"CVMFS_SERVER_URL={self.stratum0}\n")

    def start(self) -> None:
        command = [sys.executable, "-m", "cvmfs_gw", "--root", self.paths.root, "serve", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--web-port", str(self.web_port), "--no-fsync"]
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for("the gateway listens", self.is_up)

    def restart_worker(self, *, kill: bool) -> None:
        """Replace the worker: asked to stop or killed outright."""
        old = self.worker
        if kill:
            os.kill(old, signal.SIGKILL)
        else:
            os.kill(self.parent, signal.SIGUSR2)
        wait_for("there is a new worker", lambda: self.worker not in (0, old))

    def publish(self) -> int:
        """Commit a change; returns the revision."""
        content = self.folder / "content"
        content.mkdir(exist_ok=True)
        (content / "counter").write_text(str(self.revision + 1))
        key = read_key_file(self.paths.key_file(FQRN, "gw"))
        public = Path(self.paths.key_file(FQRN, "pub")).read_bytes()
        destination = Destination(FQRN, self.url, self.stratum0, key, public)
        report = publish(PublishRequest(destination, (Step("/dir", DirectorySource(str(content))),)))
        self.revision = report.revision
        return report.revision

    def write_manifest(self, revision: int) -> bytes:
        """Replace the published manifest by one of that revision, as others on the same machine would."""
        path = Path(self.paths.repository_storage(FQRN), ".cvmfspublished")
        manifest = dataclasses.replace(SignedManifest.parse(path.read_bytes()).manifest, revision=revision)
        data = manifest.signed(RepositoryKey.load(self.paths.key_file(FQRN, "key")))
        path.with_suffix(".new").write_bytes(data)
        path.with_suffix(".new").rename(path)
        return data

    def send(self, manifest: bytes) -> None:
        """Publish an activity message."""
        body = Activity(FQRN, manifest, "now").serialize()
        with urllib.request.urlopen(f"{self.url}/notifications/publish", body, timeout=10) as reply:
            assert json.load(reply) == {"status": "ok"}

    def in_namespace(self, *command: str) -> list[str]:
        """*command* with this gateway's ``/etc/cvmfs``."""
        script = 'mount --bind "$0" /etc/cvmfs && exec "$@"'
        etc = str(self.folder / "root/etc/cvmfs")
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, etc, *command]


class Subscriber:
    """A running ``cvmfs_swissknife notify -s``."""

    def __init__(self, gateway: RealGateway, log: Path, *options: str, url: str = "") -> None:
        self._log = log
        command = ["cvmfs_swissknife", "notify", "-s", "-u", url or gateway.url, "-t", FQRN, *options]
        with open(log, "wb") as output:
            self.process = subprocess.Popen(gateway.in_namespace(*command), stdout=output, stderr=output)

    def revisions(self) -> list[int]:
        words = [line.split() for line in self.text().splitlines() if "is now at revision" in line]
        return [int(line[-1].rstrip(".")) for line in words]

    def text(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Mount:
    """A client mounted with ``CVMFS_NOTIFICATION_SERVER``."""

    def __init__(self, gateway: RealGateway, folder: Path) -> None:
        self.point = folder / "mnt"
        self.log = folder / "client.log"
        self._folder = folder

        (folder / "cache").mkdir(parents=True)
        self.point.mkdir()
        settings = {
            "CVMFS_SERVER_URL": gateway.stratum0,
            "CVMFS_PUBLIC_KEY": gateway.paths.key_file(FQRN, "pub"),
            "CVMFS_HTTP_PROXY": "DIRECT",
            "CVMFS_CACHE_BASE": str(folder / "cache"),
            "CVMFS_SHARED_CACHE": "no",
            "CVMFS_RELOAD_SOCKETS": str(folder / "cache"),
            "CVMFS_USYSLOG": str(self.log),
            "CVMFS_CLAIM_OWNERSHIP": "no",
            "CVMFS_NFILES": "20000",
            "CVMFS_KCACHE_TIMEOUT": "1",
            "CVMFS_NOTIFICATION_SERVER": gateway.url,
        }
        config = folder / "client.conf"
        config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        command = ["cvmfs2", "-o", f"config={config},allow_other,fsname=cvmfs2", FQRN, str(self.point)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount: {done.stdout}{done.stderr}")

    def content(self) -> int:
        """What the mounted repository's counter says."""
        try:
            return int((self.point / "dir/counter").read_text())
        except FileNotFoundError:
            return 1

    def heard(self) -> list[int]:
        lines = self.log.read_text(errors="replace").splitlines()
        return [int(line.split("revision ")[1].split(",")[0]) for line in lines if "is now at revision" in line]

    def close(self) -> None:
        subprocess.run(["umount", str(self.point)], capture_output=True)
        subprocess.run(["umount", "-l", str(self.point)], capture_output=True)


@contextmanager
def running_gateway(folder: Path) -> Iterator[tuple[RealGateway, ExitStack]]:
    """A gateway that runs, and a stack for what shall be stopped before it."""
    gateway = RealGateway(folder)
    with ExitStack() as stack:
        stack.callback(gateway.stop)
        gateway.start()
        yield gateway, stack


class Relay(Supervised):
    """``cvmfs-notify serve`` behind a gateway."""

    def __init__(self, gateway: RealGateway, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/api/v1"
        command = [
            sys.executable,
            "-m",
            "cvmfs_notify",
            "serve",
            "--config",
            str(folder / "none"),
            "--host",
            "127.0.0.1",
        ]
        command += ["--port", str(port), "--state", str(folder / "relay.db"), "--relay", gateway.url]
        with open(folder / "relay.log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)


@contextmanager
def relay_of(gateway: RealGateway, folder: Path) -> Iterator[Relay]:
    relay = Relay(gateway, folder)
    try:
        wait_for("the relay listens", relay.is_up)
        yield relay
    finally:
        relay.stop()
