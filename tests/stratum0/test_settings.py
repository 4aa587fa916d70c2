"""``uploads.json`` and its tokens, and the command that makes them."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cvmfs_gw.cli import main
from cvmfs_gw.gateway.errors import ConfigError
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.stratum0.settings import RepositorySettings, UploadSettings, new_token

FQRN = "a.example.org"


def load(tmp_path: Path, content: Any) -> UploadSettings:
    path = tmp_path / "uploads.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return UploadSettings.load(str(path))


def test_no_file_enables_nothing(tmp_path: Path) -> None:
    assert UploadSettings.load(str(tmp_path / "uploads.json")) == UploadSettings({}, {})


def test_there_and_back(tmp_path: Path) -> None:
    _, token = new_token("t", LeasePath(FQRN, "/a/b"), read_only=True)
    settings = UploadSettings({FQRN: RepositorySettings(max_ttl_s=5)}, {"t": token}, "http://a", "http://b/api/v1")
    path = tmp_path / "folder" / "uploads.json"
    settings.save(str(path))
    assert UploadSettings.load(str(path)) == settings
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


TOKEN = {"id": "t", "repository": FQRN, "sha256": "0" * 64}


@pytest.mark.parametrize(
    "content",
    [
        "{",
        [],
        {"version": 2},
        {"unknown": 1},
        {"repositories": {FQRN: {"max_ttl": 5}}},
        {"repositories": {FQRN: {"max_ttl_s": -1}}},
        {"repositories": {FQRN: {"max_ttl_s": 5, "default_ttl_s": 6}}},
        {"repositories": {FQRN: {"max_bytes": 0}}},
        {"repositories": {FQRN: {"max_entries": 10**12}}},
        {"repositories": {}, "tokens": [TOKEN]},
        {"repositories": {FQRN: {}}, "tokens": [TOKEN, TOKEN]},
        {"repositories": {FQRN: {}}, "tokens": [{**TOKEN, "path": "/a/../b"}]},
        {"repositories": {FQRN: {}}, "tokens": [{**TOKEN, "sha256": "x"}]},
        {"repositories": {FQRN: {}}, "tokens": [{**TOKEN, "sha256": "A" * 64}]},
        {"repositories": {FQRN: {}}, "tokens": [{**TOKEN, "id": "a_b"}]},
        {"repositories": {FQRN: {}}, "tokens": [{**TOKEN, "id": ""}]},
    ],
)
def test_what_cannot_be_used(tmp_path: Path, content: Any) -> None:
    with pytest.raises(ConfigError):
        load(tmp_path, content)


def test_tokens_are_kept_as_hashes_and_told_apart(tmp_path: Path) -> None:
    text, token = new_token("one", LeasePath(FQRN, ""))
    other, _ = new_token("one", LeasePath(FQRN, ""))
    settings = UploadSettings({FQRN: RepositorySettings()}, {"one": token})
    settings.save(str(tmp_path / "uploads.json"))
    secret = text.split("_", 2)[2]
    assert secret not in (tmp_path / "uploads.json").read_text()
    assert secret not in repr(token)
    assert settings.token(text) == token
    for wrong in (
        "",
        other,
        text + "x",
        text[:-1],
        text.upper(),
        text.replace("_one_", "_two_"),
        "cvgw_one_",
        "é" * 20,
    ):
        assert settings.token(wrong) is None


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", str(tmp_path)]
    path = SystemPaths(str(tmp_path)).upload_config
    assert main([*root, "token", "create", f"{FQRN}/builds/", "--id", "ci"]) == 0
    text = capsys.readouterr().out.strip()
    assert main([*root, "token", "create", FQRN, "--read-only"]) == 0
    settings = UploadSettings.load(path)
    assert list(settings.repositories) == [FQRN]
    found = settings.token(text)
    assert found is not None
    assert found.scope == LeasePath(FQRN, "/builds")
    assert main([*root, "token", "create", FQRN, "--id", "ci"]) == 1
    assert main([*root, "token", "create", "no name"]) == 1
    assert main([*root, "token", "create", FQRN, "--id", "a_b"]) == 1
    capsys.readouterr()
    assert main([*root, "token", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"ci  {FQRN}/builds  read and change"
    assert lines[1].endswith(f"  {FQRN}/  read")
    assert main([*root, "token", "revoke", "ci"]) == 0
    assert UploadSettings.load(path).token(text) is None
    assert main([*root, "token", "revoke", "ci"]) == 1
    assert text.split("_", 2)[2] not in Path(path).read_text()
    assert os.path.exists(path)


def test_tokens_that_are_made_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def make(number: int) -> int:
        return main(["--root", str(tmp_path), "token", "create", FQRN, "--id", f"t{number}"])

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(make, range(8))) == {0}
    assert len(UploadSettings.load(SystemPaths(str(tmp_path)).upload_config).tokens) == 8


def test_the_server_reads_what_an_administrator_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever reads the gateway's keys reads the tokens, too."""
    paths = SystemPaths(str(tmp_path))
    os.makedirs(os.path.dirname(paths.access_config))
    Path(paths.access_config).touch(0o640)
    assert main(["--root", str(tmp_path), "token", "create", FQRN]) == 0
    assert stat.S_IMODE(os.stat(paths.upload_config).st_mode) == 0o640
