"""Requests to a bucket, as a server sees them that is scripted: it looks at signatures, breaks off, and has trouble."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import re
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cvmfs_objstore.s3conf import S3Settings
from cvmfs_objstore.s3http import Bucket

Answer = tuple[int, dict[str, str], bytes]
ERROR = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>no</Message></Error>"


class Scripted(ThreadingHTTPServer):
    """Answers as *script* says, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: Callable[[_Handler, bytes], Answer] = lambda request, body: (200, {}, b"")
        self.asked: list[str] = []

    @property
    def settings(self) -> S3Settings:
        port = self.server_address[1]
        return S3Settings(
            "127.0.0.1", "cvmfs", "access", "secret", port=port, dns_buckets=False, region="eu", retries=2, timeout_s=5
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(f"{self.command} {self.path}")
        status, headers, content = self.server.script(self, body)
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content if self.command != "HEAD" else b"")
        self.close_connection = headers.get("Connection") == "close"

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Scripted]:
    made = Scripted()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def bucket(server: Scripted) -> Iterator[Bucket]:
    made = Bucket(server.settings)
    yield made
    made.close()


def test_version_2(server: Scripted) -> None:
    """The signature is that of the specification, whatever the bucket's place, and the body is vouched for."""

    def check(request: _Handler, body: bytes) -> Answer:
        headers = request.headers
        assert headers["Content-MD5"] == base64.b64encode(hashlib.md5(body).digest()).decode()
        text = f"PUT\n{headers['Content-MD5']}\nx/y\n{headers['Date']}\nx-amz-acl:private\n/cvmfs/a%20b"
        digest = hmac.digest(b"secret", text.encode(), "sha1")
        good = headers["Authorization"] == f"AWS access:{base64.b64encode(digest).decode()}"
        return (200, {}, b"") if good else (403, {}, ERROR % b"SignatureDoesNotMatch")

    server.script = check
    bucket = Bucket(dataclasses.replace(server.settings, region=None))
    headers = {"Content-Type": "x/y", "x-amz-acl": "private"}
    assert bucket.request("PUT", "a b", headers=headers, body=b"content").status == 200
    bucket.close()
    wrong = Bucket(dataclasses.replace(server.settings, region=None, secret_key="mine"))
    with pytest.raises(PermissionError, match="403 SignatureDoesNotMatch") as caught:
        wrong.request("PUT", "a b", headers=headers, body=b"content")
    assert "mine" not in str(caught.value)
    wrong.close()


def test_version_4(server: Scripted) -> None:
    def signed(key: bytes, *parts: str) -> bytes:
        for part in parts:
            key = hmac.digest(key, part.encode(), "sha256")
        return key

    def check(request: _Handler, body: bytes) -> Answer:
        headers = request.headers
        found = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=access/(\d{8})/eu/s3/aws4_request, SignedHeaders=(\S+), Signature=(\S+)",
            headers["Authorization"],
        )
        assert found is not None
        day, names, signature = found.groups()
        assert {"host", "x-amz-content-sha256", "x-amz-date", "if-none-match"} <= set(names.split(";"))
        payload = hashlib.sha256(body).hexdigest()
        assert headers["X-Amz-Content-SHA256"] == payload
        lines = "".join(f"{name}:{headers[name]}\n" for name in names.split(";"))
        canonical = f"PUT\n/cvmfs/a%2Bb\npartNumber=1&uploadId=u\n{lines}\n{names}\n{payload}"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{headers['X-Amz-Date']}\n{day}/eu/s3/aws4_request\n{digest}"
        good = signature == signed(b"AWS4secret", day, "eu", "s3", "aws4_request", text).hex()
        return (200, {}, b"") if good else (403, {}, ERROR % b"SignatureDoesNotMatch")

    server.script = check
    bucket = Bucket(server.settings)
    query = {"partNumber": "1", "uploadId": "u"}
    assert bucket.request("PUT", "a+b", query=query, headers={"If-None-Match": "*"}, body=b"content").status == 200
    bucket.close()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_trouble_passes(server: Scripted, bucket: Bucket, status: int) -> None:
    trouble: Iterator[Answer] = iter([(status, {}, ERROR % b"SlowDown")] * 2)
    server.script = lambda request, body: next(trouble, (200, {}, body))
    assert bucket.request("PUT", "key", body=b"content").data == b"content"
    assert len(server.asked) == 3


def test_trouble_stays(server: Scripted, bucket: Bucket) -> None:
    server.script = lambda request, body: (503, {}, ERROR % b"SlowDown")
    with pytest.raises(OSError, match="PUT key: 503 SlowDown"):
        bucket.request("PUT", "key", body=b"content")
    assert len(server.asked) == 3


def test_a_connection_that_breaks(server: Scripted, bucket: Bucket) -> None:
    breaks: Iterator[Answer] = iter([(0, {}, b"")])
    server.script = lambda request, body: next(breaks, (200, {}, body))
    assert bucket.request("PUT", "key", body=b"content").data == b"content"
    server.script = lambda request, body: (0, {}, b"")
    with pytest.raises(OSError, match="GET key: "):
        bucket.request("GET", "key")


def test_an_answer_that_is_cut_off(server: Scripted, bucket: Bucket) -> None:
    short: Answer = (200, {"Content-Length": "100", "Connection": "close"}, b"x" * 50)
    answers = iter([short])
    server.script = lambda request, body: next(answers, (200, {}, b"x" * 100))
    assert bucket.request("GET", "key").data == b"x" * 100
    server.script = lambda request, body: short
    with pytest.raises(OSError, match="GET key: IncompleteRead"):
        bucket.request("GET", "key")


def test_no_server(server: Scripted) -> None:
    settings = dataclasses.replace(server.settings, port=1, retries=0)
    bucket = Bucket(settings)
    with pytest.raises(OSError, match="Connection refused") as caught:
        bucket.request("HEAD")
    assert str(caught.value.strerror).startswith("S3 at 127.0.0.1:1: HEAD")
    bucket.close()


def test_a_copy_that_fails_after_its_status(server: Scripted, bucket: Bucket) -> None:
    server.script = lambda request, body: (200, {}, ERROR % b"InternalError")
    with pytest.raises(OSError, match="200 InternalError"):
        bucket.request("PUT", "key", headers={"x-amz-copy-source": "/a/b"})


def test_what_is_accepted(server: Scripted, bucket: Bucket) -> None:
    server.script = lambda request, body: (404, {"Date": formatdate(0, usegmt=True)}, ERROR % b"NoSuchKey")
    assert bucket.request("GET", "key", accept=(404,)).status == 404
    with pytest.raises(OSError, match="404 NoSuchKey"):
        bucket.request("GET", "key")


def test_an_object_that_looks_like_an_error(server: Scripted, bucket: Bucket) -> None:
    """What a GET brings is content, whatever it says."""
    server.script = lambda request, body: (200, {}, ERROR % b"InternalError")
    assert bucket.request("GET", "key").data == ERROR % b"InternalError"


def test_the_secret_is_not_shown(bucket: Bucket) -> None:
    assert "secret" not in repr(bucket)
