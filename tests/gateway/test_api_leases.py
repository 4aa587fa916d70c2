from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from cvmfs_gw.gateway.authorization import Key
from cvmfs_gw.gateway.heads import Head, Heads
from cvmfs_gw.gateway.service import GatewayService
from tests.gateway.support import ADMIN, FQRN, KEY, NEW, OTHER, RESTRICTED, STRANGER, UNKNOWN, Api, Clock, FakeEngine


async def test_grant_show_and_cancel(api: Api, clock: Clock) -> None:
    reply = await api.lease(f"{FQRN}/a/b")
    assert reply["status"] == "ok"
    assert reply["max_api_version"] == 2
    assert set(reply) == {"status", "session_token", "max_api_version"}
    token = reply["session_token"]
    assert len(token) == 56
    assert token.endswith("====")

    shown = {
        "key_id": "key1",
        "path": f"{FQRN}/a/b",
        "expires": "2023-11-15 00:13:20 +0000 UTC",
        "hostname": "host.example.org",
    }
    more = {"age": 0, "expires_in": 7200, "state": "open", "uploading": 0, "objects": 0, "bytes": 0}
    assert await api.call("GET", "/leases") == (200, {"status": "ok", "data": {f"{FQRN}/a/b": shown | more}})
    assert await api.call("GET", f"/leases/{token}") == (200, {"data": shown})

    status = await api.call("DELETE", f"/leases/{token}", key=KEY, signed=token.encode())
    assert status == (200, {"status": "ok"})
    assert await api.call("GET", "/leases") == (200, {"status": "ok", "data": {}})
    gone = {"status": "error", "reason": "invalid lease"}
    assert await api.call("GET", f"/leases/{token}") == (500, gone)
    assert await api.call("DELETE", f"/leases/{token}", key=KEY, signed=token.encode()) == (200, gone)


async def test_busy(api: Api, clock: Clock) -> None:
    assert (await api.lease(f"{FQRN}/a/b"))["status"] == "ok"
    clock.advance(2_300)
    for path in ("a", "a/b", "a/b/c", ""):
        busy = {"status": "path_busy", "time_remaining": "1h59m57.7s"}
        assert await api.lease(f"{FQRN}/{path}", key=STRANGER) == busy
    for path in ("a/bc", "a/B", "b"):
        assert (await api.lease(f"{FQRN}/{path}"))["status"] == "ok"
    assert (await api.lease(f"{OTHER}/a/b"))["status"] == "ok"


async def test_expired_lease_makes_room(api: Api, clock: Clock) -> None:
    token = await api.token(f"{FQRN}/a")
    clock.advance(7_200_000)
    assert (await api.call("GET", "/leases"))[1]["data"] == {}
    assert (await api.commit(token))["reason"] == "invalid lease"
    assert (await api.lease(f"{FQRN}/a"))["status"] == "ok"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (f"/{FQRN}/a", "input has leading slash"),
        (FQRN, "missing repository name or subpath"),
        ("", "missing repository name or subpath"),
        ("unknown.example.org/a", "repository not found: unknown.example.org"),
        (f"{FQRN}/a//b", "invalid lease path: doubled or trailing slash"),
        (f"{FQRN}/a/", "invalid lease path: doubled or trailing slash"),
        (f"{FQRN}/a/../b", "invalid lease path: component '..'"),
        (f"{FQRN}/./b", "invalid lease path: component '.'"),
        (f"{FQRN}/a\0b", "invalid lease path: holds a NUL"),
        (f"{FQRN}/{'x' * 256}", "invalid lease path: a component over 255 bytes"),
        (f"{FQRN}/{'x/' * 2500}x", "invalid lease path: over 4096 bytes"),
    ],
)
async def test_weird_paths(api: Api, path: str, reason: str) -> None:
    assert await api.lease(path) == {"status": "error", "reason": reason}
    assert (await api.call("GET", "/leases"))[1]["data"] == {}


async def test_doubled_slash_after_the_name_is_folded(api: Api) -> None:
    assert (await api.lease(f"{FQRN}//a"))["status"] == "ok"
    assert list((await api.call("GET", "/leases"))[1]["data"]) == [f"{FQRN}/a"]


