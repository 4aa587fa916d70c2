from __future__ import annotations

import logging

import pytest

from cvmfs_gw.api.reload import Reloader
from cvmfs_gw.gateway.errors import ConfigError
from tests.gateway.support import until


async def test_a_part_that_cannot_be_used_does_not_keep_back_the_others(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    async def bad() -> None:
        raise ConfigError("no JSON")

    async def broken() -> None:
        raise RuntimeError

    async def good() -> None:
        done.append("good")

    with caplog.at_level(logging.INFO):
        Reloader({"first": bad, "second": broken, "third": good}).begin()
        await until(lambda: done)
    assert "first: as before: no JSON" in caplog.text
    assert "second: cannot be read again" in caplog.text
    await until(lambda: "third: read again" in caplog.text)
