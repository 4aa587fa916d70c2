"""The commands for people, against a gateway in this process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from cvmfs_gw.cli import admin, main
from cvmfs_gw.gateway.service import GatewayService
from cvmfs_gw.paths import SystemPaths
from tests.gateway.conftest import api, clock, config, engine, paths, service, stores
from tests.gateway.support import ADMIN, FQRN, KEY, OTHER, REPO_JSON, Api, pack, write, write_access

__all__ = ["api", "clock", "config", "engine", "paths", "service", "stores"]


async def run(api: Api, *arguments: str) -> int:
    """The command in a thread, as the gateway is in this one."""
    return await asyncio.to_thread(main, [*arguments, "--gateway", api.url])


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    return write(str(tmp_path / "admin.gw"), f"plain_text {ADMIN.id} {ADMIN.secret.decode()}\n")


async def test_leases(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run(api, "leases") == 0
    assert capsys.readouterr().out == "nobody holds a lease\n"
    token = await api.token(f"{FQRN}/a/b")
    await api.payload(token, *pack([b"x" * 3000]))
    assert await run(api, "leases") == 0
    heads, line = capsys.readouterr().out.splitlines()
    assert heads.split() == ["PATH", "KEY", "HOST", "AGE", "EXPIRES", "IN", "OBJECTS", "BYTES", "STATE"]
    assert line.split() == [f"{FQRN}/a/b", "key1", "host.example.org", "0", "s", "2", "h", "1", "2.9", "KiB", "open"]
    assert await run(api, "leases", "--json") == 0
    assert json.loads(capsys.readouterr().out)["data"][f"{FQRN}/a/b"]["objects"] == 1


async def test_cancel(api: Api, service: GatewayService, key_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    await api.token(f"{FQRN}/a b/c")
    assert await run(api, "cancel", f"{FQRN}/a b/", "--key", key_file) == 0
    assert service.leases.all() == []
    wrong = write(key_file + "2", f"plain_text {KEY.id} {KEY.secret.decode()}\n")
    assert await run(api, "cancel", FQRN, "--key", wrong) == 1
    assert "no_admin_key" in capsys.readouterr().err


async def test_repositories(
    api: Api, service: GatewayService, key_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(api, "disable", OTHER, "--wait", "--key", key_file) == 0
    assert not service.repositories.get(OTHER).enabled
    assert await run(api, "repos") == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[2:]] == [
        [OTHER, "disabled"],
        [FQRN, "enabled"],
    ]
    assert await run(api, "enable", OTHER, "--key", key_file) == 0
    assert service.repositories.get(OTHER).enabled
    assert await run(api, "enable", "unknown.org", "--key", key_file) == 1
    assert "invalid_repo" in capsys.readouterr().err


async def test_without_a_key_it_is_the_one_of_this_machine(
    api: Api, service: GatewayService, paths: SystemPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(api, "--root", paths.root, "disable", OTHER) == 0
    assert not service.repositories.get(OTHER).enabled
    write_access(paths, REPO_JSON | {"keys": [key for key in REPO_JSON["keys"] if "admin" not in key]})
    capsys.readouterr()
    assert await run(api, "--root", paths.root, "enable", OTHER) == 1
    assert f'give a key "admin": true in {paths.access_config}' in capsys.readouterr().err
    assert await run(api, "--root", str(paths.root) + "/nowhere", "enable", OTHER) == 1
    assert "Say --key FILE" in capsys.readouterr().err
    assert not service.repositories.get(OTHER).enabled


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (7199, "1 h 59 min"),
        (3605, "1 h"),
        (86_400 * 3 + 3600, "3 d 1 h"),
        (61, "1 min 1 s"),
    ],
)
def test_ages(seconds: int, said: str) -> None:
    assert admin._age(seconds) == said


async def test_status(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run(api, "status") == 0
    said = capsys.readouterr().out
    assert "leases: 0, received: 0 B" in said
    assert FQRN in said


def test_no_gateway(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--gateway", "http://127.0.0.1:1/api/v1"]) == 3
    assert "no answer" in capsys.readouterr().err
