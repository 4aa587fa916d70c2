"""``cvmfs_gateway``: the reference's flags and files, by their order of precedence, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest

from cvmfs_gw.cli import main as make
from cvmfs_gw.cli.daemon import IN_PROCESS, main
from tests.cli.support import answers, free_ports, run, running, until

FQRN = "daemon.example.org"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    assert make(["--root", str(tmp_path), "mkfs", FQRN]) == 0
    return tmp_path


def repositories(port: int) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/repos", timeout=20) as reply:
        return sorted(json.load(reply)["data"])


@pytest.mark.parametrize("in_process", [False, True])
def test_flags(root: Path, tmp_path: Path, in_process: bool) -> None:
    """All that a service unit of the reference may give."""
    (port,) = free_ports(1)
    work = tmp_path / "elsewhere/work"
    access = tmp_path / "access.json"
    access.write_text(json.dumps({"version": 2, "repos": [FQRN]}))
    arguments = (
        f"--port={port}",
        "--access_config_file",
        access,
        "--user_config_file",
        tmp_path / "missing.json",
        "--max_lease_time",
        "60",
        "--log_level=debug",
        "--log_timestamps",
        "--num_receivers=4",
        "--receiver_path",
        "/nonexistent",
        "--pprof_port",
        "6060",
        "--work_dir",
        work,
        "--mock_receiver=false",
    )
    extra = {IN_PROCESS: "1"} if in_process else {}
    with running("cvmfs_gateway", *arguments, root=root, **extra) as process:
        process.wait_for(f"gateway listens on port {port}")
        until(lambda: answers(port))
        assert repositories(port) == [FQRN]
        assert os.path.exists(work / "gw.db")
        assert process.stop() in (0, 143), process.output
        assert "Traceback" not in process.output
    assert not answers(port)


def test_files(root: Path) -> None:
    """``user.json`` where no flag says otherwise; the old name of the port beats everything."""
    port, other, third = free_ports(3)
    settings = root / "etc/cvmfs/gateway/user.json"
    for content, arguments, expected in (
        ({"port": port}, (), port),
        ({"port": other}, ("--port", str(port)), port),
        ({"port": other, "fe_tcp_port": port}, ("--port", str(third)), port),
    ):
        settings.write_text(json.dumps(content))
        with running("cvmfs_gateway", *arguments, root=root, **{IN_PROCESS: "1"}) as process:
            process.wait_for(f"gateway listens on port {expected}")
            until(lambda: answers(port))
            assert not answers(other)
            process.stop()


def test_reload(root: Path) -> None:
    """SIGHUP: a repository that was added is there, and the gateway was never gone."""
    (port,) = free_ports(1)
    with running("cvmfs_gateway", "--port", str(port), root=root) as process:
        process.wait_for("gateway listens")
        until(lambda: answers(port))
        assert make(["--root", str(root), "mkfs", "second.example.org"]) == 0
        os.kill(process.pid, signal.SIGHUP)
        until(lambda: repositories(port) == [FQRN, "second.example.org"])
        assert process.stop() in (0, 143)


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        ("{", []),
        ("[]", []),
        ('{"port": "many"}', []),
        ('{"port": 70000}', []),
        ("{}", ["--port", "70000"]),
        ("{}", ["--max_lease_time", "0"]),
        ("{}", ["--access_config_file", "/nonexistent/repo.json"]),
        ("{}", ["--work_dir", "/dev/null/work"]),
    ],
)
def test_settings_that_make_no_sense(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str,
    arguments: list[str],
) -> None:
    """One line that says what is wrong, and exit code 1."""
    folder = tmp_path / "etc/cvmfs/gateway"
    folder.mkdir(parents=True)
    (folder / "user.json").write_text(content)
    (folder / "repo.json").write_text('{"version": 2, "repos": []}')
    monkeypatch.setenv("CVMFS_GW_ROOT", str(tmp_path))
    monkeypatch.setenv(IN_PROCESS, "1")
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("cvmfs_gateway: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["--port", "x"], ["--po", "1"], ["--mock_receiver=perhaps"], ["extra"]]
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as info:
        main(arguments)
    assert info.value.code == 2
    assert "usage: cvmfs_gateway" in capsys.readouterr().err


def test_help() -> None:
    done = run("cvmfs_gateway", "--help")
    assert done.returncode == 0
    for flag in ("access_config_file", "user_config_file", "port", "max_lease_time", "log_level", "work_dir"):
        assert f"--{flag}" in done.stdout
