"""The driver on S3, against a server in this process."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from cvmfs_objstore.errors import InvalidPath
from cvmfs_objstore.s3 import ASKED, PART, WINDOW, S3Storage
from cvmfs_objstore.s3conf import S3Settings
from cvmfs_objstore.s3http import Bucket, Response
from cvmfs_objstore.storage import Storage
from tests.objstore.s3server import make_old, s3_server
from tests.objstore.storage_suite import OBJECT, StorageSuite


@pytest.fixture(scope="module")
def server() -> Iterator[S3Settings]:
    with s3_server() as settings:
        bucket = Bucket(settings)
        bucket.request("PUT")
        bucket.close()
        yield settings


@pytest.fixture
def storage(server: S3Settings, tmp_path: Path) -> Iterator[S3Storage]:
    made = S3Storage(server, f"test/{tmp_path.name}", str(tmp_path))
    yield made
    made.close()


class TestS3Storage(StorageSuite):
    put_again = 20

    @pytest.fixture
    def storage(self, server: S3Settings, tmp_path: Path) -> Iterator[Storage]:
        made = S3Storage(dataclasses.replace(server), f"suite/{tmp_path.name}", str(tmp_path))
        yield made
        made.close()

    def test_names_of_any_bytes(self, storage: Storage) -> None:
        """Keys are UTF-8."""
        path = "dir/" + b"\xff".decode("utf-8", "surrogateescape")
        with pytest.raises(InvalidPath):
            storage.write(path, b"x")
        path = "dir/ name \u00e9 ..x+%~&"
        storage.write(path, b"x")
        assert list(storage.list()) == [path]
        assert storage.read(path) == b"x"

    def make_old(self, storage: Storage, path: str, data: bytes) -> None:
        assert isinstance(storage, S3Storage)
        with storage._locked(path, fcntl.LOCK_EX):  # between two looks of a collector
            storage.write(path, data)
            make_old(f"{storage.prefix}/{path}")


def age(storage: S3Storage, path: str) -> None:
    make_old(f"{storage.prefix}/{path}")


def test_large_objects(storage: S3Storage, tmp_path: Path) -> None:
    """Sent in parts, read in windows; nothing is left in the temporary folder, and no upload in the bucket."""
    data = random.Random(1).randbytes(2 * PART + 5)
    with storage.stage() as staged:
        staged.write(data)
        assert staged.write(b"") == 0
        staged.publish(OBJECT)
    assert storage.size(OBJECT) == len(data)
    with storage.open(OBJECT) as file:
        assert file.read(10) == data[:10]
        assert file.seek(-7, os.SEEK_END) == len(data) - 7
        assert file.read() == data[-7:]
        assert file.seek(WINDOW - 3) == WINDOW - 3
        assert file.read(6) == data[WINDOW - 3 : WINDOW + 3]
        assert file.seek(-6, os.SEEK_CUR) == WINDOW - 3
        assert file.read() == data[WINDOW - 3 :]
        assert file.read(1) == b""
        with pytest.raises(ValueError, match="before the beginning"):
            file.seek(-len(data) - 1, os.SEEK_END)
    assert [path.name for path in tmp_path.iterdir()] == [".gw-locks"]
    assert "<Upload>" not in storage._bucket.request("GET", query={"uploads": ""}).data.decode()


def test_a_large_object_that_changes_while_it_is_read(storage: S3Storage) -> None:
    storage.write("large", b"a" * (WINDOW + 1))
    with storage.open("large") as file:
        storage.write("large", b"b" * (WINDOW + 1))
        with pytest.raises(OSError, match="412"):
            file.read()


def test_copies_in_parts(storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvmfs_objstore.s3.LARGEST_COPY", 8 * (5 << 20))
    data = random.Random(2).randbytes(LARGE := 8 * (5 << 20) + 1)
    storage.write(OBJECT, data)
    age(storage, OBJECT)
    assert storage.touch(OBJECT)
    assert storage.modified(OBJECT) > storage.now() - 60
    assert storage.size(OBJECT) == LARGE
    assert storage.read(OBJECT) == data


def test_an_upload_in_parts_that_fails(storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Bucket.request

    def failing(bucket: Bucket, method: str, *arguments: Any, **more: Any) -> Response:
        if (more.get("query") or {}).get("partNumber") == "2":
            raise OSError(5, "the connection broke")
        return request(bucket, method, *arguments, **more)

    monkeypatch.setattr(Bucket, "request", failing)
    with storage.stage() as staged:
        staged.write(bytes(2 * PART + 1))
        with pytest.raises(OSError, match="the connection broke"):
            staged.publish(OBJECT)
    assert not storage.exists(OBJECT)
    assert storage.clean() == 0
    assert "<Upload>" not in storage._bucket.request("GET", query={"uploads": ""}).data.decode()


def test_clean_gives_up_what_was_left_behind(storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    key = f"{storage.prefix}/data/ab/left"
    storage._bucket.request("POST", key, query={"uploads": ""})
    with monkeypatch.context() as patch:
        patch.setattr("cvmfs_objstore.s3.ABANDONED_S", 1e9)
        assert storage.clean() == 0  # somebody may be at it
    assert storage.clean() == 1  # the server says of all that they are years old
    assert storage.clean() == 0


@pytest.mark.parametrize("size", [10, ASKED + 1])
@pytest.mark.parametrize("peek", [True, False])
def test_put_becomes_young(server: S3Settings, tmp_path: Path, size: int, peek: bool) -> None:
    storage = S3Storage(dataclasses.replace(server, peek=peek), f"young/{tmp_path.name}", str(tmp_path))
    data = b"x" * size
    assert storage.put(OBJECT, data)
    age(storage, OBJECT)
    assert not storage.put(OBJECT, data)
    assert storage.modified(OBJECT) > storage.now() - 60
    assert storage.put(OBJECT, data + b"y")
    assert storage.size(OBJECT) == size + 1
    storage.close()


@pytest.mark.parametrize("status", [501, 200])
def test_servers_without_conditions(storage: S3Storage, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Those that refuse them are asked first; those that know nothing of them write the same once more."""
    request = Bucket.request

    def old(bucket: Bucket, method: str, key: str = "", **more: Any) -> Response:
        headers = dict(more.pop("headers", None) or {})
        if headers.pop("If-None-Match", None) and status == 501:
            return urllib3.HTTPResponse(status=501)
        return request(bucket, method, key, headers=headers, **more)

    monkeypatch.setattr(Bucket, "request", old)
    assert storage.put(OBJECT, b"1234")
    assert storage.put(OBJECT, b"1234") == (status == 200)
    assert storage.read(OBJECT) == b"1234"


