"""Keys for the whole run of these tests, and repositories that sign with them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cvmfs_notify.hub import NotificationHub
from tests.notify.support import FakeSource, Keys


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys.generate()


@pytest.fixture
def source(keys: Keys) -> FakeSource:
    return FakeSource(keys)


@pytest.fixture
async def hub(source: FakeSource) -> AsyncIterator[NotificationHub]:
    hub = NotificationHub(None, source, gap_s=0.05, ping_s=60)
    yield hub
    await hub.close()
