"""Large object packs over HTTP into a local storage, where processes store them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from cvmfs_gw.gateway.payloads import DIVIDED
from cvmfs_gw.gateway.service import GatewayService
from cvmfs_objstore.hashes import ContentHash
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.objects import ObjectStore
from tests.gateway.support import FQRN, OTHER, Api, pack, until

OK = (200, {"status": "ok"})


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, ObjectStore]:
    return {fqrn: ObjectStore(LocalStorage.create(str(tmp_path / fqrn), durable=False)) for fqrn in (FQRN, OTHER)}


@pytest.fixture
async def ready(api: Api, service: GatewayService) -> Api:
    """The gateway, with its processes at work: they are started when the first large pack comes."""
    assert await api.payload(await api.token(f"{FQRN}/first"), *pack([bytes(DIVIDED)])) == OK
    await until(lambda: service.payloads.processes > 0)
    return api


def objects(seed: int, count: int, size: int) -> list[bytes]:
    source = random.Random(seed)
    return [source.randbytes(size) for _ in range(count)]


def assert_stored(store: ObjectStore, data: list[bytes]) -> None:
    names = {ContentHash.of(piece) for piece in data}
    assert names <= set(store.list())
    for name in names:
        store.verify(name)


async def test_packs_of_all_sizes(ready: Api, stores: dict[str, ObjectStore], service: GatewayService) -> None:
    data = [objects(1, 3000, 2000), objects(2, 40, 200_000), objects(3, 3, 5_000_000)]
    token = await ready.token(f"{FQRN}/a")
    for part in data:
        assert await ready.payload(token, *pack(part)) == OK
        assert_stored(stores[FQRN], part)
    assert len(service.payloads.uploaded(token)) == sum(map(len, data))


async def test_packs_at_the_same_time(ready: Api, stores: dict[str, ObjectStore]) -> None:
    data = [objects(seed, 30, 200_000) for seed in range(6)]
    tokens = [await ready.token(f"{FQRN}/{seed}") for seed in range(6)]
    replies = await asyncio.gather(
        *(ready.payload(token, *pack(part)) for token, part in zip(tokens, data, strict=True))
    )
    assert replies == [OK] * 6
    for part in data:
        assert_stored(stores[FQRN], part)


async def test_a_bad_pack_is_read_to_its_end(ready: Api, stores: dict[str, ObjectStore]) -> None:
    header, body = pack(objects(1, 30, 200_000))
    broken = bytearray(body)
    broken[10] ^= 1
    token = await ready.token(f"{FQRN}/a")
    status, reply = await ready.payload(token, header, bytes(broken))
    assert (status, reply["status"], reply["reason"]) == (200, "error", "other_error")
    assert await ready.payload(token, header, body) == OK
    assert_stored(stores[FQRN], objects(1, 30, 200_000))


async def test_a_publisher_that_goes_away(ready: Api, service: GatewayService, stores: dict[str, ObjectStore]) -> None:
    data = objects(1, 30, 200_000)
    header, body = pack(data)
    token = await ready.token(f"{FQRN}/a")

    async def pieces(head: bytes) -> AsyncIterator[bytes]:
        yield head + header + body[:3_000_000]
        await until(lambda: service.payloads.incoming(token).bytes_added > 1_000_000)
        raise ConnectionResetError

    length = {"Content-Length": str(len(header) + len(body) + 1000)}
    with pytest.raises((ConnectionError, aiohttp.ClientError)):
        await ready.payload(token, header, pieces, headers=length)
    await until(lambda: service.payloads.running == 0)
    assert await ready.payload(token, header, body) == OK
    assert_stored(stores[FQRN], data)
