"""What the upload API's tests share: a server with a real repository, and a client that signs or shows a token."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from cvmfs_gw.care.check import CheckOptions, check_repository
from cvmfs_gw.engine.commit import Engine
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.gateway.authorization import Key, sign
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.gateway.service import GatewayService
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.stratum0.authorization import Asked
from cvmfs_gw.stratum0.reading import look
from cvmfs_gw.stratum0.service import UploadService
from cvmfs_gw.stratum0.settings import RepositorySettings, TokenSettings, UploadSettings, new_token
from tests.engine.repositories import FQRN

ALL, ALL_TOKEN = new_token("all", LeasePath(FQRN, ""))
BUILDS, BUILDS_TOKEN = new_token("builds", LeasePath(FQRN, "/builds"))
READER, READER_TOKEN = new_token("reader", LeasePath(FQRN, ""), read_only=True)


def write_settings(
    paths: SystemPaths, settings: RepositorySettings | None = None, *tokens: TokenSettings, fqrn: str = FQRN
) -> None:
    """``uploads.json`` for the test repository."""
    found = tokens or (ALL_TOKEN, BUILDS_TOKEN, READER_TOKEN)
    UploadSettings({fqrn: settings or RepositorySettings()}, {token.id: token for token in found}).save(
        paths.upload_config
    )


class FakeTime:
    """Wall clock and time since boot, moved by hand."""

    def __init__(self, wall: float = 1_700_000_000.0) -> None:
        self.wall_s, self.running_s = wall, 1000.0

    def wall(self) -> float:
        return self.wall_s

    def running(self) -> float:
        return self.running_s

    def advance(self, seconds: float) -> None:
        """Time goes by."""
        self.wall_s += seconds
        self.running_s += seconds

    def jump(self, seconds: float) -> None:
        """Somebody sets the system's clock."""
        self.wall_s += seconds


@dataclass
class Server:
    """A running server and what it serves."""

    url: str
    paths: SystemPaths
    repository: Repository
    engine: Engine
    gateway: GatewayService
    uploads: UploadService
    time: FakeTime
    session: aiohttp.ClientSession
    announced: list[int] = field(default_factory=list)
    """Revisions that listeners were told of."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Those of the last reply."""

    async def call(
        self,
        method: str,
        path: str,
        data: Any = None,
        *,
        token: str | None = ALL,
        key: Key | None = None,
        headers: dict[str, str] | None = None,
        fqrn: str = FQRN,
    ) -> tuple[int, Any]:
        """Status and JSON (or bytes, of a file) of a request below the repository's URL.

        The headers of the reply are in :attr:`headers` then.
        """
        url = f"{self.url}/repos/{fqrn}/{path}"
        sent = dict(headers or {})
        if key is not None:
            body = data if isinstance(data, bytes) else b""
            split = urlsplit(url)
            target = split.path + (f"?{split.query}" if split.query else "")
            checksum = hashlib.sha256(body).hexdigest() if body else ""
            date = sent.setdefault("X-Cvmfs-Date", str(int(time.time())))
            if body:
                sent.setdefault("X-Content-SHA256", checksum)
            asked = Asked(method, target, date=date, checksum=sent.get("X-Content-SHA256", ""))
            sent["Authorization"] = sign(key, asked.message)
        elif token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if isinstance(data, bytes):
            data = io.BytesIO(data)
        async with self.session.request(method, url, data=data, headers=sent) as response:
            raw = await response.read()
            self.headers = response.headers
            if raw and response.content_type == "application/json":
                return response.status, json.loads(raw)
            return response.status, raw

    async def put(self, path: str, data: Any, **options: Any) -> tuple[int, Any]:
        return await self.call("PUT", f"files/{path}", data, **options)

    async def names(self, path: str = "", query: str = "recursive") -> list[str]:
        status, found = await self.call("GET", f"entries/{path}?{query}")
        assert status == 200, found
        return [entry["path"] for entry in found["entries"]]


def checked(repository: Repository, now: float = 1_700_000_000.0) -> set[str]:
    """The paths of the head, after everything that a client, a collector or a replica relies on was looked at."""
    report = check_repository(repository, CheckOptions(integrity=True), now)
    assert not report.faults.errors, [*report.faults]
    listing = look(repository, "", recursive=True)
    assert not listing.more
    return {path for path, _ in listing.children}
