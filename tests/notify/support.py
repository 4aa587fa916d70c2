"""What the tests of notifications share: signed manifests, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar, TypeVar

from cvmfs_notify.broker import Publication
from cvmfs_notify.messages import Activity
from cvmfs_notify.trust import Anchors
from cvmfs_objstore.errors import ObjectNotFound
from cvmfs_objstore.formats.keychain import Certificate, MasterKey, RepositoryKey
from cvmfs_objstore.formats.manifest import Manifest
from cvmfs_objstore.formats.whitelist import Whitelist
from cvmfs_objstore.hashes import ContentHash, Suffix

FQRN = "test.example.org"
OTHER = "other.example.org"
UNKNOWN = "unknown.example.org"
NOW = datetime(2026, 11, 20, 9, 30, 0, tzinfo=UTC)
DEADLINE_S = 20.0

T = TypeVar("T")


@dataclass(frozen=True)
class Keys:
    """A repository's keys, and those of somebody else."""

    master: MasterKey
    key: RepositoryKey
    certificate: Certificate
    forger: RepositoryKey

    @classmethod
    def generate(cls) -> Keys:
        key = RepositoryKey.generate()
        certificate = Certificate.self_signed(key, FQRN, NOW)
        return cls(MasterKey.generate(), key, certificate, RepositoryKey.generate())

    def manifest(
        self, revision: int, fqrn: str = FQRN, *, published: int = 0, key: RepositoryKey | None = None
    ) -> bytes:
        """A signed manifest."""
        manifest = Manifest(
            root_hash=ContentHash.of(str(revision).encode(), suffix=Suffix.CATALOG),
            root_size=1,
            ttl=240,
            revision=revision,
            fqrn=fqrn,
            certificate=ContentHash.of(self.certificate.pem, suffix=Suffix.CERTIFICATE),
            published=published or 1_700_000_000 + revision,
        )
        return manifest.signed(key or self.key)

    def message(self, revision: int, fqrn: str = FQRN, *, key: RepositoryKey | None = None) -> bytes:
        """An activity message."""
        return Activity(fqrn, self.manifest(revision, fqrn, key=key), "now").serialize()


@dataclass
class FakeSource:
    """Knows :data:`FQRN` and :data:`OTHER`. ``whitelists`` replace the one that is right."""

    keys: Keys
    whitelists: dict[str, bytes] = field(default_factory=dict)

    def anchors(self, fqrn: str) -> Anchors | None:
        if fqrn not in (FQRN, OTHER):
            return None
        # long enough for a hub whose clock is the true one
        whitelist = Whitelist.issue(fqrn, [self.keys.certificate], datetime.now(UTC)).signed(self.keys.master)
        return Anchors(self.keys.master.public_pem, self.whitelists.get(fqrn, whitelist), self._certificate)

    def _certificate(self, name: ContentHash) -> bytes:
        if name != ContentHash.of(self.keys.certificate.pem, suffix=Suffix.CERTIFICATE):
            raise ObjectNotFound(str(name))
        return self.keys.certificate.pem


def publication(revision: int, fqrn: str = FQRN) -> Publication:
    return Publication(fqrn, revision, revision, f"{fqrn} {revision}".encode())


class RawClient:
    """An HTTP client that gets what is on the wire, chunk by chunk."""

    opened: ClassVar[list[RawClient]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}

    @classmethod
    async def connect(cls, port: int) -> RawClient:
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        cls.opened.append(client)
        return client

    @classmethod
    async def get(
        cls, port: int, target: str, *headers: str, body: bytes = b"", agent: str = "", version: str = "1.1"
    ) -> RawClient:
        """Send a GET and read the reply's head."""
        client = await cls.connect(port)
        lines = [f"GET {target} HTTP/{version}", "Host: localhost", *headers]
        if agent:
            lines.append(f"User-Agent: {agent}")
        if body:
            lines += [f"Content-Length: {len(body)}", "Content-Type: application/x-www-form-urlencoded"]
        client.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await client.head()
        return client

    async def head(self) -> None:
        text = (await within(self.reader.readuntil(b"\r\n\r\n"))).decode()
        first, *rest = text.split("\r\n")[:-2]
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in rest)}

    async def chunk(self) -> bytes:
        """The next chunk; empty for the terminating one. Raises ``IncompleteReadError`` at the end of the connection
        and ``ConnectionResetError``."""
        size = int(await within(self.reader.readuntil(b"\r\n")), 16)
        data = await within(self.reader.readexactly(size + 2))
        assert data.endswith(b"\r\n")
        return data[:-2]

    def close(self) -> None:
        self.writer.close()

    @classmethod
    async def close_all(cls) -> None:
        for client in cls.opened:
            client.writer.transport.abort()
            with contextlib.suppress(OSError):
                await client.writer.wait_closed()
        cls.opened.clear()


async def within(work: Awaitable[T]) -> T:
    """The result of *work*; fails when it does not come."""
    return await asyncio.wait_for(work, DEADLINE_S)


async def until(what: str, condition: Callable[[], bool]) -> None:
    """Let the event loop turn until *condition* holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 (turns the event loop)
            await asyncio.sleep(0)
