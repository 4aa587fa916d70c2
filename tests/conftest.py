"""What every test leaves as it was, and keys for the whole test run: making them takes a while."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from cvmfs_gw.paths import SystemPaths
from tests.engine.repositories import FQRN, make_keys


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Programs that are run in the process of the tests set up their log, to a stream that is closed afterwards."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with all five key files of the test repository."""
    paths = SystemPaths(str(tmp_path_factory.mktemp("keys")))
    make_keys(FQRN, paths)
    return paths.keys
