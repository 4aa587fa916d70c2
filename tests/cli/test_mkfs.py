"""``cvmfs-gw mkfs``: its options, what it says, and how it ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cvmfs_gw.cli import main
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.hashes import Algorithm
from tests.cli.support import run
from tests.engine.repositories import check_chain, tags

FQRN = "made.example.org"


def made(root: Path, *options: str) -> Repository:
    """Make a repository in this process, and look at it."""
    assert main(["--root", str(root), "mkfs", FQRN, *options]) == 0
    repository = Repository(FQRN, SystemPaths(str(root)), {}, durable=False)
    check_chain(repository, repository.head().published or 0)
    return repository


def test_program(tmp_path: Path) -> None:
    done = run("cvmfs-gw", "--root", tmp_path, "mkfs", FQRN)
    assert (done.returncode, done.stderr) == (0, "")
    assert FQRN in done.stdout
    assert str(tmp_path) in done.stdout
    again = run("cvmfs-gw", "mkfs", FQRN, root=tmp_path)
    assert again.returncode == 1
    assert again.stdout == ""
    assert again.stderr.startswith("cvmfs-gw: ")
    assert "exists already" in again.stderr
    assert "Traceback" not in again.stderr


def test_defaults(tmp_path: Path) -> None:
    repository = made(tmp_path)
    configuration = repository.configuration()
    head = repository.head()
    assert head.root_hash.algorithm is Algorithm.SHA1
    assert head.ttl == 240
    assert not head.garbage_collectable
    assert not configuration.volatile
    assert configuration.auto_tag
    assert configuration.stratum0 == f"http://localhost:8080/cvmfs/{FQRN}"
    assert len(tags(repository)) == 2
    assert repository.storage.exists(".cvmfs_master_replica")


@pytest.mark.parametrize("algorithm", Algorithm)
def test_hash_algorithms(tmp_path: Path, algorithm: Algorithm) -> None:
    repository = made(tmp_path, "-a", algorithm.config_name)
    assert repository.head().root_hash.algorithm is algorithm
    assert repository.configuration().hash_algorithm is algorithm


def test_all_options(tmp_path: Path) -> None:
    options = ["-w", "http://s0.example.org/cvmfs/x", "-o", "root", "-Z", "none", "-v", "-z", "-g", "--ttl", "61"]
    repository = made(tmp_path, *options, "-G", "2 weeks ago", "--no-replicas")
    configuration = repository.configuration()
    assert configuration.stratum0 == "http://s0.example.org/cvmfs/x"
    assert configuration.get("CVMFS_USER") == "root"
    assert configuration.compression_algorithm == "none"
    assert configuration.volatile
    assert configuration.garbage_collection
    assert not configuration.auto_tag
    assert configuration.auto_tag_timespan == "2 weeks ago"
    assert repository.head().ttl == 61
    assert repository.head().garbage_collectable
    assert set(tags(repository)) == {"trunk"}
    assert not repository.storage.exists(".cvmfs_master_replica")


def test_keys_of_another(tmp_path: Path) -> None:
    first = made(tmp_path / "first")
    second = made(tmp_path / "second", "-k", first.paths.keys)
    for kind in ("masterkey", "pub", "key", "crt", "gw"):
        one, other = (Path(found.paths.key_file(FQRN, kind)).read_bytes() for found in (first, second))
        assert one == other


@pytest.mark.parametrize(
    "arguments",
    [
        ["mkfs", "noname"],
        ["mkfs", "../x.y"],
        ["mkfs", FQRN, "-o", "nobody-of-that-name"],
        ["mkfs", FQRN, "-k", "/nonexistent"],
    ],
)
def test_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(["--root", str(tmp_path), *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cvmfs-gw: ")
    assert not os.path.exists(tmp_path / "srv/cvmfs" / FQRN / ".cvmfspublished")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["mkfs"],
        ["mkfs", FQRN, "-a", "md5"],
        ["mkfs", FQRN, "-Z", "lzma"],
        ["mkfs", FQRN, "--ttl", "soon"],
        ["mkfs", FQRN, "--nonsense"],
        ["publish", FQRN],
        ["serve", "--port", "many"],
    ],
)
def test_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as info:
        main(["--root", str(tmp_path), *arguments])
    assert info.value.code == 2
    assert "usage: cvmfs-gw" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("ttl", ["0", "-5"])
def test_ttl_that_is_none(tmp_path: Path, ttl: str) -> None:
    """A repository must tell its clients when to look again."""
    assert main(["--root", str(tmp_path), "mkfs", FQRN, f"--ttl={ttl}"]) == 1
    assert os.listdir(tmp_path) == []


def test_root_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVMFS_GW_ROOT", str(tmp_path))
    assert main(["mkfs", FQRN]) == 0
    assert os.path.exists(tmp_path / "srv/cvmfs" / FQRN / ".cvmfspublished")


def test_relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths that are written into ``server.conf`` are good from everywhere."""
    monkeypatch.chdir(tmp_path)
    assert main(["--root", "there", "mkfs", FQRN]) == 0
    repository = Repository(FQRN, SystemPaths(str(tmp_path / "there")), {})
    assert repository.configuration().upstream().location == str(tmp_path / "there/srv/cvmfs" / FQRN)
