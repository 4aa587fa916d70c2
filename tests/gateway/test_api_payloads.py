from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cvmfs_gw.gateway.authorization import sign
from cvmfs_gw.gateway.errors import BadPack
from cvmfs_gw.gateway.payloads import MAX_OF_KEY, MAX_UPLOADS, RecentUploads
from cvmfs_gw.gateway.service import GatewayService
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from cvmfs_objstore.objects import ObjectStore
from tests.gateway.support import ADMIN, FQRN, KEY, STRANGER, UNKNOWN, Api, Clock, digest_of, pack, until

Stores = dict[str, ObjectStore]
OK = (200, {"status": "ok"})


def objects(count: int, size: int) -> list[bytes]:
    source = random.Random(f"{count} {size}")
    return [source.randbytes(size) for _ in range(count)]


def stored(stores: Stores) -> set[ContentHash]:
    return set(stores[FQRN].list())


def names(data: list[bytes]) -> set[ContentHash]:
    return {ContentHash.of(piece) for piece in data}


@pytest.mark.parametrize("in_url", [False, True])
@pytest.mark.parametrize(("count", "size"), [(0, 0), (1, 0), (1, 1), (300, 2_000), (5, 1 << 20), (3, 3_000_000)])
async def test_packs_are_stored(api: Api, stores: Stores, in_url: bool, count: int, size: int) -> None:
    data = objects(count, size)
    token = await api.token()
    assert await api.payload(token, *pack(data), in_url=in_url) == OK
    assert stored(stores) == names(data)
    for name in stored(stores):
        stores[FQRN].verify(name)


async def test_suffixes_and_algorithms(api: Api, stores: Stores) -> None:
    name = ContentHash.of(b"data", Algorithm.SHAKE128, Suffix.CATALOG)
    header = f"V2\nS4\nN1\n--\nC {name} 4\n".encode()
    assert await api.payload(await api.token(), header, b"data") == OK
    assert stored(stores) == {name}


async def test_what_exists_is_no_error(api: Api, stores: Stores) -> None:
    data = objects(3, 100) + objects(1, 2_000_000)
    token = await api.token()
    for _ in range(2):
        assert await api.payload(token, *pack(data)) == OK
    assert stored(stores) == names(data)


async def test_streamed_in_odd_pieces(api: Api, stores: Stores) -> None:
    data = [*objects(50, 3_000), *objects(1, 1_500_000), *objects(50, 10)]
    header, body = pack(data)

    async def pieces(head: bytes) -> AsyncIterator[bytes]:
        whole = head + header + body
        position, source = 0, random.Random(1)
        while position < len(whole):
            size = source.choice((1, 7, 1_000, 100_000))
            yield whole[position : position + size]
            position += size

    assert await api.payload(await api.token(), header, pieces) == OK
    assert stored(stores) == names(data)


async def test_statistics_reach_the_commit(api: Api, engine: Any) -> None:
    token = await api.token()
    await api.payload(token, *pack([b"a", b"bb"]))
    await api.payload(token, *pack([b"bb", b"ccc"]))
    await api.payload(token, *pack([b"catalog"], Suffix.CATALOG))
    await api.commit(token)
    uploads = engine.requests[0].uploads
    assert (uploads.objects_added, uploads.objects_duplicated, uploads.bytes_added) == (4, 1, 13)
    assert (uploads.catalogs_added, uploads.catalog_bytes_added) == (1, 7)


async def test_what_was_uploaded_reaches_the_commit(api: Api, engine: Any, service: GatewayService) -> None:
    """As far as it is remembered, and of this lease alone."""
    other, token = await api.token(f"{FQRN}/b"), await api.token()
    await api.payload(other, *pack([b"another's"]))
    await api.payload(token, *pack([b"a", b"bb"]))
    await api.payload(token, *pack([b"bb", b"chunk"], Suffix.CHUNK))
    await api.commit(token)
    uploaded = engine.requests[0].uploaded
    assert uploaded.digests(Algorithm.SHA1) == {ContentHash.of(data).digest for data in (b"a", b"bb")}
    assert uploaded.digests(Algorithm.SHA1, Suffix.CHUNK) == {ContentHash.of(data).digest for data in (b"bb", b"chunk")}
    assert not uploaded.digests(Algorithm.RMD160)


def test_uploads_that_are_remembered() -> None:
    recent = RecentUploads(10)
    for token in ("first", "second"):
        uploaded = recent.begin(token)
        for number in range(4):
            uploaded.add(ContentHash.of(b"%d" % number))
    recent.begin("first")
    assert [len(recent.get(token)) for token in ("first", "second", "third")] == [4, 4, 0]
    recent.begin("third").add(ContentHash.of(b"x"))  # the second has sent nothing for longest
    assert [len(recent.get(token)) for token in ("first", "second", "third")] == [4, 0, 1]
    for number in range(30):
        recent.begin("third").add(ContentHash.of(b"%d" % number))
    assert [len(recent.get(token)) for token in ("first", "third")] == [0, 10]


