"""Signed requests to one S3 bucket, over a pool of connections.

What is sent again: requests that were not answered, or by 429, 500, 502, 503 or 504, at once and then after 0.2, 0.4
... 2 seconds, or when the answer says. All that is ever asked can be asked again.

Signatures are botocore's, connections and repetitions urllib3's. botocore's own client takes 2 ms of a processor for a
request, which holds up a server with 2,000 small objects for seconds; both of these take a quarter of a millisecond.

Source: the API reference of Amazon S3; "Signing and authenticating REST requests", versions 2 and 4.
"""

from __future__ import annotations

import base64
import errno
import hashlib
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

import urllib3
from botocore.auth import HmacV1Auth, S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from cvmfs_objstore.s3conf import S3Settings

SPARE: Final = 4
"""Connections beside those for bulk work, so that who waits for one answer does not wait for a pool of uploads."""
_READS: Final = frozenset({"GET", "HEAD"})
_AGAIN: Final = frozenset({429, 500, 502, 503, 504})
_LONGEST_WAIT_S: Final = 10
_ERRORS: Final = {401: errno.EACCES, 403: errno.EACCES, 507: errno.ENOSPC}
_REASON: Final = 200

Response = urllib3.BaseHTTPResponse


class Bucket:
    """Sends requests for the keys of a bucket. Thread-safe."""

    def __init__(self, settings: S3Settings) -> None:
        self.settings = settings
        self._url = settings.url
        host, path = urlsplit(self._url).netloc, urlsplit(self._url).path
        self._host = host
        # version 2 signs the bucket as a part of the path, wherever it is
        self._signed_root = f"/{settings.bucket}/" if settings.dns_buckets else path
        credentials = Credentials(settings.access_key, settings.secret_key)
        self._signer: HmacV1Auth | S3SigV4Auth
        if settings.region is None:
            self._signer = HmacV1Auth(credentials)
        else:
            self._signer = S3SigV4Auth(credentials, "s3", settings.region)
        timeout = urllib3.Timeout(connect=settings.timeout_s, read=settings.timeout_s)
        retries = urllib3.Retry(
            settings.retries,
            redirect=False,
            allowed_methods=None,
            status_forcelist=_AGAIN,
            backoff_factor=0.1,
            backoff_max=2,
            backoff_jitter=0.05,
            raise_on_status=False,
            retry_after_max=_LONGEST_WAIT_S,
        )
        size = settings.connections + SPARE
        self._pool = (
            urllib3.ProxyManager(settings.proxy, 1, maxsize=size, block=True, timeout=timeout, retries=retries)
            if settings.proxy
            else urllib3.PoolManager(1, maxsize=size, block=True, timeout=timeout, retries=retries)
        )

    def __repr__(self) -> str:
        return f"Bucket({self._url!r})"

    def close(self) -> None:
        """End all connections."""
        self._pool.clear()

    def request(
        self,
        method: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        accept: tuple[int, ...] = (),
    ) -> Response:
        """The answer, read to its end: a success, or one of the statuses that are to be accepted.

        Raises ``OSError`` for all others, and where there is none.
        """
        path = quote(key, safe="/~")
        # "uploads" and not "uploads=", which version 2 would have to sign otherwise
        tail = "&".join(f"{name}={quote(value, safe='~')}" if value else name for name, value in (query or {}).items())
        signed = AWSRequest(
            method,
            self._url + path + ("?" + tail if tail else ""),
            dict(headers or {}),
            body,
            None,
            self._signed_root + path,
        )
        if body and self.settings.region is None:
            # version 2 does not sign the body, so this is what vouches for it
            signed.headers["Content-MD5"] = content_md5(body)
        self._signer.add_auth(signed)
        url = signed.url
        assert url is not None
        try:
            answer = self._pool.request(
                method, url, body=body or None, headers=dict(signed.headers.items()), redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise OSError(errno.EIO, f"S3 at {self._host}: {method} {key}: {_without_pool(error)}") from error
        if answer.status < 300 and (method in _READS or not _is_error(answer)):
            return answer
        if answer.status in accept:
            return answer
        raise OSError(
            _ERRORS.get(answer.status, errno.EIO),
            f"S3 at {self._host}: {method} {key}: {answer.status} {_reason(answer)}",
        )


def content_md5(body: bytes) -> str:
    """What the header ``Content-MD5`` says of *body*."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def error_code(answer: Response) -> str:
    """S3's word for what is wrong (``NoSuchKey``); ``""`` where the answer has none."""
    try:
        root = ElementTree.fromstring(answer.data)
    except ElementTree.ParseError:
        return ""
    return root.findtext("Code", "") or root.findtext("{*}Code", "")


def _is_error(answer: Response) -> bool:
    """Whether a copy, or the end of an upload in parts, has failed after its status had been sent."""
    return answer.status == 200 and b"<Error>" in answer.data[:1024] and error_code(answer) != ""


def _reason(answer: Response) -> str:
    return (error_code(answer) or answer.reason or "")[:_REASON]


def _without_pool(error: BaseException) -> str:
    """What went wrong, without the names of objects in this process that urllib3 puts before it."""
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason is not None:
        error = error.reason
    if error.args and isinstance(error.args[-1], Exception):
        error = error.args[-1]
    return f"{type(error).__name__}: {str(error).rpartition(': ')[2]}"[:_REASON]
