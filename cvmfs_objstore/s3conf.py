"""What is in ``s3.conf``, the file that says where an S3 bucket is and who may write to it.

::

    CVMFS_S3_HOST=s3.example.org       CVMFS_S3_PORT=           CVMFS_S3_USE_HTTPS=no
    CVMFS_S3_BUCKET=cvmfs              CVMFS_S3_DNS_BUCKETS=true: the bucket is a part of the host's name
    CVMFS_S3_ACCESS_KEY=...            CVMFS_S3_SECRET_KEY=...
    CVMFS_S3_REGION=                   if it is set, requests are signed by version 4, else by version 2
    CVMFS_S3_FLAVOR=awsv2 | awsv4      ... unless this says otherwise
    CVMFS_S3_MAX_NUMBER_OF_PARALLEL_CONNECTIONS=16    CVMFS_S3_MAX_RETRIES=3    CVMFS_S3_TIMEOUT=60 (seconds)
    CVMFS_S3_X_AMZ_ACL=public-read     CVMFS_S3_PEEK_BEFORE_PUT=yes    CVMFS_S3_PROXY=

Source: "Setup Stratum 0 on S3 storage" in the documentation of CernVM-FS; what its programs take from the file.
Divergence: Azure's own protocol, ``CVMFS_S3_FLAVOR=azure``, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cvmfs_objstore.errors import FormatError

_ON: Final = frozenset({"YES", "ON", "1", "TRUE"})
_ACLS: Final = frozenset(
    {
        "",
        "private",
        "public-read",
        "public-write",
        "authenticated-read",
        "aws-exec-read",
        "bucket-owner-read",
        "bucket-owner-full-control",
    }
)
_MOST_CONNECTIONS: Final = 256


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Where a bucket is and how it is used. *timeout_s* is in seconds; the secret is in no ``repr``."""

    host: str
    bucket: str
    access_key: str
    secret_key: str = field(repr=False)
    port: int | None = None
    dns_buckets: bool = True
    """The bucket is the first part of the host's name, not of the path."""
    region: str | None = None
    """None: requests are signed by version 2."""
    https: bool = False
    proxy: str = ""
    connections: int = 16
    retries: int = 3
    timeout_s: float = 60.0
    acl: str = "public-read"
    """Who may read what is written; ``""``: as the bucket says."""
    peek: bool = True
    """Ask whether a large object is there before it is sent."""

    @classmethod
    def of(cls, values: Mapping[str, str]) -> S3Settings:
        """Those of an ``s3.conf`` with the assignments *values*; raises :exc:`FormatError`."""

        def get(name: str) -> str:
            return values.get(f"CVMFS_S3_{name}", "")

        for name in ("HOST", "BUCKET", "ACCESS_KEY", "SECRET_KEY"):
            if not get(name):
                raise FormatError(f"CVMFS_S3_{name} is not set")
        acl = values.get("CVMFS_S3_X_AMZ_ACL", "public-read")
        if acl not in _ACLS:
            raise FormatError(f"CVMFS_S3_X_AMZ_ACL={acl} is no access control list that S3 knows")
        return cls(
            host=get("HOST"),
            bucket=get("BUCKET"),
            access_key=get("ACCESS_KEY"),
            secret_key=get("SECRET_KEY"),
            port=_number("PORT", get("PORT"), 1, 65535) if get("PORT") else None,
            dns_buckets=get("DNS_BUCKETS") != "false",
            region=_region(get("FLAVOR"), values.get("CVMFS_S3_REGION")),
            https=get("USE_HTTPS").upper() in _ON,
            proxy=_proxy(get("PROXY")),
            connections=_number(
                "MAX_NUMBER_OF_PARALLEL_CONNECTIONS",
                get("MAX_NUMBER_OF_PARALLEL_CONNECTIONS") or "16",
                1,
                _MOST_CONNECTIONS,
            ),
            retries=_number("MAX_RETRIES", get("MAX_RETRIES") or "3", 0, 100),
            timeout_s=_number("TIMEOUT", get("TIMEOUT") or "60", 1, 3600),
            acl=acl,
            peek=values.get("CVMFS_S3_PEEK_BEFORE_PUT", "yes").upper() in _ON,
        )

    @property
    def url(self) -> str:
        """The URL below which the bucket's keys are, with a slash at its end."""
        scheme = "https" if self.https else "http"
        host = self.host if self.port is None else f"{self.host}:{self.port}"
        return f"{scheme}://{self.bucket}.{host}/" if self.dns_buckets else f"{scheme}://{host}/{self.bucket}/"


def _region(flavor: str, region: str | None) -> str | None:
    """The region to sign for by version 4, None for version 2."""
    if flavor == "azure":
        raise FormatError("CVMFS_S3_FLAVOR=azure is not supported: Azure's own protocol is not S3's")
    if flavor not in ("", "awsv2", "awsv4"):
        raise FormatError(f"CVMFS_S3_FLAVOR={flavor} is neither awsv2 nor awsv4")
    if flavor == "awsv2" or (not flavor and region is None):
        return None
    return region or ""


def _proxy(text: str) -> str:
    return text if not text or "://" in text else f"http://{text}"


def _number(name: str, text: str, smallest: int, largest: int) -> int:
    if not text.isdecimal() or not smallest <= int(text) <= largest:
        raise FormatError(f"CVMFS_S3_{name}={text} is not a number from {smallest} to {largest}")
    return int(text)
