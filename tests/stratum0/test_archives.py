"""Archives that are unpacked where they are put."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping

import pytest

from cvmfs_gw.stratum0.settings import RepositorySettings
from tests.ingest.test_image import oci, saved
from tests.stratum0.support import BUILDS, Server, checked, write_settings


def tar(files: Mapping[str, bytes | str | None], compression: str = "", mtime: int = 1_600_000_000) -> bytes:
    """An archive: content of files, targets of symbolic links, None for directories."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode=f"w:{compression}") as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.mtime = mtime
            if content is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return raw.getvalue()


TREE: dict[str, bytes | str | None] = {
    "bin": None,
    "bin/tool": b"#!/bin/sh\n",
    "bin/link": "tool",
    "lib/deep/data": os.urandom(2_000_000),
    "empty": b"",
}
PATHS = {"/r", "/r/bin", "/r/bin/tool", "/r/bin/link", "/r/lib", "/r/lib/deep", "/r/lib/deep/data", "/r/empty"}


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
async def test_an_archive_is_unpacked(server: Server, compression: str) -> None:
    status, reply = await server.put("r?unpack=tar&ttl_s=100", tar(TREE, compression))
    assert (status, reply["created"], reply["entries"]) == (201, True, len(PATHS))
    assert checked(server.repository) == PATHS
    for name, content in TREE.items():
        if isinstance(content, bytes):
            assert await server.call("GET", f"files/r/{name}") == (200, content)
    _, found = await server.call("GET", "entries/?recursive")
    assert {entry["expires"] for entry in found["entries"]} == {int(server.time.wall_s) + 100}
    server.time.advance(100)
    await server.call("POST", "expiry")
    assert checked(server.repository) == set()


async def test_again_and_over_it(server: Server) -> None:
    await server.put("r?unpack=tar&ttl_s=100", tar(TREE))
    before = server.repository.head().revision
    status, again = await server.put("r?unpack=tar&ttl_s=100", tar(TREE, "gz"))
    assert (status, again["published"], server.repository.head().revision) == (200, False, before)
    status, longer = await server.put("r?unpack=tar&ttl_s=200", tar(TREE, mtime=5))
    assert (status, longer["published"]) == (200, True)
    end = int(server.time.wall_s) + 200
    _, found = await server.call("GET", "entries/r?recursive")
    files = [entry for entry in found["entries"] if entry["type"] != "directory"]
    assert {(entry["expires"], entry["mtime"]) for entry in files} == {(end, 1_600_000_000)}
    # one that differs refuses all
    other = {**TREE, "new": b"x", "bin/tool": b"other"}
    status, refused = await server.put("r?unpack=tar", tar(other))
    assert (status, refused["reason"]) == (409, "exists")
    assert checked(server.repository) == PATHS
    status, _ = await server.put("r?unpack=tar&overwrite", tar(other))
    assert status == 201
    assert checked(server.repository) == PATHS | {"/r/new"}
    assert await server.call("GET", "files/r/bin/tool") == (200, b"other")


async def test_directories_that_were_there_live_as_long_as_before(server: Server) -> None:
    await server.put("r/mine", b"x")
    await server.put("r?unpack=tar&ttl_s=10", tar(TREE))
    server.time.advance(10)
    await server.call("POST", "expiry")
    assert checked(server.repository) == {"/r", "/r/mine"}


async def test_a_link_or_file_in_the_way(server: Server) -> None:
    await server.put("r/bin", b"a file")
    for query in ("unpack=tar", "unpack=tar&ttl_s=5"):
        status, _ = await server.put(f"r?{query}", tar(TREE))
        assert status == 409
    status, _ = await server.put("r/bin/x?unpack=tar", tar(TREE))
    assert status == 409
    assert checked(server.repository) == {"/r", "/r/bin"}
    assert (await server.put("r?unpack=tar&overwrite", tar(TREE)))[0] == 201
    assert checked(server.repository) == PATHS


async def test_what_is_no_archive(server: Server) -> None:
    whole = tar(TREE)
    for body in (b"x" * 5000, whole[:-700_000], tar({"../x": b"x"}), tar(TREE, "gz")[:-100_000]):
        status, reply = await server.put("r?unpack=tar", body)
        assert (status, reply["status"]) == (400, "error")
    assert (await server.put("r?unpack=zip", whole))[0] == 400
    assert checked(server.repository) == set()


