from __future__ import annotations

import pytest

from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.serverconf import UPSTREAM_OVERRIDE, ServerConf, ServerConfError, Upstream
from cvmfs_objstore.errors import InvalidHash
from cvmfs_objstore.hashes import Algorithm
from tests.gateway.support import write

MADE_BY_MKFS = """\
# Created by cvmfs_server.
CVMFS_CREATOR_VERSION=2.12.7-143
CVMFS_REPOSITORY_NAME=test.example.org
CVMFS_STRATUM0=http://localhost/cvmfs/test.example.org
CVMFS_UPSTREAM_STORAGE=local,/srv/cvmfs/test.example.org/data/txn,/srv/cvmfs/test.example.org
CVMFS_HASH_ALGORITHM=shake128
CVMFS_COMPRESSION_ALGORITHM=none
CVMFS_AUTO_TAG=false
CVMFS_AUTO_TAG_TIMESPAN="4 weeks ago"
CVMFS_GARBAGE_COLLECTION=true
CVMFS_AUTOCATALOGS=yes
CVMFS_AUTOCATALOGS_MAX_WEIGHT=500
"""


def values(text: str) -> dict[str, str]:
    return dict(ServerConf.parse(text.splitlines(keepends=True)).values)


def test_a_real_one() -> None:
    conf = ServerConf.parse(MADE_BY_MKFS.splitlines())
    assert conf.stratum0 == "http://localhost/cvmfs/test.example.org"
    assert conf.upstream() == Upstream("local", "/srv/cvmfs/test.example.org/data/txn", "/srv/cvmfs/test.example.org")
    assert conf.upstream().is_local
    assert conf.hash_algorithm is Algorithm.SHAKE128
    assert conf.compression_algorithm == "none"
    assert not conf.auto_tag
    assert conf.auto_tag_timespan == "4 weeks ago"
    assert conf.garbage_collection
    assert conf.autocatalogs
    assert (conf.autocatalogs_max_weight, conf.autocatalogs_min_weight) == (500, 1000)


def test_defaults() -> None:
    conf = ServerConf()
    assert conf.hash_algorithm is Algorithm.SHA1
    assert conf.compression_algorithm == "default"
    assert conf.auto_tag
    assert not conf.garbage_collection
    assert not conf.volatile
    assert not conf.enforce_limits
    assert not conf.upload_stats_db
    assert conf.ttl is conf.nested_kcatalog_limit is conf.root_kcatalog_limit is conf.file_mbyte_limit is None
    with pytest.raises(ServerConfError, match="CVMFS_UPSTREAM_STORAGE"):
        conf.upstream()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("A=x", {"A": "x"}),
        ("  A = x  ", {"A": "x"}),
        ("export A=x", {"A": "x"}),
        ("readonly A=x\r\n", {"A": "x"}),
        ("A='x y'", {"A": "x y"}),
        ('A="x=y"', {"A": "x=y"}),
        ("A=x=y", {"A": "x=y"}),
        ('A=""', {"A": ""}),
        ("A=", {"A": ""}),
        ("A=x # comment", {"A": "x"}),
        ("A='x # y' # comment", {"A": "x # y"}),
        ("A=x#y", {"A": "x#y"}),
        ("A='x", {"A": "'x"}),
        ("# A=x", {}),
        ("", {}),
        ("echo A", {}),
        ("if [ 1 = 2 ]; then", {}),
        ("A=$(touch /tmp/executed)", {"A": "$(touch /tmp/executed)"}),
        ("A=1\nA=2", {"A": "2"}),
    ],
)
def test_lines(line: str, expected: dict[str, str]) -> None:
    assert values(line) == expected


@pytest.mark.parametrize("text", ["true", "TRUE", "Yes", "on", "1"])
def test_on(text: str) -> None:
    assert ServerConf({"A": text}).flag("A")


@pytest.mark.parametrize("text", ["false", "no", "off", "0", "", "2", "enabled"])
def test_off(text: str) -> None:
    assert not ServerConf({"A": text}).flag("A", default=True)


@pytest.mark.parametrize(("text", "number"), [("5", 5), (" 7k", 7), ("x", 0), ("", 0), ("-3", 0)])
def test_numbers(text: str, number: int) -> None:
    assert ServerConf({"A": text}).number("A") == number
    assert ServerConf({"A": text}).limit("A") == (number or None)


def test_limits() -> None:
    conf = ServerConf(
        {
            "CVMFS_NESTED_KCATALOG_LIMIT": "500",
            "CVMFS_ROOT_KCATALOG_LIMIT": "200",
            "CVMFS_FILE_MBYTE_LIMIT": "1024",
            "CVMFS_ENFORCE_LIMITS": "true",
            "CVMFS_REPOSITORY_TTL": "120",
        }
    )
    assert (conf.nested_kcatalog_limit, conf.root_kcatalog_limit, conf.file_mbyte_limit) == (500, 200, 1024)
    assert (conf.enforce_limits, conf.ttl) == (True, 120)


def test_upstreams() -> None:
    conf = ServerConf({"CVMFS_UPSTREAM_STORAGE": "gw,/tmp,http://localhost:4929/api/v1"})
    assert conf.upstream() == Upstream("gw", "/tmp", "http://localhost:4929/api/v1")
    assert conf.upstream({UPSTREAM_OVERRIDE: "local,/t,/s"}).location == "/s"
    in_file = ServerConf({**conf.values, UPSTREAM_OVERRIDE: "S3,/t,bucket@/etc/s3.conf,with,commas"})
    assert in_file.upstream() == Upstream("S3", "/t", "bucket@/etc/s3.conf,with,commas")
    assert in_file.upstream({UPSTREAM_OVERRIDE: "local,/t,/s"}).kind == "local"
    for text in ("local", "local,/t", "local,,/s", ",,"):
        with pytest.raises(ServerConfError):
            Upstream.parse(text)


def test_unknown_hash() -> None:
    with pytest.raises(InvalidHash):
        _ = ServerConf({"CVMFS_HASH_ALGORITHM": "md5"}).hash_algorithm


def test_files(paths: SystemPaths) -> None:
    path = write(paths.server_conf("a.example.org"), "A=/x/@fqrn@/@org@\n")
    assert ServerConf.load(path, "a.example.org").get("A") == "/x/a.example.org/a"
    with pytest.raises(ServerConfError, match="cannot read"):
        ServerConf.load(paths.server_conf("missing"))
    with pytest.raises(ServerConfError, match="B is not set"):
        ServerConf.load(path).require("B")
