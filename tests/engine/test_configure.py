"""The configuration that a new repository gets, and where it is entered."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cvmfs_gw.engine.configure import RepositoryOptions, is_served, register_repository, upstream_of
from cvmfs_gw.engine.create import create_repository
from cvmfs_gw.engine.errors import ConfigurationError
from cvmfs_gw.gateway.access import AccessConfig
from cvmfs_gw.paths import SystemPaths
from tests.engine.repositories import FQRN, STRATUM0, check_chain, new_repository
from tests.engine.trees import NOW


def test_the_gateway_knows_it(tmp_path: Path, keys: str) -> None:
    """Its own key file opens it, at once and for the whole repository."""
    paths = new_repository(str(tmp_path), keys).paths
    access = AccessConfig.load(paths.access_config, paths)
    assert set(access.repositories) == {FQRN}


def test_two_repositories(tmp_path: Path, keys: str) -> None:
    paths = new_repository(str(tmp_path), keys).paths
    create_repository("second.example.org", paths, {}, RepositoryOptions(STRATUM0), NOW)
    with open(paths.access_config, "rb") as file:
        assert json.load(file) == {"version": 2, "repos": [FQRN, "second.example.org"]}
    with open(os.path.join(paths.storage, "info/v1/repositories.json"), "rb") as file:
        assert [item["name"] for item in json.load(file)["repositories"]] == [FQRN, "second.example.org"]
    assert set(AccessConfig.load(paths.access_config, paths).repositories) == {FQRN, "second.example.org"}
    check_chain(new_repository(str(tmp_path / "third"), keys))


def test_access_configuration_that_is_there(tmp_path: Path, keys: str) -> None:
    """What the operator wrote stays."""
    paths = SystemPaths(str(tmp_path))
    os.makedirs(os.path.dirname(paths.access_config))
    key = {"type": "plain_text", "id": "k", "secret": "s", "admin": True}
    content = {"version": 2, "repos": [{"domain": FQRN, "keys": [{"id": "k", "path": "/"}]}], "keys": [key]}
    Path(paths.access_config).write_text(json.dumps(content))
    new_repository(str(tmp_path), keys)
    assert json.loads(Path(paths.access_config).read_text()) == content
    assert is_served(FQRN, paths)


@pytest.mark.parametrize("repository", [FQRN, {"domain": FQRN, "keys": []}])
def test_is_served(tmp_path: Path, repository: object) -> None:
    paths = SystemPaths(str(tmp_path))
    assert not is_served(FQRN, paths)
    os.makedirs(os.path.dirname(paths.access_config))
    Path(paths.access_config).write_text(json.dumps({"version": 2, "repos": ["other.example.org", repository]}))
    assert is_served(FQRN, paths)
    assert not is_served("example.org", paths)


@pytest.mark.parametrize("content", ["{", "[]", '{"repos": []}', '{"version": 2, "repos": 1}'])
def test_access_configuration_that_makes_no_sense(tmp_path: Path, keys: str, content: str) -> None:
    paths = SystemPaths(str(tmp_path))
    os.makedirs(os.path.dirname(paths.access_config))
    Path(paths.access_config).write_text(content)
    with pytest.raises(ConfigurationError):
        new_repository(str(tmp_path), keys)
    assert Path(paths.access_config).read_text() == content


def test_repositories_that_are_made_at_once(tmp_path: Path, keys: str) -> None:
    """Each of them is in the files that all share."""
    paths = SystemPaths(str(tmp_path))
    names = [f"r{number}.example.org" for number in range(8)]

    def make(fqrn: str) -> None:
        register_repository(fqrn, paths, upstream_of(fqrn, paths, RepositoryOptions("")))

    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(make, names))
    assert all(is_served(fqrn, paths) for fqrn in names)
    listed = json.loads((tmp_path / "srv/cvmfs/info/v1/repositories.json").read_text())["repositories"]
    assert sorted(item["name"] for item in listed) == names
