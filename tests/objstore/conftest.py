"""Keys for the whole test run: making one takes a while."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import pytest

from cvmfs_objstore.formats.keychain import Certificate, MasterKey, RepositoryKey

NOW: Final = datetime(2026, 11, 20, 9, 30, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def master_key() -> MasterKey:
    return MasterKey.generate()


@pytest.fixture(scope="session")
def repository_key() -> RepositoryKey:
    return RepositoryKey.generate()


@pytest.fixture(scope="session")
def other_key() -> RepositoryKey:
    return RepositoryKey.generate()


@pytest.fixture(scope="session")
def certificate(repository_key: RepositoryKey) -> Certificate:
    return Certificate.self_signed(repository_key, "test.example.org", NOW)
