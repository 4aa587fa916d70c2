"""A gateway over the real engine and a repository with a past, by HTTP."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import ClientSession

from cvmfs_gw.gateway.authorization import Key, sign
from cvmfs_gw.gateway.service import GatewayService
from tests.care.collecting import Past
from tests.engine.repositories import FQRN
from tests.gateway.support import ADMIN


class Gateway:
    """A gateway over the real engine, by HTTP."""

    def __init__(self, past: Past, service: GatewayService, session: ClientSession, url: str) -> None:
        self.past, self.service, self._session, self._url = past, service, session, url

    async def gc(self, key: Key = ADMIN, **fields: object) -> dict[str, object]:
        return await self.ask("POST", "/gc", key, repo=FQRN, **fields)

    async def ask(self, method: str, route: str, key: Key | None = ADMIN, **fields: object) -> dict[str, Any]:
        """A request by *key*: what is signed is the body, or where there is none the path."""
        return await self._send(method, route, key, json.dumps(fields).encode() if method == "POST" else b"")

    async def sign(self, what: str, key: Key | None = ADMIN) -> dict[str, Any]:
        """Have *what* signed again."""
        return await self._send("POST", f"/repos/{FQRN}/{what}", key, b"")

    async def _send(self, method: str, route: str, key: Key | None, body: bytes) -> dict[str, Any]:
        headers = {} if key is None else {"Authorization": sign(key, body or f"/api/v1{route}".encode())}
        async with self._session.request(method, self._url + route, data=body or None, headers=headers) as response:
            assert response.status == 200
            reply = await response.json()
            assert isinstance(reply, dict)
            return reply
