"""``packaging/run_cvmfs_gateway.sh`` without systemd, with the real daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from cvmfs_gw.cli import main as make
from cvmfs_gw.gateway.authorization import Key, sign
from tests.cli.support import answers, free_ports, until

FQRN = "control.example.org"
SCRIPT: Final = Path(__file__).parents[2] / "packaging/run_cvmfs_gateway.sh"
PROGRAM: Final = Path(sys.executable).parent / "cvmfs_gateway"


class Control:
    """The script, for a daemon with a root folder of its own."""

    def __init__(self, root: Path) -> None:
        assert make(["--root", str(root), "mkfs", FQRN]) == 0
        (self.port,) = free_ports(1)
        self.root, self.pidfile, self.log = root, root / "gateway.pid", root / "gateway.log"
        self.user_config = root / "etc/cvmfs/gateway/user.json"
        self.user_config.write_text(json.dumps({"port": self.port}))
        self.environment = os.environ | {
            "CVMFS_GATEWAY": str(PROGRAM),
            "CVMFS_GATEWAY_PIDFILE": str(self.pidfile),
            "CVMFS_GATEWAY_LOG": str(self.log),
            "CVMFS_GW_ROOT": str(root),
        }

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """Exit code, and what was said on both streams."""
        done = subprocess.run(
            ["sh", str(SCRIPT), *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout

    @property
    def pid(self) -> int:
        return int(self.pidfile.read_text())

    @property
    def workers(self) -> set[int]:
        """The processes that the daemon has started."""
        return set(map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()))

    def get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1{path}", timeout=20) as reply:
            data = json.load(reply)["data"]
        assert isinstance(data, dict)
        return data

    def lease(self) -> str:
        """Take a lease; returns its path."""
        _, key_id, secret = (self.root / f"etc/cvmfs/keys/{FQRN}.gw").read_text().split()
        body = json.dumps({"path": f"{FQRN}/a", "api_version": "2"}).encode()
        headers = {"Authorization": sign(Key(key_id, secret.encode()), body)}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/v1/leases", body, headers)
        with urllib.request.urlopen(request, timeout=20) as reply:
            assert json.load(reply)["status"] == "ok"
        return f"{FQRN}/a"


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd runs here, and the script would ask it")
    control = Control(tmp_path)
    yield control
    control("stop")


def test_the_life_of_a_daemon(control: Control) -> None:
    assert control("status") == (1, "CVMFS repository gateway is not running\n")
    assert control("start") == (0, "CVMFS repository gateway started.\n")
    until(lambda: answers(control.port))
    assert control("status") == (0, "pong\n")
    started = control.pid
    code, said = control("start")
    assert (code, control.pid) == (0, started)
    assert "already" in said
    leased = control.lease()

    # keys and repositories are read again, by the same processes
    workers = control.workers
    (control.root / "etc/cvmfs/gateway/repo.json").write_text(
        json.dumps({"version": 2, "repos": [FQRN, {"domain": "new.example.org", "keys": []}]})
    )
    assert control("reload") == (0, "CVMFS repository gateway reloaded.\n")
    until(lambda: sorted(control.get("/repos")) == [FQRN, "new.example.org"])
    assert (control.pid, control.workers) == (started, workers)

    # the program is replaced behind the open port
    assert control("replace") == (0, "CVMFS repository gateway replaced.\n")
    until(lambda: bool(control.workers) and not control.workers & workers)
    assert control.pid == started
    assert list(control.get("/leases")) == [leased]

    assert control("restart") == (0, "CVMFS repository gateway restarted.\n")
    until(lambda: answers(control.port))
    assert control.pid != started
    assert list(control.get("/leases")) == [leased]

    assert control("stop") == (0, "CVMFS repository gateway stopped.\n")
    assert not answers(control.port)
    assert not control.pidfile.exists()
    assert control("status")[0] == 1
    assert control("stop")[0] == 0
    assert control("reload")[0] == 1


def test_a_daemon_that_does_not_start(control: Control) -> None:
    control.user_config.write_text("{")
    code, said = control("start")
    assert code == 1
    assert f"did not start, see {control.log}" in said
    assert "user.json" in control.log.read_text()
    assert not control.pidfile.exists()


def test_a_number_that_belongs_to_somebody_else(control: Control) -> None:
    """A pid file that was left behind: nobody is signalled."""
    with subprocess.Popen(["sleep", "60"]) as other:
        control.pidfile.write_text(f"{other.pid}\n")
        assert control("status")[0] == 1
        assert control("stop")[0] == 0
        assert other.poll() is None
        other.kill()


def test_a_daemon_of_another_user(control: Control) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with tempfile.TemporaryDirectory() as folder:  # which, unlike those of this test, others may enter
        Path(folder).chmod(0o755)
        program = Path(folder) / "cvmfs_gateway"
        program.write_text("#!/bin/sh\ntrap 'exit 0' TERM\ntrap : HUP\nid -un\nwhile :; do sleep 0.05; done\n")
        program.chmod(0o755)
        control.environment["CVMFS_GATEWAY"] = str(program)
        assert control("start", "nobody")[0] == 0
        until(lambda: control.log.read_text() == "nobody\n")
        assert control("status", "nobody") == (0, "pong\n")
        assert control("stop", "nobody")[0] == 0


def test_what_it_does_not_know(control: Control) -> None:
    code, said = control("dance")
    assert code == 1
    assert "Usage: run_cvmfs_gateway.sh <start|stop|restart|reload|replace|status>" in said