async def test_paths_are_bytes(api: Api) -> None:
    body = b'{"path": "' + FQRN.encode() + b'/caf\xe9", "api_version": "2", "hostname": "h"}'
    assert (await api.call("POST", "/leases", body, key=KEY))[1]["status"] == "ok"
    assert list((await api.call("GET", "/leases"))[1]["data"]) == [f"{FQRN}/caf\ufffd"]
    other = body.replace(b"\xe9", b"\xe8")
    assert (await api.call("POST", "/leases", other, key=KEY))[1]["status"] == "ok"
    assert (await api.call("POST", "/leases", body, key=KEY))[1]["status"] == "path_busy"


async def test_who_may_have_a_lease(api: Api) -> None:
    def refused(word: str) -> dict[str, str]:
        return {"status": "error", "reason": f"authorization error: {word}"}

    assert await api.lease(f"{FQRN}/free", key=RESTRICTED) == refused("invalid_path")
    assert await api.lease(f"{FQRN}/restrictedly", key=RESTRICTED) == refused("invalid_path")
    assert await api.lease(f"{FQRN}/", key=RESTRICTED) == refused("invalid_path")
    assert await api.lease(f"{OTHER}/a", key=STRANGER) == refused("invalid_key")
    assert (await api.lease(f"{FQRN}/restricted/x", key=RESTRICTED))["status"] == "ok"


@pytest.mark.parametrize(
    "header",
    [None, "", "key1", "key1 !!!", "key1 c2hvcnQ=", "key1 a b", "nobody c2hvcnQ=", "key1 " + "A" * 5_000],
)
async def test_bad_signatures(api: Api, header: str | None) -> None:
    body = json.dumps({"path": f"{FQRN}/a", "api_version": "2"}).encode()
    headers = {} if header is None else {"Authorization": header}
    refused = (200, {"status": "error", "reason": "invalid_hmac"})
    assert await api.call("POST", "/leases", body, headers=headers) == refused
    assert await api.call("POST", "/leases/TOKEN", body, headers=headers) == refused
    assert await api.call("DELETE", "/leases/TOKEN", headers=headers) == refused
    assert await api.call("PATCH", "/leases/TOKEN", headers=headers) == refused
    assert await api.call("POST", "/payloads/TOKEN", body, headers={**headers, "Message-Size": "3"}) == refused


async def test_signature_of_something_else(api: Api) -> None:
    body = {"path": f"{FQRN}/a", "api_version": "2"}
    refused = (200, {"status": "error", "reason": "invalid_hmac"})
    assert await api.call("POST", "/leases", body, key=KEY, signed=b"other") == refused
    assert await api.call("POST", "/leases", body, key=UNKNOWN) == refused
    token = await api.token()
    assert await api.call("DELETE", f"/leases/{token}", key=KEY, signed=b"") == refused


@pytest.mark.parametrize(
    ("version", "outcome"),
    [
        ("1", "incompatible request version: 1, min version: 2"),
        ("-3", "incompatible request version: -3, min version: 2"),
        ("2", 2),
        ("3", 3),
        ("4", 4),
        (3, 3),
        ("9999", 4),
    ],
)
async def test_protocol_versions(api: Api, version: str | int, outcome: int | str) -> None:
    reply = await api.lease(f"{FQRN}/a", api_version=version)
    assert reply.get("max_api_version", reply.get("reason")) == outcome


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "invalid request body: Input data was truncated"),
        (b"{", "invalid request body: Input data was truncated"),
        (b"[]", "invalid request body: Expected `object`, got `array`"),
        (b'{"path": 5, "api_version": "2"}', "invalid request body: Expected `str`, got `int` - at `$.path`"),
        (b'{"path": "a/b"}', "invalid request body: Object missing required field `api_version`"),
        (b'{"path": "a/b", "api_version": "two"}', "invalid request body: api_version is not a number"),
        (b'{"path": "a/b", "api_version": ""}', "invalid request body: api_version is not a number"),
    ],
)
async def test_malformed_bodies(api: Api, body: bytes, reason: str) -> None:
    assert await api.call("POST", "/leases", body, key=KEY) == (400, {"status": "error", "reason": reason})


