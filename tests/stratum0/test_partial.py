"""Uploads in several requests: begun, broken off, continued, completed, given up."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cvmfs_gw.client.keys import read_key_file
from cvmfs_gw.gateway.authorization import Key
from cvmfs_gw.stratum0 import partial
from cvmfs_gw.stratum0.settings import RepositorySettings
from tests.engine.repositories import FQRN
from tests.gateway.support import until
from tests.stratum0.conftest import Start
from tests.stratum0.support import ALL, BUILDS, READER, Server, checked, write_settings

MORE, LAST = {"Upload-Complete": "?0"}, {"Upload-Complete": "?1"}


async def begin(server: Server, path: str, data: bytes = b"", **options: Any) -> str:
    """Begin an upload; returns its path below the repository's URL."""
    headers = {**MORE, **options.pop("headers", {})}
    status, reply = await server.call("PUT", f"files/{path}", data, headers=headers, **options)
    assert status == 201, reply
    assert server.headers["Location"] == reply["upload"]
    assert int(server.headers["Upload-Offset"]) == len(data) == reply["offset"]
    return str(reply["upload"]).partition(f"/repos/{FQRN}/")[2]


async def send(server: Server, upload: str, offset: int, data: Any, *, last: bool = False, **options: Any) -> Any:
    headers = {"Upload-Offset": str(offset), **(LAST if last else MORE), **options.pop("headers", {})}
    return await server.call("PATCH", upload, data, headers=headers, **options)


async def offset_of(server: Server, upload: str) -> int:
    status, _ = await server.call("HEAD", upload)
    assert (status, server.headers["Upload-Complete"]) == (200, "?0")
    return int(server.headers["Upload-Offset"])


def kept(server: Server) -> list[str]:
    """The files of incomplete uploads."""
    folder = Path(server.paths.repository_spool(FQRN)) / "partial"
    return sorted(os.listdir(folder)) if folder.exists() else []


