"""The driver in memory."""

from __future__ import annotations

import pytest

from cvmfs_objstore.memory import MemoryStorage
from cvmfs_objstore.storage import Storage
from tests.objstore.storage_suite import StorageSuite


class TestMemoryStorage(StorageSuite):
    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage()


def test_clock() -> None:
    now = 1000.0
    storage = MemoryStorage(clock=lambda: now)
    storage.write("a", b"")
    now = 2000.0
    storage.put("b", b"")
    assert (storage.modified("a"), storage.modified("b")) == (1000.0, 2000.0)
    assert repr(storage) == "MemoryStorage(2 files)"
