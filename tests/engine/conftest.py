"""Keys for the whole test run: making them takes a while."""

from __future__ import annotations

import pytest

from cvmfs_gw.paths import SystemPaths
from tests.engine.repositories import FQRN, make_keys


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with all five key files of the test repository."""
    paths = SystemPaths(str(tmp_path_factory.mktemp("keys")))
    make_keys(FQRN, paths)
    return paths.keys
