"""``/cvmfs-meta``: keys, certificates, configuration and mount script, right behind whatever name the server has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from aiohttp import web

from cvmfs_gw.api.meta import Meta, install
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.stratum0.settings import UploadSettings
from tests.engine.repositories import FQRN, new_repository

PORTS: Final = {"gateway": 4929, "web": 8080}


class Site:
    """An application that serves meta data, as one of the two servers, and what it is asked by."""

    def __init__(self, paths: SystemPaths, session: aiohttp.ClientSession) -> None:
        self.paths, self.session = paths, session
        self.settings = UploadSettings({}, {})
        self.runners: list[web.AppRunner] = []

    async def get(self, kind: str, host: str = "s0:1234", server: str = "web", name: str = FQRN) -> tuple[int, str]:
        app = web.Application()
        install(app, Meta(self.paths, lambda: {FQRN}, lambda: self.settings, server, PORTS))
        runner = web.AppRunner(app)
        self.runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/cvmfs-meta/{name}.{kind}"
        async with self.session.get(url, headers={"Host": host}) as response:
            assert response.status != 200 or response.headers["Cache-Control"] == "no-store"
            return response.status, await response.text()


@pytest.fixture
async def site(tmp_path: Path, keys: str) -> AsyncIterator[Site]:
    new_repository(str(tmp_path), keys)
    async with aiohttp.ClientSession() as session:
        site = Site(SystemPaths(str(tmp_path)), session)
        yield site
        for runner in site.runners:
            await runner.cleanup()


def key(site: Site, kind: str) -> str:
    return Path(site.paths.key_file(FQRN, kind)).read_text()


async def test_keys(site: Site) -> None:
    for kind in ("pub", "crt"):
        assert await site.get(kind) == (200, key(site, kind))


@pytest.mark.parametrize("kind", ["key", "gw", "masterkey", "xyz"])
async def test_secrets_are_not_there(site: Site, kind: str) -> None:
    assert (await site.get(kind))[0] == 404
    assert (await site.get("pub", name="other.example.org"))[0] == 404
    assert (await site.get("pub", name="..%2f..%2fpasswd"))[0] == 404


async def test_urls_are_those_that_the_client_used(site: Site) -> None:
    for server, web_url, gateway in (
        ("web", "http://s0:1234", "http://s0:4929/api/v1"),
        ("gateway", "http://s0:8080", "http://s0:1234/api/v1"),
    ):
        status, text = await site.get("conf", server=server)
        assert status == 200
        assert f"CVMFS_SERVER_URL={web_url}/cvmfs/{FQRN}\n" in text
        assert f"CVMFS_NOTIFICATION_SERVER={gateway}\n" in text
        status, script = await site.get("sh", server=server)
        assert text in script
        assert key(site, "pub") in script


async def test_urls_that_are_configured_win(site: Site) -> None:
    site.settings = UploadSettings({}, {}, "https://cdn.example.org", "https://gw.example.org/api/v1")
    _, text = await site.get("conf")
    assert f"CVMFS_SERVER_URL=https://cdn.example.org/cvmfs/{FQRN}\n" in text
    assert "CVMFS_NOTIFICATION_SERVER=https://gw.example.org/api/v1\n" in text


@pytest.mark.parametrize("host", ["$(x)", "a b", "a'b", "a;b", "`x`"])
async def test_hosts_that_are_none(site: Site, host: str) -> None:
    for kind in ("conf", "sh"):
        status, text = await site.get(kind, host=host)
        assert status == 400
        assert "CVMFS" not in text
