"""A gateway and a web server in a thread, over a repository on disk, for the synchronous client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.support import Server


@pytest.fixture
def server(tmp_path: Path, keys: str) -> Iterator[Server]:
    with Server(str(tmp_path / "root"), keys) as server:
        yield server
