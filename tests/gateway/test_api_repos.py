from __future__ import annotations

import asyncio
import base64
import threading

import pytest

from cvmfs_gw.gateway.config import Config
from cvmfs_gw.gateway.errors import ConfigError
from cvmfs_gw.gateway.service import GatewayService
from cvmfs_gw.paths import SystemPaths
from tests.gateway.support import (
    ADMIN,
    FQRN,
    KEY,
    OTHER,
    REPO_JSON,
    UNKNOWN,
    Api,
    FakeEngine,
    until,
    write,
    write_access,
)

KEYS = {"key1": "/", "key2": "/restricted", "key3": "/"}
UNKNOWN_REPOSITORY = (200, {"status": "error", "reason": "invalid_repo"})


async def test_welcome(api: Api) -> None:
    for path in ("", "/"):
        status, reply = await api.call("GET", path)
        assert status == 200
        assert list(reply) == ["welcome"]


async def test_list_and_get(api: Api) -> None:
    data = {FQRN: {"keys": KEYS, "enabled": True}, OTHER: {"keys": {"key1": "/"}, "enabled": True}}
    assert await api.call("GET", "/repos") == (200, {"status": "ok", "data": data})
    assert await api.call("GET", f"/repos/{FQRN}") == (200, {"status": "ok", "data": data[FQRN]})
    assert await api.call("GET", "/repos/unknown.example.org") == UNKNOWN_REPOSITORY


async def test_disable_and_enable(api: Api) -> None:
    token = await api.token(f"{FQRN}/a")
    assert await api.call("POST", f"/repos/{FQRN}", {"enable": False}, key=ADMIN) == (200, {"status": "ok"})
    assert (await api.call("GET", f"/repos/{FQRN}"))[1]["data"]["enabled"] is False
    assert await api.lease(f"{FQRN}/b") == {"status": "error", "reason": "repo_disabled"}
    assert (await api.lease(f"{OTHER}/b"))["status"] == "ok"
    assert (await api.commit(token))["status"] == "ok"
    assert (await api.call("POST", f"/repos/{FQRN}", {"enable": True}, key=ADMIN))[1] == {"status": "ok"}
    assert (await api.lease(f"{FQRN}/b"))["status"] == "ok"


async def test_disable_during_a_commit(api: Api, service: GatewayService, engine: FakeEngine) -> None:
    engine.gate = threading.Event()
    commit = asyncio.create_task(api.commit(await api.token(f"{FQRN}/a")))
    await engine.entered()
    busy = await api.call("POST", f"/repos/{FQRN}", {"enable": False, "wait": False}, key=ADMIN)
    assert busy == (200, {"status": "repo_busy"})
    assert (await api.call("GET", f"/repos/{FQRN}"))[1]["data"]["enabled"] is True
    waiting = asyncio.create_task(api.call("POST", f"/repos/{FQRN}", {"enable": False, "wait": True}, key=ADMIN))
    await until(lambda: not service.repositories.get(FQRN).enabled)
    assert not waiting.done()
    engine.gate.set()
    assert await waiting == (200, {"status": "ok"})
    assert (await commit)["status"] == "ok"


async def test_who_may_disable(api: Api) -> None:
    async def reason(body: object, **how: object) -> object:
        return (await api.call("POST", f"/repos/{FQRN}", body, **how))[1]["reason"]  # type: ignore[arg-type]

    body = {"enable": False}
    assert await reason(body) == "invalid_authorization_header"
    assert await reason(body, key=UNKNOWN) == "invalid_key"
    assert await reason(body, key=KEY) == "no_admin_key"
    assert await reason(body, key=ADMIN, signed=b"") == "invalid_hmac"
    assert await reason({"enable": "no"}, key=ADMIN) == (
        "invalid request body: Expected `bool`, got `str` - at `$.enable`"
    )
    assert await api.call("POST", "/repos/unknown.example.org", body, key=ADMIN) == UNKNOWN_REPOSITORY


async def test_keys_are_off(api: Api) -> None:
    path = f"/repos/{FQRN}/keys"
    signed = f"/api/v1{path}".encode()
    assert (await api.call("GET", path))[1]["reason"] == "invalid_hmac"
    assert (await api.call("GET", path, key=KEY, signed=signed))[1]["reason"] == "key_endpoint_disabled"


class TestKeysOn:
    @pytest.fixture
    def config(self, paths: SystemPaths) -> Config:
        write(paths.user_config, {"enable_key_endpoint": True})
        return Config.load(paths)

    async def test_keys(self, api: Api, paths: SystemPaths) -> None:
        async def get(fqrn: str) -> dict[str, object]:
            path = f"/repos/{fqrn}/keys"
            return (await api.call("GET", path, key=KEY, signed=f"/api/v1{path}".encode()))[1]

        assert (await get("unknown.example.org"))["reason"] == "invalid_repo"
        assert (await get(FQRN))["reason"] == "public_key_not_found"
        write(paths.key_file(FQRN, "pub"), "public")
        assert (await get(FQRN))["reason"] == "certificate_not_found"
        write(paths.key_file(FQRN, "crt"), "certificate")
        data = {"pub": base64.b64encode(b"public").decode(), "crt": base64.b64encode(b"certificate").decode()}
        assert await get(FQRN) == {"status": "ok", "data": data}


async def test_reload(api: Api, service: GatewayService, paths: SystemPaths) -> None:
    await api.call("POST", f"/repos/{FQRN}", {"enable": False}, key=ADMIN)
    write(paths.access_config, "{broken")
    with pytest.raises(ConfigError):
        await service.reload()
    assert (await api.lease(f"{OTHER}/x"))["status"] == "ok"

    third = {"domain": "third.example.org", "keys": [{"id": "key1", "path": "/"}]}
    write_access(paths, {**REPO_JSON, "repos": [REPO_JSON["repos"][0], third]})
    await service.reload()
    listed = (await api.call("GET", "/repos"))[1]["data"]
    assert {name: view["enabled"] for name, view in listed.items()} == {FQRN: False, "third.example.org": True}
    assert (await api.lease("third.example.org/x"))["status"] == "ok"


async def test_gc_is_not_available(api: Api) -> None:
    body = {"repo": FQRN, "num_revisions": 3, "timestamp": "0001-01-01T00:00:00Z", "dry_run": True, "verbose": False}
    reason = "garbage collection is not available"
    assert await api.call("POST", "/gc", body, key=ADMIN) == (200, {"status": "error", "reason": reason})
    assert await api.call("POST", "/gc", {"repo": "unknown"}, key=ADMIN) == UNKNOWN_REPOSITORY
    assert (await api.call("POST", "/gc", body, key=KEY))[1]["reason"] == "no_admin_key"
    assert (await api.call("POST", "/gc", {}, key=ADMIN))[0] == 400
