"""Files over HTTP: put, read, kept, removed, and who may."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
from collections.abc import AsyncIterator

import aiohttp
import pytest

from cvmfs_gw.client.keys import read_key_file
from cvmfs_gw.engine.commit_api import CommitRequest
from cvmfs_gw.gateway.authorization import Key
from cvmfs_gw.gateway.errors import RepositoryBusy
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.stratum0.settings import RepositorySettings, new_token
from cvmfs_objstore.formats.entry import Kind
from tests.engine.repositories import FQRN, check_chain, publisher_root
from tests.engine.repositories import put as put_change
from tests.engine.trees import Item
from tests.gateway.support import until
from tests.stratum0.support import ALL, BUILDS, READER, Server, checked, write_settings


async def test_a_file_is_put_and_read(server: Server) -> None:
    status, reply = await server.put("builds/1/out.txt?ttl_s=100&mode=0755", b"hello")
    end = int(server.time.wall_s) + 100
    assert (status, reply) == (
        201,
        {
            "status": "ok",
            "revision": 2,
            "path": "/builds/1/out.txt",
            "published": True,
            "created": True,
            "expires": end,
            "entries": 3,
        },
    )
    assert await server.call("GET", "files/builds/1/out.txt") == (200, b"hello")
    server.time.advance(40)
    status, found = await server.call("GET", "entries/builds/1")
    assert found["entries"] == [
        {
            "path": "/builds/1/out.txt",
            "type": "file",
            "size": 5,
            "mode": "0755",
            "mtime": end - 100,
            "age_s": 40,
            "expires": end,
            "expires_in_s": 60,
        }
    ]
    assert found["entry"]["path"] == "/builds/1"
    check_chain(server.repository)
    assert server.announced == [2]


@pytest.mark.parametrize("size", [0, 1, 65_536, (1 << 20) + 1, 25_000_000])
@pytest.mark.parametrize("chunked", [True, False])
async def test_sizes(server: Server, size: int, chunked: bool) -> None:
    data = os.urandom(size)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, size, 100_000):
            yield data[at : at + 100_000]

    status, _ = await server.put("f", pieces() if chunked else data)
    assert status == 201
    assert await server.call("GET", "files/f") == (200, data)


async def test_ranges(server: Server) -> None:
    data = os.urandom(20_000_000)
    await server.put("f", data)
    for text, start, end in (
        ("0-0", 0, 1),
        ("100-", 100, len(data)),
        ("-7", len(data) - 7, len(data)),
        ("7999990-8400000", 7_999_990, 8_400_001),
    ):
        status, found = await server.call("GET", "files/f", headers={"Range": f"bytes={text}"})
        assert status == 206
        assert found == data[start:end]
    status, found = await server.call("GET", "files/f", headers={"Range": f"bytes={len(data)}-"})
    assert (status, found["reason"]) == (416, "range not satisfiable")


@pytest.mark.parametrize("size", [5, 20_000_000])
async def test_a_tag_stands_for_a_content(server: Server, size: int) -> None:
    data = os.urandom(size)
    await server.put("f", data)
    tag = server.headers["ETag"]
    for method, found in (("GET", data), ("HEAD", b"")):
        assert await server.call(method, "files/f") == (200, found)
        assert (server.headers["ETag"], server.headers["Content-Length"]) == (tag, str(size))
        assert (await server.call(method, "files/f", headers={"If-None-Match": f'"other", {tag}'}))[0] == 304
        assert (await server.call(method, "files/f", headers={"If-None-Match": '"other"'}))[0] == 200
        assert (await server.call(method, "files/f", headers={"If-Match": '"other"'}))[0] == 412
        assert (await server.call(method, "files/f", headers={"If-Match": tag}))[0] == 200
        assert (await server.call(method, "files/f", headers={"If-Match": '"other"', "If-None-Match": tag}))[0] == 412
    for text, status, wanted in ((tag, 206, data[1:3]), ('"other"', 200, data)):
        reply = await server.call("GET", "files/f", headers={"Range": "bytes=1-2", "If-Range": text})
        assert reply == (status, wanted)
    await server.put("g", data)
    assert server.headers["ETag"] == tag
    await server.put("f?overwrite", data + b".")
    assert server.headers["ETag"] != tag


async def test_a_file_is_put_on_a_condition(server: Server) -> None:
    new, there = {"If-None-Match": "*"}, {"If-Match": "*"}
    status, refused = await server.put("f", b"0", headers=there)
    assert (status, refused["reason"]) == (412, "precondition failed")
    assert (await server.put("f", b"1", headers=new))[0] == 201
    first = server.headers["ETag"]
    for data in (b"1", b"2"):
        assert (await server.put("f?overwrite", data, headers=new))[0] == 412
        assert server.headers["ETag"] == first
    assert (await server.put("f", b"2", headers={"If-Match": first}))[0] == 200
    second = server.headers["ETag"]
    assert (await server.put("f", b"3", headers={"If-Match": first}))[0] == 412
    assert (await server.call("DELETE", "files/f", headers={"If-Match": first}))[0] == 412
    assert await server.call("GET", "files/f") == (200, b"2")
    assert (await server.put("f", b"3", headers={"If-Match": f"{first}, {second}"}))[0] == 200
    assert (await server.call("DELETE", "files/f", headers={"If-Match": server.headers["ETag"]}))[0] == 200
    assert (await server.put("d/f", b"1", headers=new))[0] == 201
    assert (await server.put("d", b"1", headers=new))[0] == 409
    assert (await server.call("DELETE", "files/d?recursive", headers=there))[0] == 412
    assert (await server.put("f", b"1", headers={"If-None-Match": "not quoted"}))[0] == 400
    assert (await server.put("t?unpack=tar", b"1", headers=new))[0] == 400


async def test_of_those_who_write_on_a_condition_one_does(server: Server) -> None:
    replies = await asyncio.gather(
        *(server.put("f", b"%d" % number, headers={"If-None-Match": "*"}) for number in range(20))
    )
    assert sorted(status for status, _ in replies) == [201] + [412] * 19


async def test_the_same_again_is_no_conflict(server: Server) -> None:
    assert (await server.put("a/f?ttl_s=100", b"x"))[0] == 201
    status, again = await server.put("a/f?ttl_s=100", b"x")
    assert (status, again["revision"], again["published"], again["created"]) == (200, 2, False, False)
    _, shorter = await server.put("a/f?ttl_s=10", b"x")
    assert shorter["expires"] == again["expires"]
    _, longer = await server.put("a/f?ttl_s=1000", b"x")
    assert (longer["revision"], longer["expires"]) == (3, again["expires"] + 900)
    status, other = await server.put("a/f", b"y")
    assert (status, other["reason"]) == (409, "exists")
    status, replaced = await server.put("a/f?overwrite", b"y")
    assert (status, replaced["revision"], replaced["expires"]) == (200, 4, None)
    assert await server.call("GET", "files/a/f") == (200, b"y")


async def test_directories_and_files_do_not_become_each_other(server: Server) -> None:
    await server.put("a/f", b"x")
    for path in ("a", "a/f/g", "a/f/g/h"):
        status, reply = await server.put(f"{path}?overwrite=true", b"y")
        assert (status, reply["reason"]) == (409, "path conflict")
    assert await server.names() == ["/a", "/a/f"]


async def test_removing(server: Server) -> None:
    for name in ("a/1", "a/2", "b/1"):
        await server.put(name, b"x")
    assert (await server.call("DELETE", "files/a"))[0] == 409
    assert (await server.call("DELETE", "files/nothing"))[0] == 404
    assert (await server.call("DELETE", "files/a/1"))[0] == 200
    assert await server.names() == ["/a", "/a/2", "/b", "/b/1"]
    assert (await server.call("DELETE", "files/a?recursive=true"))[0] == 200
    assert await server.names() == ["/b", "/b/1"]
    assert (await server.call("DELETE", "files/?recursive=true"))[0] == 409


async def test_another_time_to_live(server: Server) -> None:
    await server.put("a/1?ttl_s=100", b"x")
    await server.put("a/2", b"x")
    end = int(server.time.wall_s) + 500
    status, reply = await server.call("PATCH", "files/a/1", b'{"ttl_s": 500}')
    assert (status, reply["expires"], reply["entries"]) == (200, end, 1)
    status, reply = await server.call("PATCH", "files/a?recursive", b'{"ttl_s": 500}')
    assert (status, reply["expires"], reply["entries"]) == (200, end, 2)
    status, reply = await server.call("PATCH", "files/a/1", b'{"ttl_s": 0}')
    assert (status, reply["expires"]) == (200, None)
    _, found = await server.call("GET", "entries/a")
    assert [(entry["path"], entry["expires"]) for entry in found["entries"]] == [("/a/1", None), ("/a/2", end)]
    assert (await server.call("PATCH", "files/a/1", b"{}"))[0] == 400
    assert (await server.call("PATCH", "files/a/1", b'{"ttl_s": -1}'))[0] == 400


async def test_listing_goes_on_where_it_ended(server: Server) -> None:
    for name in ("a", "b/1", "b/2", "b/c/3", "b-", "d"):
        await server.put(name, b"x")
    everything = ["/a", "/b", "/b/1", "/b/2", "/b/c", "/b/c/3", "/b-", "/d"]
    assert await server.names() == everything
    found: list[str] = []
    while True:
        after = f"&after={found[-1]}" if found else ""
        _, page = await server.call("GET", f"entries/?recursive&limit=1{after}")
        found += [entry["path"] for entry in page["entries"]]
        if not page["more"]:
            break
    assert found == everything
    assert await server.names("b/", "limit=10") == ["/b/1", "/b/2", "/b/c"]
    for wrong in ("0", "10001", "-1", "x"):
        assert (await server.call("GET", f"entries?limit={wrong}"))[0] == 400
    assert (await server.call("GET", "entries"))[1] == (await server.call("GET", "entries/"))[1]


async def test_a_form_is_no_file(server: Server) -> None:
    form = aiohttp.FormData({"file": io.BytesIO(b"x")})
    status, refused = await server.call("POST", "files/f", form)
    assert (status, refused["reason"]) == (400, "the body is a form; send the file itself, as curl -T FILE does")
    assert await server.names() == []


async def test_tokens_open_their_path_alone(server: Server) -> None:
    assert (await server.put("builds/1", b"x", token=BUILDS))[0] == 201
    for path in ("other", "buildsx/1", ""):
        assert (await server.put(path, b"x", token=BUILDS))[0] == 403
    for path in ("builds/../other", "builds/%2e%2e/other", "builds//x", "builds/%00", "builds/" + "x" * 300):
        status, reply = await server.put(path, b"x", token=BUILDS)
        assert status in (400, 403), reply
    assert (await server.call("GET", "files/builds/1", token=READER))[0] == 200
    assert (await server.put("builds/1", b"x", token=READER))[0] == 403
    assert (await server.call("DELETE", "files/builds/1", token=READER))[0] == 403
    for token in (None, "", "x", ALL + "x", ALL[:-1], "cvgw_all_", "cvgw_nobody_" + "x" * 43, "x" * 100_0):
        status, reply = await server.put("builds/2", b"x", token=token)
        assert (status, reply) == (401, {"status": "error", "reason": "unauthorized"})
    assert await server.names() == ["/builds", "/builds/1"]


async def test_a_token_of_another_repository(server: Server) -> None:
    text, token = new_token("other", LeasePath("other.example.org", ""))
    assert token.repository == "other.example.org"
    assert (await server.put("f", b"x", token=text))[0] == 401
    assert (await server.put("f", b"x", fqrn="other.example.org"))[0] == 404


async def test_signed_requests(server: Server) -> None:
    key = read_key_file(server.paths.key_file(FQRN, "gw"))
    assert (await server.put("a/f?ttl_s=10", b"x", key=key))[0] == 201
    assert (await server.call("GET", "files/a/f", key=key)) == (200, b"x")
    assert (await server.call("PATCH", "files/a/f", b'{"ttl_s": 1}', key=key))[0] == 200
    assert (await server.call("DELETE", "files/a/f", key=key))[0] == 200
    # another secret, an old date, no checksum
    assert (await server.put("a/f", b"x", key=Key(key.id, b"wrong")))[0] == 401
    assert (await server.put("a/f", b"x", key=key, headers={"X-Cvmfs-Date": "1700000000"}))[0] == 401
    assert (await server.put("a/f", b"x", key=key, headers={"X-Content-SHA256": ""}))[0] == 401
    other = hashlib.sha256(b"y").hexdigest()
    status, reply = await server.put("a/f", b"x", key=key, headers={"X-Content-SHA256": other})
    assert (status, reply["reason"]) == (422, "checksum mismatch")


async def test_a_checksum_is_looked_at(server: Server) -> None:
    data = os.urandom(3_000_000)
    right = hashlib.sha256(data).hexdigest()
    assert (await server.put("f", data, headers={"X-Content-SHA256": right}))[0] == 201
    status, reply = await server.put("g", data + b"x", headers={"X-Content-SHA256": right})
    assert (status, reply["reason"]) == (422, "checksum mismatch")
    assert (await server.put("g", data, headers={"X-Content-SHA256": "z" * 64}))[0] == 400
    assert await server.names() == ["/f"]


async def test_what_makes_no_sense(server: Server) -> None:
    for query in ("ttl_s=x", "ttl_s=-1", "ttl_s=99999999999", "overwrite=maybe", "mode=999", "mode=07777", "ttl=5"):
        status, reply = await server.put(f"f?{query}", b"x")
        assert (status, reply["status"]) == (400, "error"), query
    assert (await server.put("", b"x"))[0] == 400
    assert (await server.call("GET", "files/"))[0] == 409
    assert (await server.call("GET", "files/nothing"))[0] == 404
    assert await server.names() == []


async def test_limits(server: Server) -> None:
    write_settings(server.paths, RepositorySettings(max_bytes=1000, max_ttl_s=100, default_ttl_s=50))
    await server.uploads.reload()
    now = int(server.time.wall_s)
    assert (await server.put("f", b"x" * 1000))[1]["expires"] == now + 50
    assert (await server.put("g?ttl_s=100", b"x"))[1]["expires"] == now + 100
    assert (await server.put("h?ttl_s=101", b"x"))[0] == 400
    assert (await server.put("h?ttl_s=0", b"x"))[0] == 400
    assert (await server.put("h", b"x" * 1001))[0] == 413

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 100

    assert (await server.put("h", pieces()))[0] == 413
    assert await server.names() == ["/f", "/g"]


async def test_nothing_is_there_unless_it_is_configured(server: Server) -> None:
    os.unlink(server.paths.upload_config)
    await server.uploads.reload()
    for method, path in (("PUT", "files/f"), ("GET", "files/f"), ("GET", "entries/"), ("POST", "expiry")):
        status, reply = await server.call(method, path, b"x" if method == "PUT" else None)
        assert (status, reply["reason"]) == (404, "uploads are not enabled for this repository")


async def test_anybody_may_read_where_that_is_configured(server: Server) -> None:
    await server.put("f", b"x")
    assert (await server.call("GET", "files/f", token=None))[0] == 401
    write_settings(server.paths, RepositorySettings(public_read=True))
    await server.uploads.reload()
    assert await server.call("GET", "files/f", token=None) == (200, b"x")
    assert (await server.call("GET", "entries/", token=None))[0] == 200
    assert (await server.put("g", b"x", token=None))[0] == 401
    assert (await server.call("GET", "files/f", token="wrong"))[0] == 401


async def test_together_and_each_for_itself(server: Server) -> None:
    await server.put("taken", b"x")
    wanted = [server.put(f"d{n % 5}/f{n}", b"%d" % n) for n in range(50)]
    wanted += [server.put("taken", b"y"), server.put("taken/f", b"y")]
    replies = await asyncio.gather(*wanted)
    assert [status for status, _ in replies] == [201] * 50 + [409] * 2
    last = max(reply["revision"] for status, reply in replies if status == 201)
    assert last < 52, "no two were committed together"
    assert server.repository.head().revision == last
    for n in range(50):
        assert await server.call("GET", f"files/d{n % 5}/f{n}") == (200, b"%d" % n)


async def test_too_many_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvmfs_gw.stratum0.service.MAX_LARGE", 1)
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        reached.set()
        await go_on.wait()

    first = asyncio.create_task(server.put("a", slow()))
    await reached.wait()
    await until(lambda: server.uploads.running)
    status, reply = await server.put("b", os.urandom(2 << 20))
    assert (status, reply["reason"]) == (503, "too many uploads at the same time")
    assert (await server.put("c", b"small ones come in all the same"))[0] == 201
    go_on.set()
    assert (await first)[0] == 201


async def test_one_token_does_not_take_all_the_room(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvmfs_gw.stratum0.service.MAX_LARGE", 4)
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await go_on.wait()

    uploads = [asyncio.create_task(server.put(f"builds/{number}", slow(), token=BUILDS)) for number in range(3)]
    await until(lambda: server.uploads.running == 3)
    status, reply = await server.put("builds/x", os.urandom(2 << 20), token=BUILDS)
    assert (status, reply["reason"]) == (503, "too many uploads at the same time by token builds")
    assert (await server.put("other", os.urandom(2 << 20)))[0] == 201
    go_on.set()
    assert [status for status, _ in await asyncio.gather(*uploads)] == [201] * 3
    assert (await server.put("builds/x", os.urandom(2 << 20), token=BUILDS))[0] == 201


async def test_a_leased_path_is_busy(server: Server) -> None:
    key = read_key_file(server.paths.key_file(FQRN, "gw"))
    lease = await server.gateway.leases.acquire(f"{FQRN}/a/b", key, protocol=3, hostname="host")
    for path in ("a/b", "a/b/c", "a"):
        status, reply = await server.put(path, b"x")
        assert (status, reply["status"]) == (409, "path_busy")
        assert reply["time_remaining"]
    assert (await server.call("DELETE", "files/a?recursive"))[0] in (404, 409)
    assert (await server.put("a/c", b"x"))[0] == 201
    waiting = asyncio.create_task(server.put("a/b/c?wait=60", b"x"))
    await until(lambda: len(server.gateway.leases.waiting))
    await server.gateway.leases.cancel(lease.token, key)
    assert (await waiting)[0] == 201
    assert await server.names() == ["/a", "/a/b", "/a/b/c", "/a/c"]


async def test_disabled_while_an_upload_comes_in(server: Server) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        reached.set()
        await go_on.wait()

    upload = asyncio.create_task(server.put("a", slow()))
    await reached.wait()
    await until(lambda: server.uploads.running)
    await server.gateway.repositories.enable(FQRN, False, wait=True)
    go_on.set()
    status, reply = await upload
    assert (status, reply["reason"]) == (503, "the repository is disabled")
    assert await server.names() == []
    await server.gateway.repositories.enable(FQRN, True)
    assert (await server.put("a", b"x"))[0] == 201


async def test_disabling_waits_for_what_is_being_committed(server: Server) -> None:
    repositories = server.gateway.repositories
    with server.repository.exclusive():
        upload = asyncio.create_task(server.put("a", b"x"))
        await until(lambda: repositories.commits[-1].busy(FQRN) and not server.uploads.waiting)
        with pytest.raises(RepositoryBusy):
            await repositories.enable(FQRN, False)
        assert repositories.enabled(FQRN)
        disabled = asyncio.create_task(repositories.enable(FQRN, False, wait=True))
        await until(lambda: not repositories.enabled(FQRN))
        assert not disabled.done()
    await disabled
    assert not repositories.commits[-1].busy(FQRN)
    assert (await upload)[0] == 503  # it had not begun to change anything
    assert server.repository.head().revision == 1


async def test_names_are_bytes(server: Server) -> None:
    assert (await server.put("a%20b/%C3%BC", b"x"))[0] == 201
    assert await server.names() == ["/a b", "/a b/ü"]
    assert await server.call("GET", "files/a%20b/%C3%BC") == (200, b"x")
    # also those that an archive may bring
    assert (await server.put("a%20b/one%0Atwo", b"y"))[0] == 201
    assert await server.call("GET", "files/a%20b/one%0Atwo") == (200, b"y")
    assert (await server.call("GET", "entries/a%20b/one%0Atwo"))[1]["entry"]["path"] == "/a b/one\ntwo"
    assert (await server.call("DELETE", "files/a%20b/one%0Atwo"))[0] == 200


async def test_secrets_do_not_reach_the_log(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    await server.put("f", b"x")
    await server.put("f", b"y")
    await server.put("f", b"y", token=ALL + "x")
    assert "revision 2 published" in caplog.text
    assert ALL.split("_", 2)[2] not in caplog.text


async def test_metrics_and_description(server: Server) -> None:
    await server.put("f", b"x")
    async with server.session.get(server.url.replace("/api/v1", "/metrics")) as response:
        text = await response.text()
    assert f'cvmfs_gateway_uploads_total{{outcome="ok",repository="{FQRN}"}} 1' in text
    assert "cvmfs_gateway_upload_bytes_total 1\n" in text
    async with server.session.get(server.url + "/openapi.json") as response:
        described = (await response.json())["paths"]
    assert {"put", "get", "patch", "delete"} <= set(described["/repos/{name}/files/{path}"])
    assert "/repos/{name}/entries/{path}" in described


async def test_a_publisher_and_uploads_do_not_undo_each_other(server: Server) -> None:
    """What is uploaded while a publisher has an older revision mounted is still there after its commit."""
    await server.put("theirs/old", b"x")
    mounted = server.repository.head().root_hash
    folder = put_change("/pub", Item(Kind.DIRECTORY, 1))
    result = publisher_root(server.repository, mounted, [folder, put_change("/pub/f", Item(Kind.SYMLINK, 1))])
    await server.put("theirs/new", b"y")
    await server.call("DELETE", "files/theirs/old")
    request = CommitRequest(FQRN, "/pub", mounted, result)
    await asyncio.to_thread(server.engine.commit, request)
    await server.put("theirs/newer", b"z")
    assert checked(server.repository) == {"/pub", "/pub/f", "/theirs", "/theirs/new", "/theirs/newer"}