# --- bad packs ------------------------------------------------------------------------------------------------


def _corrupted() -> dict[str, tuple[bytes, bytes]]:
    data = objects(3, 1000)
    header, body = pack(data)
    name = ContentHash.of(data[0])
    large = objects(1, 2_000_000)
    large_header, large_body = pack(large)
    return {
        "truncated": (header, body[:-1]),
        "truncated to nothing": (header, b""),
        "oversized": (header, body + b"x"),
        "bad byte": (header, body[:500] + b"!" + body[501:]),
        "bad byte in a large object": (large_header, large_body[:-1] + b"!"),
        "truncated large object": (large_header, large_body[:-1]),
        "no header": (b"nonsense", b""),
        "version 1": (header.replace(b"V2", b"V1"), body),
        "wrong count": (header.replace(b"N3", b"N2"), body),
        "wrong sum": (header.replace(b"S3000", b"S3001"), body),
        "endless": (header.replace(b"S3000", b"S99999999999999999999"), body),
        "negative": (header.replace(b" 1000\n", b" -1\n"), body),
        "named file": (b"V2\nS4\nN1\n--\nN " + str(name).encode() + b" 4 Li4vLi4vZXRjL3Bhc3N3ZA==\n", b"root"),
        "path for a hash": (b"V2\nS4\nN1\n--\nC ../../../etc/passwd 4\n", b"root"),
        "unknown suffix": (b"V2\nS4\nN1\n--\nC " + str(name).encode() + b"Z 4\n", b"root"),
    }


@pytest.mark.parametrize("what", _corrupted())
async def test_bad_packs(api: Api, stores: Stores, what: str) -> None:
    header, body = _corrupted()[what]
    token = await api.token()
    status, reply = await api.payload(token, header, body)
    assert (status, reply["status"], reply["reason"]) == (200, "error", "other_error")
    assert reply["detail"]
    good = objects(3, 1000)
    assert stored(stores) <= names(good)
    # the lease is as good as before
    assert await api.payload(token, *pack(good)) == OK
    assert stored(stores) == names(good)
    assert (await api.commit(token))["status"] == "ok"


async def test_announcements_that_are_wrong(api: Api, stores: Stores) -> None:
    header, body = pack(objects(3, 1000))
    token = await api.token()
    wrong: list[dict[str, object]] = [
        {"payload_digest": digest_of(b"other")},
        {"payload_digest": "no hash"},
        {"header_size": str(len(header) + 1)},
        {"header_size": str(len(header) - 1)},
        {"header_size": "0"},
        {"header_size": "-1"},
        {"header_size": "10000001"},
    ]
    for fields in wrong:
        status, reply = await api.payload(token, header, body, fields=fields)
        assert (status, reply["reason"]) == (200, "other_error")
    malformed: list[dict[str, object]] = [
        {"header_size": "many"},
        {"header_size": "9" * 30},
        {"payload_digest": 5},
        {"header_size": None},
    ]
    for fields in malformed:
        assert (await api.payload(token, header, body, fields=fields))[0] == 400
    assert not stored(stores)


async def test_packs_over_the_limit(api: Api, service: GatewayService, stores: Stores) -> None:
    service.payloads._max_size = 2_999
    status, reply = await api.payload(await api.token(), *pack(objects(3, 1000)))
    assert (status, reply["reason"]) == (200, "other_error")
    assert "at most 2999" in reply["detail"]
    assert not stored(stores)


@pytest.mark.parametrize("size", [None, "", "x", "-1", "1.5", "1e3", "²", "0x10", "65537", "9" * 40, " "])
async def test_bad_message_size(api: Api, size: str | None) -> None:
    headers = {} if size is None else {"Message-Size": size.encode().decode("latin-1")}
    body = b"x" * 300_000
    status, reply = await api.call("POST", "/payloads", body, key=KEY, headers=headers)
    assert (status, reply["status"]) == (400, "error")
    assert "message-size" in reply["reason"]


async def test_message_size_beyond_the_body(api: Api) -> None:
    status, reply = await api.call("POST", "/payloads", b"{}", key=KEY, headers={"Message-Size": "3"})
    assert (status, reply["reason"]) == (400, "invalid request body: shorter than message-size")


async def test_message_size_that_cuts_the_head(api: Api) -> None:
    header, body = pack([b"x"])
    token = await api.token()
    assert (await api.payload(token, header, body, headers={"Message-Size": "10"}))[1]["reason"] == "invalid_hmac"
    head = json.dumps({"payload_digest": "x", "header_size": "1"}).encode()[:10]
    status, _ = await api.call(
        "POST", "/payloads", head, key=KEY, signed=head, headers={"Message-Size": str(len(head))}
    )
    assert status == 400


