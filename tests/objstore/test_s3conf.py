"""What is taken from ``s3.conf``."""

from __future__ import annotations

import pytest

from cvmfs_objstore.errors import FormatError
from cvmfs_objstore.s3conf import S3Settings

NEEDED = {
    "CVMFS_S3_HOST": "s3.example.org",
    "CVMFS_S3_BUCKET": "cvmfs",
    "CVMFS_S3_ACCESS_KEY": "access",
    "CVMFS_S3_SECRET_KEY": "hidden",
}


def settings(**more: str) -> S3Settings:
    return S3Settings.of(NEEDED | {f"CVMFS_S3_{name}": value for name, value in more.items()})


def test_defaults() -> None:
    assert settings() == S3Settings("s3.example.org", "cvmfs", "access", "hidden")
    assert settings().url == "http://cvmfs.s3.example.org/"


def test_everything() -> None:
    found = settings(
        PORT="8443",
        DNS_BUCKETS="false",
        REGION="eu",
        USE_HTTPS="yes",
        PROXY="proxy:3128",
        MAX_NUMBER_OF_PARALLEL_CONNECTIONS="64",
        MAX_RETRIES="5",
        TIMEOUT="7",
        X_AMZ_ACL="",
        PEEK_BEFORE_PUT="no",
    )
    assert found == S3Settings(
        "s3.example.org",
        "cvmfs",
        "access",
        "hidden",
        port=8443,
        dns_buckets=False,
        region="eu",
        https=True,
        proxy="http://proxy:3128",
        connections=64,
        retries=5,
        timeout_s=7,
        acl="",
        peek=False,
    )
    assert found.url == "https://s3.example.org:8443/cvmfs/"


@pytest.mark.parametrize(
    ("more", "region"),
    [
        ({}, None),
        ({"REGION": "eu"}, "eu"),
        ({"REGION": ""}, ""),
        ({"FLAVOR": "awsv2", "REGION": "eu"}, None),
        ({"FLAVOR": "awsv4"}, ""),
    ],
)
def test_signatures(more: dict[str, str], region: str | None) -> None:
    assert settings(**more).region == region


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_needed(name: str) -> None:
    with pytest.raises(FormatError, match=name):
        S3Settings.of({key: value for key, value in NEEDED.items() if key != name})


@pytest.mark.parametrize(
    "more",
    [
        {"FLAVOR": "azure"},
        {"FLAVOR": "awsv5"},
        {"X_AMZ_ACL": "everybody"},
        {"PORT": "65536"},
        {"TIMEOUT": "soon"},
        {"MAX_NUMBER_OF_PARALLEL_CONNECTIONS": "0"},
        {"MAX_RETRIES": "-1"},
    ],
)
def test_what_is_refused(more: dict[str, str]) -> None:
    with pytest.raises(FormatError, match=f"CVMFS_S3_{next(iter(more))}"):
        settings(**more)


def test_the_secret_is_not_shown() -> None:
    assert "hidden" not in repr(settings())
