"""What the gateway's tests share: a clock, an engine that does nothing, keys, packs, and an HTTP client."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from cvmfs_gw.engine.commit_api import CommitOutcome, CommitRequest
from cvmfs_gw.engine.errors import PathViolation
from cvmfs_gw.gateway.authorization import Key, sign
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.formats.objectpack import PackBuilder, header_digest
from cvmfs_objstore.hashes import ContentHash, Suffix
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.objects import ObjectStore

FQRN = "test.example.org"
OTHER = "other.example.org"

KEY = Key("key1", b"secret1")
RESTRICTED = Key("key2", b"secret2")
STRANGER = Key("key3", b"secret3")
ADMIN = Key("boss", b"bosssecret", admin=True)
UNKNOWN = Key("nobody", b"nothing")

REPO_JSON: dict[str, Any] = {
    "version": 2,
    "repos": [
        {
            "domain": FQRN,
            "keys": [
                {"id": "key1", "path": "/"},
                {"id": "key2", "path": "/restricted"},
                {"id": "key3", "path": "/"},
            ],
        },
        {"domain": OTHER, "keys": [{"id": "key1", "path": "/"}]},
    ],
    "keys": [
        {"type": "plain_text", "id": "key1", "secret": "secret1"},
        {"type": "plain_text", "id": "key2", "secret": "secret2"},
        {"type": "plain_text", "id": "key3", "secret": "secret3"},
        {"type": "plain_text", "id": "boss", "secret": "bosssecret", "admin": True},
    ],
}


def staged(store: ObjectStore) -> list[str]:
    """What is half written in a local storage."""
    assert isinstance(store.storage, LocalStorage)
    return os.listdir(os.path.join(store.storage.root, "data/txn"))


def catalog(text: str) -> ContentHash:
    """The hash of a catalog that is made up."""
    return ContentHash.of(text.encode(), suffix=Suffix.CATALOG)


OLD = catalog("old")
NEW = catalog("new")


class Clock:
    """A clock that stands still, in milliseconds."""

    def __init__(self, now: int = 1_700_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, milliseconds: int) -> None:
        self.now += milliseconds


@dataclass
class FakeEngine:
    """Answers commits with growing revisions. ``gate``: commits wait for it; ``failures``: what the next ones raise."""

    requests: list[CommitRequest] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    not_leasable: set[str] = field(default_factory=set)
    gate: threading.Event | None = None
    running: int = 0
    most_running: int = 0
    _lock: threading.Condition = field(default_factory=threading.Condition)

    async def entered(self, count: int = 1) -> None:
        """Wait until *count* commits are running."""

        def wait() -> None:
            with self._lock:
                assert self._lock.wait_for(lambda: self.running >= count, 20)

        await asyncio.to_thread(wait)

    def prepare(self, fqrn: str, catalogs: tuple[ContentHash, ...]) -> None:
        pass

    def check_lease(self, fqrn: str, lease_path: str) -> None:
        if lease_path in self.not_leasable:
            raise PathViolation(f"nothing can be published at {lease_path}")

    def commit(self, request: CommitRequest) -> CommitOutcome:
        with self._lock:
            self.requests.append(request)
            revision = len(self.requests)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self._lock.notify_all()
        try:
            if self.gate is not None:
                assert self.gate.wait(20), "the gate was never opened"
            with self._lock:
                if self.failures:
                    raise self.failures.pop(0)
            return CommitOutcome(revision, catalog(f"root {revision}"), request.tag_name, phases={"publish": 0.25})
        finally:
            with self._lock:
                self.running -= 1


async def until(condition: Callable[[], object]) -> None:
    """Let everything else go on until *condition* holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


def write(path: str, content: str | dict[str, Any]) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(content if isinstance(content, str) else json.dumps(content))
    return path


def write_access(paths: SystemPaths, content: dict[str, Any] | None = None) -> None:
    write(paths.access_config, content or REPO_JSON)


def pack(objects: Sequence[bytes], suffix: Suffix = Suffix.NONE) -> tuple[bytes, bytes]:
    """Header and bytes of a pack."""
    builder = PackBuilder()
    for data in objects:
        builder.add(ContentHash.of(data, suffix=suffix), data)
    header = builder.header()
    return header, b"".join(builder.stream())[len(header) :]


def digest_of(header: bytes) -> str:
    return str(header_digest(header))


def make_certificate(folder: Path, name: str) -> tuple[str, str]:
    """Files with a certificate for loopback and its key."""
    certificate, key = str(folder / f"{name}.crt"), str(folder / f"{name}.key")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
    ]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-out", certificate, "-keyout", key]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@dataclass
class Api:
    """An HTTP client that signs."""

    session: aiohttp.ClientSession
    url: str

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: Key | None = None,
        signed: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON. *signed* is the body unless it is given; every reply must be JSON in one piece."""
        data = body if body is None or not isinstance(body, dict) else json.dumps(body).encode()
        sent = {"Content-Type": "application/x-www-form-urlencoded"}
        if key is not None:
            sent["Authorization"] = sign(key, data or b"" if signed is None else signed)
        sent.update(headers or {})
        if isinstance(data, bytes):
            data = io.BytesIO(data)
        async with self.session.request(method, self.url + path, data=data, headers=sent) as response:
            assert response.content_type == "application/json"
            assert "Content-Length" in response.headers
            assert "Transfer-Encoding" not in response.headers
            raw = await response.read()
            reply = json.loads(raw) if raw else {}
            assert isinstance(reply, dict)
            return response.status, reply

    async def lease(self, path: str, key: Key = KEY, **fields: Any) -> dict[str, Any]:
        body = {"path": path, "api_version": "2", "hostname": "host.example.org", **fields}
        status, reply = await self.call("POST", "/leases", body, key=key)
        assert status == 200
        return reply

    async def token(self, path: str = f"{FQRN}/a", key: Key = KEY) -> str:
        reply = await self.lease(path, key)
        assert reply["status"] == "ok", reply
        return str(reply["session_token"])

    async def commit(
        self, token: str, key: Key = KEY, *, old: ContentHash = OLD, new: ContentHash = NEW, **fields: Any
    ) -> dict[str, Any]:
        body = {"old_root_hash": str(old), "new_root_hash": str(new), "tag_name": "", **fields}
        status, reply = await self.call("POST", f"/leases/{token}", body, key=key, signed=token.encode())
        assert status == 200
        return reply

    async def payload(
        self,
        token: str,
        header: bytes,
        data: Any,
        key: Key = KEY,
        *,
        in_url: bool = False,
        headers: dict[str, str] | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Send a pack; *data* may be bytes or something that aiohttp streams, which then holds the header, too."""
        head_fields = {
            "session_token": token,
            "payload_digest": digest_of(header),
            "header_size": str(len(header)),
            "api_version": "2",
            **(fields or {}),
        }
        head = json.dumps(head_fields).encode()
        body = head + header + data if isinstance(data, bytes) else data(head)
        return await self.call(
            "POST",
            f"/payloads/{token}" if in_url else "/payloads",
            body,
            key=key,
            signed=token.encode() if in_url else head,
            headers={"Message-Size": str(len(head)), **(headers or {})},
        )