# --- who may ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_url", [False, True])
async def test_keys_and_tokens(api: Api, stores: Stores, clock: Clock, in_url: bool) -> None:
    header, body = pack(objects(20, 100_000))  # more than sockets hold
    token = await api.token()

    async def reason(token: str, key: Any) -> object:
        return (await api.payload(token, header, body, key, in_url=in_url))[1]["reason"]

    assert await reason(token, UNKNOWN) == "invalid_hmac"
    assert await reason(token, STRANGER) == "authorization error: invalid_key"
    assert await reason("NOTOKEN", KEY) == "invalid lease"
    assert await reason("X" * 1000, KEY) == "invalid lease"
    clock.advance(7_200_000)
    assert await reason(token, KEY) == "invalid lease"
    assert not stored(stores)
    assert await api.payload(await api.token(), header, body, ADMIN, in_url=in_url) == OK


async def test_wrong_signature_of_the_head(api: Api, stores: Stores) -> None:
    token = await api.token()
    header, body = pack([b"x"])
    forged = {"Authorization": sign(KEY, b"another head")}
    assert (await api.payload(token, header, body, headers=forged))[1]["reason"] == "invalid_hmac"
    assert not stored(stores)


# --- leases and payloads --------------------------------------------------------------------------------------


async def test_a_lease_that_expires_during_its_upload(api: Api, clock: Clock, stores: Stores) -> None:
    token = await api.token(f"{FQRN}/a")
    data = objects(2, 2_000_000)
    header, body = pack(data)
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(head: bytes) -> AsyncIterator[bytes]:
        yield head + header + body[:-100]
        under_way.set()
        await go_on.wait()
        yield body[-100:]

    upload = asyncio.create_task(api.payload(token, header, slowly))
    await under_way.wait()
    await until(lambda: stored(stores))
    clock.advance(8_000_000)
    assert (await api.lease(f"{FQRN}/a"))["status"] == "path_busy"
    go_on.set()
    assert await upload == OK
    assert stored(stores) == names(data)
    assert (await api.commit(token))["status"] == "ok"


async def test_a_publisher_that_goes_away(api: Api, stores: Stores, service: GatewayService) -> None:
    token = await api.token()
    data = objects(3, 2_000_000)
    header, body = pack(data)
    head = json.dumps(
        {"session_token": token, "payload_digest": digest_of(header), "header_size": str(len(header))}
    ).encode()
    host, port = api.url.split("/")[2].split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    request = (
        f"POST /api/v1/payloads HTTP/1.1\r\nHost: x\r\nAuthorization: {sign(KEY, head)}\r\n"
        f"Message-Size: {len(head)}\r\nContent-Length: {len(head) + len(header) + len(body)}\r\n\r\n"
    )
    writer.write(request.encode() + head + header + body[:5_000_000])
    await writer.drain()
    await until(lambda: len(stored(stores)) == 2)
    writer.transport.abort()
    entry = service._book._entries[token]
    await until(lambda: not entry.running)
    assert len(stored(stores)) == 2
    assert await api.payload(token, header, body) == OK
    assert stored(stores) == names(data)


async def test_a_storage_that_refuses(api: Api, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, data: bytes) -> bool:
        raise OSError(28, "No space left on device")

    token = await api.token()
    with monkeypatch.context() as patch:
        patch.setattr(stores[FQRN].storage, "put", full)
        status, reply = await api.payload(token, *pack(objects(200, 10_000)))
        assert (status, reply["reason"], reply["detail"]) == (200, "uploader_error", "No space left on device")
    assert await api.payload(token, *pack(objects(200, 10_000))) == OK


async def test_parallel_uploads(api: Api, stores: Stores) -> None:
    token = await api.token()
    packs = [objects(200, 1_000 + n) for n in range(12)]
    assert await asyncio.gather(*(api.payload(token, *pack(data)) for data in packs)) == [OK] * 12
    assert stored(stores) == {name for data in packs for name in names(data)}


async def test_expect_100_continue(api: Api) -> None:
    token = await api.token()
    header, body = pack(objects(1, 100))
    assert await api.payload(token, header, body, headers={"Expect": "100-continue"}) == OK


async def test_one_key_does_not_take_all_the_room(api: Api, service: GatewayService) -> None:
    """Somebody who sends as many packs as they can, and none of them to its end, is in nobody's way."""
    token, other = await api.token(), await api.token(f"{FQRN}/b", STRANGER)
    end = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        await end.wait()
        yield b""

    def send() -> Any:
        return service.payloads.receive(token, KEY, digest="0" * 40, header_size=1000, chunks=slow())

    packs = [asyncio.create_task(send()) for _ in range(MAX_UPLOADS)]
    await until(lambda: service.payloads.running == MAX_OF_KEY)
    assert await api.payload(other, *pack([b"data"]), key=STRANGER) == OK
    end.set()
    failed = await asyncio.gather(*packs, return_exceptions=True)
    assert {type(error) for error in failed} == {BadPack}