async def test_an_archive_stays_where_its_token_may_write(server: Server) -> None:
    assert (await server.put("r?unpack=tar", tar(TREE), token=BUILDS))[0] == 403
    status, _ = await server.put("builds?unpack=tar", tar({"/x": b"1", "y": "/etc"}), token=BUILDS)
    assert status == 201
    assert checked(server.repository) == {"/builds", "/builds/x", "/builds/y"}
    assert (await server.put("builds?unpack=tar", tar({"y/z": b"1"}), token=BUILDS))[0] == 409


async def test_an_image_is_what_its_layers_amount_to(server: Server) -> None:
    lower = tar({"bin/tool": b"old", "etc/gone": b"x", "kept": b"y"})
    upper = tar({"bin/tool": b"new", "etc/.wh.gone": b""})
    for image in (oci([lower, upper]), saved([lower, upper])):
        status, reply = await server.put("image?unpack=oci&ttl_s=100", image)
        assert status in (200, 201), reply
    assert checked(server.repository) == {"/image", "/image/bin", "/image/bin/tool", "/image/kept"}
    assert await server.call("GET", "files/image/bin/tool") == (200, b"new")
    assert (await server.put("other?unpack=oci", lower))[0] == 400


async def test_of_several_images_one_is_chosen(server: Server) -> None:
    image = saved([tar({"f": b"x"})], ("app:1", "app:2"))
    status, refused = await server.put("image?unpack=oci", image)
    assert (status, refused["reason"]) == (400, "2 images to choose from: app:1, app:2")
    assert (await server.put("image?unpack=oci&tag=app:2&platform=linux/amd64", image))[0] == 201
    assert (await server.put("other?unpack=tar&tag=app:2", tar({"f": b"x"})))[0] == 400


async def test_limits(server: Server) -> None:
    write_settings(server.paths, RepositorySettings(max_bytes=1_000_000, max_entries=3))
    await server.uploads.reload()
    bomb = tar({"zeros": bytes(5_000_000)}, "gz")
    assert len(bomb) < 100_000
    for body in (bomb, tar({"a": bytes(600_000), "b": bytes(600_000)}, "gz"), tar({str(n): b"" for n in range(4)})):
        status, reply = await server.put("r?unpack=tar", body)
        assert (status, reply["reason"]) == (413, "too large")
    assert (await server.put("r?unpack=tar", tar({str(n): b"" for n in range(3)})))[0] == 201


async def test_a_nested_catalog_begins_where_it_is_marked(server: Server) -> None:
    await server.put("r?unpack=tar&ttl_s=100", tar({"n/.cvmfscatalog": b"", "n/f": b"x"}))
    assert checked(server.repository) == {"/r", "/r/n", "/r/n/.cvmfscatalog", "/r/n/f"}
    server.time.advance(100)
    await server.call("POST", "expiry")
    assert checked(server.repository) == set()


async def test_an_end_of_the_archive_s_own_does_not_count(server: Server) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("f")
        member.pax_headers = {"SCHILY.xattr.user.cvmfs.expires": "1", "SCHILY.xattr.user.mine": "2"}
        archive.addfile(member)
    await server.put("r?unpack=tar", raw.getvalue())
    await server.call("POST", "expiry")
    _, found = await server.call("GET", "entries/r")
    assert [entry["expires"] for entry in found["entries"]] == [None]


async def test_as_deep_as_a_path_can_be(server: Server) -> None:
    """Nothing that is done with a tree takes a Python frame for each of its levels."""
    top, deep = "d" + "/d" * 999, "e/" * 1000
    status, reply = await server.put(f"{top}?unpack=tar", tar({f"{deep}f": b"1"}))
    assert (status, reply["entries"]) == (201, 2001)
    assert (await server.call("GET", f"files/{top}/{deep}f"))[1] == b"1"
    assert (await server.put(f"{top}?unpack=tar&overwrite=true", tar({f"{deep}f": b"2"})))[0] == 200
    assert (await server.put(f"{top}/e?unpack=tar&overwrite=true", tar({"e": b"a file"})))[0] == 201
    assert (await server.call("DELETE", "files/d?recursive"))[0] == 200
    assert checked(server.repository) == set()