async def test_garbage_that_is_no_text(api: Api) -> None:
    for body in (b"\xff\xfe", b'{"path": "\xff', b'{"path": "\xff", "api_version": []}', b"[" * 100_000 + b"\xff"):
        status, reply = await api.call("POST", "/leases", body, key=KEY)
        assert status == 400
        assert reply["reason"].startswith("invalid request body")


async def test_unknown_fields_are_ignored(api: Api) -> None:
    assert (await api.lease(f"{FQRN}/a", novelty={"x": [1]}))["status"] == "ok"


async def test_old_publishers_do_not_say_their_host(api: Api) -> None:
    body = {"path": f"{FQRN}/a", "api_version": "2"}
    await api.call("POST", "/leases", body, key=KEY)
    shown = (await api.call("GET", "/leases"))[1]["data"][f"{FQRN}/a"]
    assert shown["hostname"].startswith("127.0.0.1:")


async def test_long_host_names_are_cut(api: Api) -> None:
    await api.lease(f"{FQRN}/a", hostname="h" * 10_000)
    assert (await api.call("GET", "/leases"))[1]["data"][f"{FQRN}/a"]["hostname"] == "h" * 255


async def test_large_bodies_are_refused(api: Api) -> None:
    async def pieces() -> object:
        for _ in range(20):
            yield b" " * 100_000

    refused = (413, {"status": "error", "reason": "request body too large"})
    assert await api.call("POST", "/leases", b" " * (1 << 20) + b"{}", key=KEY) == refused
    assert await api.call("POST", "/leases", pieces(), key=KEY, signed=b"") == refused


async def test_renewal(api: Api, clock: Clock) -> None:
    token = await api.token()
    clock.advance(3_600_000)

    async def renew(body: Any, key: Key = KEY) -> tuple[int, dict[str, Any]]:
        return await api.call("PATCH", f"/leases/{token}", body, key=key, signed=token.encode())

    def until(text: str) -> tuple[int, dict[str, object]]:
        return 200, {"status": "ok", "data": {"expires": text}}

    assert await renew(None) == until("2023-11-15 01:13:20 +0000 UTC")
    assert await renew({"expires_in_sec": 60}) == until("2023-11-14 23:14:20 +0000 UTC")
    assert await renew({}) == until("2023-11-15 01:13:20 +0000 UTC")
    assert await renew({"expires_in_sec": 10**9}) == until("2023-11-15 01:13:20 +0000 UTC")
    for bad in ({"expires_in_sec": 0}, {"expires_in_sec": "60"}, b"nonsense"):
        assert (await renew(bad))[0] == 400
    assert (await renew(None, STRANGER))[1]["reason"] == "authorization error: invalid_key"
    assert (await renew(None, ADMIN))[1]["status"] == "ok"
    clock.advance(8_000_000)
    assert (await renew(None))[1]["reason"] == "invalid lease"


async def test_put_says_that_there_is_none(api: Api) -> None:
    status, reply = await api.call("PUT", "/leases/TOKEN", b"")
    assert (status, reply) == (405, {"status": "error", "reason": "method not allowed"})


async def test_leases_belong_to_their_key(api: Api) -> None:
    token = await api.token()
    refused = {"status": "error", "reason": "authorization error: invalid_key"}
    assert await api.call("DELETE", f"/leases/{token}", key=STRANGER, signed=token.encode()) == (200, refused)
    assert await api.commit(token, key=STRANGER) == refused
    assert (await api.call("DELETE", f"/leases/{token}", key=ADMIN, signed=token.encode()))[1] == {"status": "ok"}


async def test_expired_leases_can_be_dropped(api: Api, clock: Clock) -> None:
    token = await api.token()
    clock.advance(10_000_000)
    assert (await api.call("DELETE", f"/leases/{token}", key=KEY, signed=token.encode()))[1] == {"status": "ok"}