@pytest.mark.parametrize("first", [b"", b"begun, "])
@pytest.mark.parametrize("size", [0, 10, 3_000_000])
async def test_in_parts(server: Server, first: bytes, size: int) -> None:
    """Nothing is to be seen before the last part, and then what was wanted at the beginning."""
    data = os.urandom(size)
    upload = await begin(server, "a/big?mode=0600&ttl_s=100", first)
    at = len(first)
    for part in (data[: size // 2], data[size // 2 :]):
        status, reply = await send(server, upload, at, part)
        at += len(part)
        assert (status, reply) == (200, {"status": "ok", "offset": at})
        assert await offset_of(server, upload) == at
    assert await server.names() == []
    status, reply = await send(server, upload, at, b"end", last=True)
    assert (status, reply["path"], reply["created"]) == (201, "/a/big", True)
    assert reply["expires"] == int(server.time.wall_s) + 100
    assert await server.call("GET", "files/a/big") == (200, first + data + b"end")
    assert kept(server) == []
    assert (await server.call("HEAD", upload))[0] == 404
    checked(server.repository, server.time.wall_s)


async def test_a_request_that_says_it_is_complete_is_one_upload(server: Server) -> None:
    assert (await server.put("f", b"data", headers=LAST))[0] == 201
    assert (await server.put("g", b"data", headers={"Upload-Complete": "yes"}))[0] == 400
    assert kept(server) == []


async def test_nobody_knows_of_one_that_broke_off_at_its_beginning(server: Server) -> None:
    """So nothing is kept of it."""
    wrong = {**MORE, "X-Content-SHA256": "0" * 64}
    assert (await server.call("PUT", "files/f", b"data", headers=wrong))[0] == 422
    assert kept(server) == []


async def test_only_at_the_end(server: Server) -> None:
    upload = await begin(server, "f", b"0123")
    assert (await server.call("PATCH", upload, b"x", headers={"Upload-Offset": "4"}))[0] == 400
    for offset in ("3", "5", "", "-4", "4 ", "9" * 30):
        status, reply = await send(server, upload, 0, b"x", headers={"Upload-Offset": offset})
        if offset.strip() == "4":
            assert status == 200
        elif offset in ("3", "5"):
            assert (status, reply["reason"], server.headers["Upload-Offset"]) == (409, "offset mismatch", "4")
        else:
            assert status == 400
    assert await offset_of(server, upload) == 5


async def test_a_connection_that_breaks(server: Server) -> None:
    """What has arrived stays, and whoever asks where to go on does not wait for those who are gone."""
    upload, data = await begin(server, "f"), os.urandom(5_000_000)
    stuck = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, 3_000_000, 100_000):
            yield data[at : at + 100_000]
        stuck.set()
        await asyncio.sleep(3600)

    lost = asyncio.create_task(send(server, upload, 0, pieces()))
    await stuck.wait()
    folder = Path(server.paths.repository_spool(FQRN)) / "partial"
    await until(lambda: (folder / upload.rpartition("/")[2]).stat().st_size >= 2_500_000)
    offset = await offset_of(server, upload)
    assert 2_500_000 <= offset <= 3_000_000
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    assert (await send(server, upload, offset, data[offset:], last=True))[0] == 201
    assert await server.call("GET", "files/f") == (200, data)


async def test_a_second_request_replaces_the_first(server: Server) -> None:
    upload, going = await begin(server, "f"), asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        await going.wait()
        yield b" and more"

    first = asyncio.create_task(send(server, upload, 0, pieces(), last=True))
    folder = Path(server.paths.repository_spool(FQRN)) / "partial"
    await until(lambda: (folder / upload.rpartition("/")[2]).stat().st_size == 5)
    assert (await send(server, upload, 5, b", then", last=False))[0] == 200
    going.set()
    status, reply = await first
    assert (status, reply["reason"]) == (409, "replaced by another request")
    assert (await send(server, upload, 11, b"", last=True))[0] == 201
    assert await server.call("GET", "files/f") == (200, b"first, then")


async def test_it_survives_a_restart(start: Start) -> None:
    server = await start()
    upload = await begin(server, "f?overwrite", b"before, ", headers={"If-None-Match": "*"})
    server = await start()
    assert await offset_of(server, upload) == 8
    assert (await send(server, upload, 8, b"after", last=True))[0] == 201
    assert await server.call("GET", "files/f") == (200, b"before, after")


async def test_a_refusal_at_the_end_can_be_repeated(server: Server) -> None:
    """The parts are not sent again."""
    upload = await begin(server, "f", headers={"If-None-Match": "*"})
    await server.put("f", b"other")
    status, reply = await send(server, upload, 0, b"data", last=True)
    assert (status, reply["reason"]) == (412, "precondition failed")
    await server.call("DELETE", "files/f")
    assert (await send(server, upload, 4, b"", last=True))[0] == 201
    assert await server.call("GET", "files/f") == (200, b"data")


async def test_an_archive(server: Server) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    upload = await begin(server, "tree?unpack=tar")
    data = file.getvalue()
    assert (await send(server, upload, 0, data[:700]))[0] == 200
    assert (await send(server, upload, 700, data[700:], last=True))[0] == 201
    assert await server.names("tree") == ["/tree/empty"]


async def test_checksums_are_of_parts(server: Server) -> None:
    upload = await begin(server, "f", b"one", headers={"X-Content-SHA256": hashlib.sha256(b"one").hexdigest()})
    status, reply = await send(server, upload, 3, b"two", headers={"X-Content-SHA256": "0" * 64})
    assert (status, reply["reason"]) == (422, "checksum mismatch")
    assert await offset_of(server, upload) == 3
    key = read_key_file(server.paths.key_file(FQRN, "gw"))
    assert (await send(server, upload, 3, b"two", last=True, key=key))[0] == 201
    assert await server.call("GET", "files/f") == (200, b"onetwo")


async def test_who_may(server: Server) -> None:
    """Whoever may put the file may go on with it, whoever began it."""
    upload = await begin(server, "builds/f", b"data", token=BUILDS)
    outside = await begin(server, "f", b"data")
    wrong = Key("nobody", b"secret")
    for method in ("HEAD", "PATCH", "DELETE"):
        for options, path, expected in (
            ({"token": None}, upload, 401),
            ({"key": wrong}, upload, 401),
            ({"token": READER}, upload, 403),
            ({"token": BUILDS}, outside, 403),
            ({"token": ALL}, "partial/" + "0" * 32, 404),
            ({"token": ALL}, "partial/..%2f..", 404),
        ):
            headers = {"Upload-Offset": "4", **LAST}
            assert (await server.call(method, path, None, headers=headers, **options))[0] == expected
    assert await server.names() == []
    assert (await send(server, upload, 4, b"", last=True, token=BUILDS))[0] == 201
    for bad in ("", "x?unknown=1", "x?mode=9"):
        assert (await server.call("PUT", f"files/{bad}", b"", headers=MORE))[0] == 400
    assert (await server.call("PUT", "files/x", b"", headers=MORE, token=READER))[0] == 403


async def test_given_up(server: Server) -> None:
    upload = await begin(server, "f", b"data")
    assert len(kept(server)) == 2
    assert await server.call("DELETE", upload) == (200, {"status": "ok"})
    assert kept(server) == []
    assert (await send(server, upload, 4, b""))[0] == 404


async def test_number_and_age(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "MAX_PARTIAL", 2)
    old, new = await begin(server, "old"), await begin(server, "new")
    status, reply = await server.call("PUT", "files/f", b"", headers=MORE)
    assert (status, reply["reason"]) == (503, "too many incomplete uploads")
    file = Path(server.paths.repository_spool(FQRN)) / old
    os.utime(file, (file.stat().st_mtime - partial.MAX_AGE_S - 10,) * 2)
    third = await begin(server, "f")
    assert (await server.call("HEAD", old))[0] == 404
    assert [name for name in kept(server) if "." not in name] == sorted(
        upload.rpartition("/")[2] for upload in (new, third)
    )


async def test_size(server: Server) -> None:
    """Of all together, as they lie on one disk."""
    write_settings(server.paths, RepositorySettings(max_bytes=100))
    await server.uploads.reload()
    one, other = await begin(server, "one", b"1" * 60), await begin(server, "other")
    status, reply = await send(server, other, 0, b"2" * 41)
    assert (status, reply["reason"]) == (413, "too large")
    at = await offset_of(server, other)
    assert (await send(server, other, at, b"2" * (40 - at)))[0] == 200
    assert (await send(server, one, 60, b"1"))[0] == 413
    await server.call("DELETE", one)
    assert (await send(server, other, 40, b"2" * 60, last=True))[0] == 201


async def test_refused_before_the_body_is_sent(server: Server) -> None:
    upload = await begin(server, "f")

    async def pieces() -> AsyncIterator[bytes]:
        raise AssertionError("not wanted")
        yield b""

    url = f"{server.url}/repos/{FQRN}/{upload}"
    headers = {"Authorization": f"Bearer {READER}", "Expect": "100-continue", "Upload-Offset": "0"}
    async with aiohttp.ClientSession() as session, session.patch(url, data=pieces(), headers=headers) as response:
        assert response.status == 403
