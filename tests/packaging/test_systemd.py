"""Under systemd the control script leaves everything to it, and systemd has nothing to say about the units."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.packaging.test_control_script import PROGRAM, SCRIPT
from tests.packaging.test_units import PACKAGING

# /run/systemd/system says that systemd runs: it is there for this process alone
_AS_IF: Final = 'mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && exec sh "$@"'
_SYSTEMCTL: Final = """#!/bin/sh
echo "$@" >> "$CALLS"
exit "$ANSWER"
"""

Control = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def control(tmp_path: Path) -> Control:
    """The script: arguments and what ``systemctl`` answers -> exit code, what was said, calls of ``systemctl``."""
    enter = ["unshare", "--mount", "--map-root-user"] if os.geteuid() else ["unshare", "--mount"]
    possible = shutil.which("unshare") and subprocess.run(
        [*enter, "mount", "-t", "tmpfs", "tmpfs", "/run"], check=False
    )
    if not possible or possible.returncode:
        pytest.skip("needs a mount name space")
    program, calls = tmp_path / "systemctl", tmp_path / "calls"
    program.write_text(_SYSTEMCTL)
    program.chmod(0o755)

    def run(*arguments: str, answer: int = 0) -> tuple[int, str, list[str]]:
        calls.write_text("")
        environment = os.environ | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "CALLS": str(calls),
            "ANSWER": str(answer),
            "CVMFS_GATEWAY": "/nowhere/cvmfs_gateway",
            "CVMFS_GATEWAY_PIDFILE": str(tmp_path / "pid"),
            "CVMFS_GATEWAY_LOG": str(tmp_path / "log"),
        }
        done = subprocess.run(
            [*enter, "sh", "-euc", _AS_IF, "sh", str(SCRIPT), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, calls.read_text().splitlines()

    return run


@pytest.mark.parametrize(
    ("action", "call", "said"),
    [
        ("start", "start {}", "started"),
        ("stop", "stop {}", "stopped"),
        ("restart", "restart {}", "restarted"),
        ("reload", "reload {}", "reloaded"),
        ("replace", "kill --kill-who=main --signal=USR2 {}", "replaced"),
    ],
)
@pytest.mark.parametrize(("user", "unit"), [((), "cvmfs-gateway"), (("alice",), "cvmfs-gateway@alice")])
def test_what_systemd_is_asked(
    control: Control, action: str, call: str, said: str, user: tuple[str, ...], unit: str
) -> None:
    assert control(action, *user) == (0, f"CVMFS repository gateway {said}.\n", [call.format(unit)])
    # what it refuses has not been done
    assert control(action, *user, answer=5) == (5, "", [call.format(unit)])


def test_the_status_is_that_of_the_unit(control: Control) -> None:
    asked = ["is-active --quiet cvmfs-gateway@alice"]
    assert control("status", "alice") == (0, "pong\n", asked)
    assert control("status", "alice", answer=3) == (1, "CVMFS repository gateway is not running\n", asked)


def test_what_it_does_not_know_is_not_asked(control: Control) -> None:
    code, said, calls = control("dance")
    assert (code, calls) == (1, [])
    assert "Usage:" in said


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("not on PATH: systemd-analyze")
    for source in (PACKAGING / "systemd").iterdir():
        # a program that is not there would be found fault with
        (tmp_path / source.name).write_text(source.read_text().replace("/usr/bin/cvmfs_gateway", str(PROGRAM)))
    units = ["cvmfs-gateway.service", "cvmfs-gateway.socket", "cvmfs-gateway@alice.service"]
    verified = subprocess.run(
        ["systemd-analyze", "verify", *(f"./{name}" for name in units)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert (verified.returncode, verified.stdout) == (0, "")
