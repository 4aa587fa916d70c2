"""Senders who do not say who they are: they are in nobody's way."""

from __future__ import annotations

import asyncio

import pytest

from cvmfs_gw.api import observe, running
from cvmfs_gw.gateway.service import GatewayService
from tests.gateway.support import Api, until
from tests.gateway.test_api_http import Pieces, address

SILENT = b"POST /api/v1/payloads HTTP/1.1\r\nHost: x\r\nMessage-Size: 100\r\nContent-Length: 1000\r\n\r\n{"


async def silent(api: Api) -> tuple[asyncio.WriteTransport, Pieces]:
    """Somebody who announces a payload and sends none of it."""
    transport, pieces = await asyncio.get_running_loop().create_connection(Pieces, *address(api))
    transport.write(SILENT)
    return transport, pieces


async def answered(pieces: Pieces) -> bytes:
    async with asyncio.timeout(20):
        return await pieces.pieces.get()


async def test_those_who_only_wait_are_not_being_answered(
    api: Api, service: GatewayService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "MAX_RUNNING", 2)
    senders = [await silent(api) for _ in range(5)]
    assert (await api.call("GET", "/leases"))[0] == 200
    for transport, _ in senders:
        transport.close()


async def test_of_too_many_the_one_that_has_waited_longest_is_given_up(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "MAX_STRANGERS", 3)
    senders = []
    for _ in range(5):
        senders.append(await silent(api))
        if len(senders) > 3:
            assert b"the publisher stopped sending" in await answered(senders[len(senders) - 4][1])
    assert all(pieces.pieces.empty() for _, pieces in senders[2:])
    assert (await api.lease("test.example.org/a"))["status"] == "ok"
    for transport, _ in senders:
        transport.close()


async def test_patience_ends(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with somebody who is refused and goes on sending a little now and then."""
    monkeypatch.setattr("cvmfs_gw.api.bodies.PATIENCE_S", 0.05)
    transport, pieces = await silent(api)
    transport.write(b" " * 98 + b"}")
    assert b"invalid_hmac" in await answered(pieces)
    await until(pieces.closed.is_set)
    transport.close()
