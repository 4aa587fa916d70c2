from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from conformance.machines.machine import missing
from tests.e2e.world import World

_missing = cache(missing)


@pytest.fixture
def world() -> Iterator[World]:
    """A server that is not started yet, for one test; skips where machines cannot be made."""
    if reason := _missing():
        pytest.skip(reason)
    with World() as made:
        yield made
