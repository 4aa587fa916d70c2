"""The driver in memory."""

from __future__ import annotations

import time

import pytest

from cvmfs_objstore.memory import MemoryStorage
from cvmfs_objstore.storage import Storage
from tests.objstore.storage_suite import StorageSuite


class TestMemoryStorage(StorageSuite):
    @pytest.fixture
    def storage(self) -> Storage:
        self.now = time.time()
        return MemoryStorage(clock=lambda: self.now)

    def make_old(self, storage: Storage, path: str, data: bytes) -> None:
        self.now = 0.0
        storage.write(path, data)
        self.now = time.time()


def test_clock() -> None:
    now = 1000.0
    storage = MemoryStorage(clock=lambda: now)
    storage.write("a", b"")
    now = 2000.0
    storage.put("b", b"")
    assert (storage.modified("a"), storage.modified("b")) == (1000.0, 2000.0)
    assert repr(storage) == "MemoryStorage(2 files)"
