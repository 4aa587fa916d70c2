"""A gateway and a web server in a thread, over a repository on disk, for the synchronous client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_gw.paths import SystemPaths
from tests.client.support import Server
from tests.engine.repositories import FQRN, make_keys


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with all five key files of the test repository."""
    paths = SystemPaths(str(tmp_path_factory.mktemp("keys")))
    make_keys(FQRN, paths)
    return paths.keys


@pytest.fixture
def server(tmp_path: Path, keys: str) -> Iterator[Server]:
    with Server(str(tmp_path / "root"), keys) as server:
        yield server
