"""A repository that takes the place of one whose storage is gone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cvmfs_gw.engine.create import ensure_repository
from cvmfs_gw.engine.errors import ConfigurationError
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.paths import SystemPaths
from tests.engine.repositories import FQRN, STRATUM0, check_chain
from tests.engine.trees import NOW


def test_it_is_empty_under_the_same_keys_and_above_the_former(tmp_path: Path, keys: str) -> None:
    paths = SystemPaths(str(tmp_path))
    assert ensure_repository(FQRN, paths, STRATUM0, NOW, keys=keys)
    first = Repository(FQRN, paths, {}).head()
    assert first.revision == NOW
    assert first.garbage_collectable
    assert not ensure_repository(FQRN, paths, STRATUM0, NOW + 5, keys=keys)
    certificate = Path(paths.key_file(FQRN, "crt")).read_bytes()
    shutil.rmtree(paths.storage)
    assert ensure_repository(FQRN, paths, STRATUM0, NOW + 10)
    repository = Repository(FQRN, paths, {})
    assert check_chain(repository, NOW + 10).revision == NOW + 10
    assert Path(paths.key_file(FQRN, "crt")).read_bytes() == certificate


def test_a_server_conf_that_is_there_stays(tmp_path: Path, keys: str) -> None:
    paths = SystemPaths(str(tmp_path))
    ensure_repository(FQRN, paths, STRATUM0, NOW, keys=keys)
    with open(paths.server_conf(FQRN), "a", encoding="utf-8") as file:
        file.write("CVMFS_AUTOCATALOGS=true\n")
    shutil.rmtree(paths.storage)
    ensure_repository(FQRN, paths, STRATUM0, NOW + 10)
    assert Repository(FQRN, paths, {}).configuration().autocatalogs


@pytest.mark.parametrize("missing", ["masterkey", "key", "crt"])
def test_without_keys_there_is_no_such_repository(tmp_path: Path, keys: str, missing: str) -> None:
    folder = tmp_path / "keys"
    shutil.copytree(keys, folder)
    os.unlink(folder / f"{FQRN}.{missing}")
    with pytest.raises(ConfigurationError, match=missing):
        ensure_repository(FQRN, SystemPaths(str(tmp_path / "root")), STRATUM0, NOW, keys=str(folder))
    assert not (tmp_path / "root").exists()