async def test_cancel_by_path(api: Api) -> None:
    for path in ("a/b", "a/c", "ab", "z"):
        await api.token(f"{FQRN}/{path}")
    await api.token(f"{OTHER}/a")

    async def cancel(path: str, decoded: str | None = None) -> tuple[int, dict[str, object]]:
        signed = f"/api/v1/leases-by-path/{path if decoded is None else decoded}".encode()
        return await api.call("DELETE", f"/leases-by-path/{path}", key=ADMIN, signed=signed)

    async def left() -> list[str]:
        return sorted((await api.call("GET", "/leases"))[1]["data"])

    assert await cancel(f"{FQRN}/a") == (200, {"status": "ok"})
    assert await left() == [f"{OTHER}/a", f"{FQRN}/ab", f"{FQRN}/z"]
    assert await cancel(f"{FQRN}/none") == (200, {"status": "ok"})
    assert await cancel(f"{FQRN}/") == (200, {"status": "ok"})
    assert await left() == [f"{OTHER}/a"]
    assert (await cancel("unknown.example.org/a"))[1]["reason"] == "invalid_repo"
    assert (await cancel(FQRN))[1]["reason"] == "missing repository name or subpath"
    assert await cancel("") == (400, {"status": "error", "reason": "missing path argument"})

    await api.token(f"{FQRN}/with space/ü")
    assert await cancel(f"{FQRN}/with%20space", f"{FQRN}/with space") == (200, {"status": "ok"})
    await api.token(f"{FQRN}/one\ntwo")
    assert await cancel(f"{FQRN}/one%0Atwo", f"{FQRN}/one\ntwo") == (200, {"status": "ok"})
    assert await left() == [f"{OTHER}/a"]


async def test_cancel_by_path_is_for_administrators(api: Api) -> None:
    path = f"/leases-by-path/{FQRN}/a"
    signed = f"/api/v1{path}".encode()

    async def reason(**how: object) -> object:
        return (await api.call("DELETE", path, **how))[1]["reason"]  # type: ignore[arg-type]

    assert await reason() == "invalid_authorization_header"
    assert await reason(headers={"Authorization": "what"}) == "invalid_authorization_header"
    assert await reason(key=UNKNOWN, signed=signed) == "invalid_key"
    assert await reason(key=KEY, signed=signed) == "no_admin_key"
    assert await reason(key=ADMIN, signed=b"other") == "invalid_hmac"


async def test_head_in_lease_replies(api: Api, service: GatewayService) -> None:
    heads: dict[str, Head] = {FQRN: Head(7, NEW)}
    service.repositories.heads = Heads(heads.__getitem__)
    reply = await api.lease(f"{FQRN}/a")
    assert (reply["revision"], reply["root_hash"]) == (7, NEW.bare)
    heads[FQRN] = Head(2**31, NEW)
    service.repositories.heads.moved(FQRN)
    assert "revision" not in await api.lease(f"{FQRN}/b")
    assert (await api.lease(f"{OTHER}/c"))["status"] == "ok"


async def test_a_lease_after_a_commit_has_the_new_head(api: Api, service: GatewayService, engine: FakeEngine) -> None:
    service.repositories.heads = Heads(lambda fqrn: Head(len(engine.requests), NEW))
    for revision in range(5):
        reply = await api.lease(f"{FQRN}/a")
        assert reply["revision"] == revision
        await api.commit(reply["session_token"])


async def test_listing_and_leasing_do_not_wait_for_commits(api: Api, engine: FakeEngine) -> None:
    engine.gate = threading.Event()
    token = await api.token(f"{FQRN}/a")
    commit = asyncio.create_task(api.commit(token))
    await engine.entered()
    assert f"{FQRN}/a" in (await api.call("GET", "/leases"))[1]["data"]
    assert (await api.lease(f"{FQRN}/b"))["status"] == "ok"
    assert (await api.lease(f"{FQRN}/a"))["status"] == "path_busy"
    gone = await api.call("DELETE", f"/leases/{token}", key=KEY, signed=token.encode())
    assert gone[1]["reason"] == "commit in progress"
    engine.gate.set()
    assert (await commit)["status"] == "ok"


async def test_lease_below_something_that_is_no_directory(api: Api, engine: FakeEngine) -> None:
    engine.not_leasable.add("/a/file/x")
    reply = await api.lease(f"{FQRN}/a/file/x")
    assert (reply["status"], reply["reason"]) == ("error", "path_violation")
    assert (await api.lease(f"{FQRN}/a/file"))["status"] == "ok"
