"""Whitelists are signed again in time where the master key is, and there is a warning where it is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cvmfs_gw.care.resign import whitelist_state
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.stratum0.whitelist import RENEW_S, WARN_S, look_after
from tests.engine.repositories import FQRN, check_chain, new_repository
from tests.engine.trees import NOW
from tests.stratum0.conftest import Start
from tests.stratum0.support import BUILDS

DAY = 86_400


@pytest.fixture
def repository(tmp_path: Path, keys: str) -> Repository:
    return new_repository(str(tmp_path), keys)


def test_one_that_is_good_for_long_stays(repository: Repository) -> None:
    before = repository.storage.read(".cvmfswhitelist")
    found = look_after(repository, NOW + 15 * DAY)
    assert found is not None
    assert found.expires - NOW == pytest.approx(30 * DAY, abs=3600)
    assert repository.storage.read(".cvmfswhitelist") == before


def test_one_that_runs_out_is_signed_again(repository: Repository) -> None:
    moment = NOW + 30 * DAY - RENEW_S + 3600
    found = look_after(repository, moment)
    assert found is not None
    assert found.expires - moment == pytest.approx(30 * DAY, abs=3600)
    assert whitelist_state(repository) == found
    check_chain(repository, moment + 29 * DAY)


def test_without_the_master_key_there_is_a_warning(repository: Repository, caplog: pytest.LogCaptureFixture) -> None:
    os.unlink(repository.paths.key_file(FQRN, "masterkey"))
    before = repository.storage.read(".cvmfswhitelist")
    found = look_after(repository, NOW + 30 * DAY - RENEW_S + 3600)
    assert found is not None
    assert not found.can_sign
    assert caplog.messages == []
    look_after(repository, NOW + 30 * DAY - WARN_S + 3600)
    assert "the whitelist runs out on" in caplog.text
    assert "the master key is not here" in caplog.text
    assert repository.storage.read(".cvmfswhitelist") == before


def test_one_that_is_gone_is_an_error_in_the_log(repository: Repository, caplog: pytest.LogCaptureFixture) -> None:
    repository.storage.delete(".cvmfswhitelist")
    assert look_after(repository, NOW) is None
    assert "cannot be looked after" in caplog.text


async def test_over_http(start: Start) -> None:
    server = await start(upkeep=True)
    status, first = await server.call("POST", "whitelist")
    assert (status, first["can_sign"]) == (200, True)
    assert first["valid_s"] == pytest.approx(30 * DAY, abs=3700)
    assert (await server.call("GET", "whitelist", token=None))[1]["expires"] == first["expires"]
    assert (await server.call("POST", "manifest"))[0] == 200
    for what in ("whitelist", "manifest"):
        assert (await server.call("POST", what, token=BUILDS))[0] == 403
        assert (await server.call("POST", what, token="no such token"))[0] == 401
    os.unlink(server.paths.key_file(FQRN, "masterkey"))
    status, refused = await server.call("POST", "whitelist")
    assert (status, refused["status"]) == (500, "error")
    status, told = await server.call("POST", "announcement")
    assert (status, told["revision"]) == (200, 1)
    async with server.session.get(server.url.replace("/api/v1", "/metrics")) as response:
        text = await response.text()
    assert "cvmfs_gateway_uploads_running 0\n" in text
    assert "cvmfs_gateway_clock_step_seconds 0\n" in text