def test_how_keys_are_written(storage: S3Storage) -> None:
    """As deployed publishers do: proxies and clients go by it, and everybody may read."""
    storage.write(".cvmfspublished", b"x")
    storage.put(OBJECT, b"x")
    with storage.stage() as staged:
        staged.write(b"x")
        staged.publish(OBJECT + "y")
    storage.copy(".cvmfspublished", ".cvmfsreflog")
    for path, kind, age_s in (
        (".cvmfspublished", "application/x-cvmfs", 61),
        (".cvmfsreflog", "application/x-cvmfs", 61),
        (OBJECT, "application/octet-stream", 259200),
        (OBJECT + "y", "application/octet-stream", 259200),
    ):
        answer = storage._bucket.request("HEAD", f"{storage.prefix}/{path}")
        assert (answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (kind, f"max-age={age_s}")
        acl = storage._bucket.request("GET", f"{storage.prefix}/{path}", query={"acl": ""}).data
        assert b"AllUsers" in acl


def test_a_bucket_that_is_not_there(server: S3Settings, tmp_path: Path) -> None:
    """Nobody takes it for an empty repository."""
    storage = S3Storage(dataclasses.replace(server, bucket="nowhere"), "x", str(tmp_path))
    for call in (storage.read, storage.open):
        with pytest.raises(FileNotFoundError, match="bucket"):
            call(".cvmfspublished")
    for failing in (lambda: storage.put(OBJECT, b"x"), lambda: storage.names("data/00"), storage.clean):
        with pytest.raises(OSError, match="NoSuchBucket"):
            failing()
    storage.close()


def test_a_server_that_is_gone(tmp_path: Path) -> None:
    with s3_server() as settings:
        storage = S3Storage(dataclasses.replace(settings, retries=0), "x", str(tmp_path))
        storage._bucket.request("PUT")
        storage.put(OBJECT, b"x")
    for call in (storage.read, storage.exists, storage.size, storage.touch, storage.delete):
        with pytest.raises(OSError, match="S3 at"):
            call(OBJECT)
    with pytest.raises(OSError, match="S3 at"):
        storage.missing([OBJECT])
    storage.close()


def test_repr(storage: S3Storage) -> None:
    assert repr(storage) == f"S3Storage({storage.settings.url + storage.prefix!r})"


def test_opened_in_another_process(storage: S3Storage) -> None:
    """Each process has one for all who ask, as they share its connections."""
    storage.put(OBJECT, b"x")
    assert "secret_key" not in repr(storage.opener)
    assert storage.settings.secret_key == "secret"
    opener = pickle.loads(pickle.dumps(storage.opener))
    other = opener()
    assert other is not storage
    assert other is opener()
    assert other.read(OBJECT) == b"x"
    other.close()


def test_clean_without_the_permission(storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Bucket.request

    def forbidding(bucket: Bucket, method: str, *arguments: Any, **more: Any) -> Response:
        if "uploads" in (more.get("query") or {}):
            assert 403 in more["accept"]
            return urllib3.HTTPResponse(status=403)
        return request(bucket, method, *arguments, **more)

    monkeypatch.setattr(Bucket, "request", forbidding)
    assert storage.clean() == 0
