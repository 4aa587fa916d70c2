"""Asking which objects need not be sent."""

from __future__ import annotations

from typing import Any

import pytest

from cvmfs_gw.gateway.authorization import Key
from cvmfs_gw.gateway.protocol import MAX_ASKED
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from cvmfs_objstore.objects import ObjectStore
from tests.gateway.support import FQRN, KEY, STRANGER, UNKNOWN, Api

HERE, CHUNK, GONE = ContentHash.of(b"here"), ContentHash.of(b"here", suffix=Suffix.CHUNK), ContentHash.of(b"gone")
OTHER = ContentHash.of(b"here", Algorithm.SHAKE128)


async def ask(api: Api, token: str, objects: Any, key: Key = KEY, signed: bytes | None = None) -> tuple[int, Any]:
    return await api.call("POST", f"/objects/{token}", {"objects": objects}, key=key, signed=signed)


async def test_missing(api: Api, stores: dict[str, ObjectStore]) -> None:
    """By name and size: one that was cut off is missing, too."""
    stores[FQRN].put(HERE, b"here")
    token = await api.token()
    asked = {str(HERE): 4, str(CHUNK): 4, str(GONE): 4, str(OTHER): 4}
    status, answer = await ask(api, token, asked)
    assert (status, answer) == (200, {"status": "ok", "missing": [str(CHUNK), str(GONE), str(OTHER)]})
    assert (await ask(api, token, {str(HERE): 3}))[1]["missing"] == [str(HERE)]
    assert (await ask(api, token, {}))[1]["missing"] == []


async def test_who_may_ask(api: Api) -> None:
    token = await api.token()
    for key, signed, reason in (
        (UNKNOWN, None, "invalid_hmac"),
        (KEY, token.encode(), "invalid_hmac"),
        (STRANGER, None, "invalid_key"),
    ):
        status, answer = await ask(api, token, {}, key, signed)
        assert (status, answer["status"]) == (200, "error")
        assert reason in answer["reason"]
    assert (await ask(api, "nothing", {}))[1]["reason"] == "invalid lease"


@pytest.mark.parametrize(
    "objects",
    [[], {"x": 1}, {str(HERE): -1}, {str(HERE): "4"}, {f"{number:040x}": 1 for number in range(MAX_ASKED + 1)}],
)
async def test_what_makes_no_sense(api: Api, objects: Any) -> None:
    status, answer = await ask(api, await api.token(), objects)
    assert (status, answer["status"]) == (400, "error")
