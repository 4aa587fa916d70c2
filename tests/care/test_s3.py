"""The life of a repository in a bucket: published, checked, collected, copied out and in, and cut off anywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cvmfs_gw.care.adopt import Adoption, adopt
from cvmfs_gw.care.check import CheckOptions, check_repository
from cvmfs_gw.care.gc import Policy
from cvmfs_gw.care.resign import resign_whitelist
from cvmfs_gw.care.snapshot import export
from cvmfs_gw.care.targets import FolderTarget
from cvmfs_gw.engine.configure import RepositoryOptions
from cvmfs_gw.engine.create import create_repository
from cvmfs_gw.engine.errors import ConfigurationError, EngineError
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.hashes import Suffix
from cvmfs_objstore.s3 import S3Storage
from cvmfs_objstore.s3conf import S3Settings
from cvmfs_objstore.s3http import Bucket, Response
from tests.care.collecting import IGNORED, Past
from tests.engine.repositories import FQRN, check_chain
from tests.objstore.s3server import make_old, s3_conf, s3_server


class BucketPast(Past):
    """A past in a bucket."""

    def age(self) -> None:
        make_old(f"{FQRN}/data/", self.now)


@pytest.fixture
def bucket() -> Iterator[S3Settings]:
    with s3_server() as settings, closing(Bucket(settings)) as bucket:
        bucket.request("PUT")
        yield settings


@pytest.fixture
def conf(bucket: S3Settings, tmp_path: Path) -> str:
    path = tmp_path / "s3.conf"
    path.write_text(s3_conf(bucket))
    return str(path)


@pytest.fixture
def past(conf: str, tmp_path: Path, keys: str) -> Past:
    made = BucketPast(str(tmp_path / "root"), keys, s3=conf)
    made.commit({"/n": b"/", "/n/big": b"one\ntwo", "/f": b"2"}, "tagged", nest=("/n",))
    made.commit({"/f": b"3", "/n/big": b"one\nthree"})
    return made


def check(repository: Repository, now: float) -> None:
    report = check_repository(repository, CheckOptions(every_tag=True, integrity=True), now)
    assert [str(fault) for fault in report.faults if fault.kind.code not in IGNORED] == []


def test_published_and_collected(past: Past) -> None:
    repository = past.repository()
    assert isinstance(repository.storage, S3Storage)
    check(repository, past.now)
    check_chain(repository, past.now)
    assert past.has(b"two", Suffix.CHUNK)
    for number in (4, 5, 6):
        past.commit({"/f": b"%d" % number})
    assert past.has(b"3")
    past.collect(Policy(revisions=0))
    assert [past.has(data) for data in (b"2", b"3", b"6")] == [True, False, True]  # the first has a tag
    check(past.repository(), past.now)


def test_it_is_made_once(past: Past, conf: str, tmp_path: Path, keys: str) -> None:
    with pytest.raises(ConfigurationError, match="exists already"):
        create_repository(FQRN, SystemPaths(str(tmp_path / "other")), {}, RepositoryOptions("", keys=keys, s3=conf), 1)


def test_its_url_is_that_of_the_bucket(conf: str, bucket: S3Settings, tmp_path: Path, keys: str) -> None:
    made = create_repository(FQRN, SystemPaths(str(tmp_path)), {}, RepositoryOptions("", keys=keys, s3=conf), 1)
    assert made.configuration().stratum0 == bucket.url + FQRN


def test_copied_out_and_in(past: Past, bucket: S3Settings, tmp_path: Path) -> None:
    resign_whitelist(past.repository(), past.now)
    with closing(FolderTarget(str(tmp_path / "copy"))) as target:
        first = export(past.repository(), target)
    assert (first.copied, first.missing) == (first.objects, [])
    second = dataclasses.replace(bucket, bucket="second")
    with closing(Bucket(second)) as made:
        made.request("PUT")
    conf = tmp_path / "second.conf"
    conf.write_text(s3_conf(second))
    paths = SystemPaths(str(tmp_path / "elsewhere"))
    source = Adoption(str(tmp_path / "copy"), past.paths.keys, s3=str(conf))
    report = adopt(FQRN, paths, {}, source, past.now)
    assert report.copy.copied == first.objects
    repository = Repository(FQRN, paths, {})
    assert repository.configuration().stratum0 == second.url + FQRN
    assert repository.head() == past.repository().head()
    check(repository, past.now)
    with pytest.raises(ConfigurationError, match="exists already"):
        adopt(FQRN, paths, {}, source, past.now)


def test_a_commit_that_loses_its_server_anywhere(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head is the old one or the new one, and asking again brings the new one."""
    request = Bucket.request
    left = [0]

    def failing(bucket: Bucket, method: str, *arguments: Any, **more: Any) -> Response:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(5, "the server is gone")
        return request(bucket, method, *arguments, **more)

    monkeypatch.setattr(Bucket, "request", failing)
    failures, allowed = 0, 0
    while True:
        left[0] = 1_000_000
        past.now += 3600
        wanted = past.upload({"/f": b"%d" % (100 + allowed)})
        old = past.repository().head().root_hash
        left[0] = allowed
        try:
            done = past.engine.commit(wanted)
            break
        except EngineError as error:
            said = str(error)
        finally:
            left[0] = 1_000_000
        assert "the server is gone" in said
        failures += 1
        repository = past.repository()
        assert repository.head().root_hash == old
        repository.recover()
        check(repository, past.now)
        allowed += 1
    assert failures > 10
    assert past.repository().head().root_hash == done.root_hash
    check(past.repository(), past.now)
