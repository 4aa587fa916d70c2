"""Nobody waits: how long others take while a commit of 10 s and payloads of 2 GiB are under way (99th percentile).

The commit is a real one: a catalog with so many new entries is merged that it takes that long; the table says how long
it took. Meanwhile packs of one object of 2 GiB come in, one after the other. What others do is asked by a client with
one connection: list leases, list repositories, take, renew and drop a lease; and a publisher commits one small file
after the other to another repository. First all of that is measured on a server that does nothing else.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

from cvmfs_gw.client.gateway import GatewayClient
from cvmfs_gw.client.keys import read_key_file
from cvmfs_gw.client.remote import RemoteStorage
from cvmfs_gw.client.spool import Spool, SpoolPack
from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.compression import deflate
from cvmfs_objstore.formats.manifest import SignedManifest
from cvmfs_objstore.hashes import Algorithm, ContentHash
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.objects import ObjectStore
from tests.bench.commit import directory_entry, file_entry
from tests.bench.servers import FQRN, Server, ours
from tests.bench.table import Row

OTHER: Final = "other.example.org"
_SIZE: Final = 2 << 30
_ENTRIES: Final = 700_000
"""New entries of the long commit."""
_QUIET_S: Final = 5.0
_TARGET: Final = "50"
_serial = itertools.count()


@dataclass(frozen=True, slots=True)
class Revision:
    """What a publisher has ready: its base, its result, and the packs of what is new in it."""

    base: ContentHash
    result: ContentHash
    packs: list[SpoolPack]


@dataclass
class Times:
    """Seconds of each kind of request."""

    of: dict[str, list[float]] = field(default_factory=dict)

    def add(self, other: dict[str, list[float]]) -> None:
        for name, times in other.items():
            self.of.setdefault(name, []).extend(times)


def rows(rounds: int) -> list[Row]:
    """Quiet first, then *rounds* times beside a long commit."""
    quiet, busy = Times(), Times()
    took: list[float] = []
    with ours(web=True, repositories=(FQRN, OTHER)) as server:
        _measure(server, quiet, lambda: threading.Event().wait(_QUIET_S))
        for number in range(rounds):
            revision = prepare(server, FQRN, f"long{number}", _ENTRIES)
            _measure(server, busy, lambda revision=revision: took.append(_work(server, revision)))  # type: ignore[misc]
    result = [Row("the long commit (median)", statistics.median(took), None, "s", "10")]
    for name, times in busy.of.items():
        result.append(Row(f"{name}, quiet", _percentile(quiet.of[name]), None, "ms"))
        result.append(Row(f"{name}, busy ({len(times)})", _percentile(times), None, "ms", _TARGET))
    return result


def _measure(server: Server, times: Times, work: Callable[[], object]) -> None:
    """Ask for this and that for as long as *work* takes."""
    probe = server.client("probe", "probe", pause=0.01, renew=True).go()
    publisher = _Publisher(server)
    publisher.start()
    try:
        work()
    finally:
        publisher.stop.set()
        publisher.join()
        times.add(probe.result()["times"])
        times.add({"commit to another repository": publisher.times})


def _work(server: Server, revision: Revision) -> float:
    """One long commit with payloads beside it for as long as it takes; returns its seconds."""
    done = threading.Event()

    def send() -> None:
        while not done.is_set():
            server.client("payload", f"big{next(_serial)}", count=1, size=_SIZE).go().result()
            _throw_away_large_objects(server)  # or memory would be full of them

    sender = threading.Thread(target=send)
    with closing(_gateway(server, FQRN)) as gateway:
        token = gateway.acquire(f"{FQRN}/long")
        for pack in revision.packs:
            gateway.upload(token, pack)
        sender.start()
        try:
            return _commit(gateway, token, revision)
        finally:
            done.set()
            sender.join()


def _throw_away_large_objects(server: Server) -> None:
    for path in (server.root / "srv/cvmfs" / FQRN / "data").glob("[0-9a-f][0-9a-f]/*"):
        if path.stat().st_size == _SIZE:
            path.unlink()


class _Publisher(threading.Thread):
    """Commits a small file after the other."""

    def __init__(self, server: Server) -> None:
        super().__init__(name="publisher")
        self._server = server
        self.times: list[float] = []
        self.stop = threading.Event()

    def run(self) -> None:
        with closing(_gateway(self._server, OTHER)) as gateway:
            while not self.stop.wait(0.05):
                revision = prepare(self._server, OTHER, f"small{next(_serial)}", 1)
                token = gateway.acquire(f"{OTHER}/small")
                for pack in revision.packs:
                    gateway.upload(token, pack)
                self.times.append(_commit(gateway, token, revision))


def _gateway(server: Server, fqrn: str) -> GatewayClient:
    return GatewayClient(
        f"http://127.0.0.1:{server.port}/api/v1", read_key_file(str(server.root / f"etc/cvmfs/keys/{fqrn}.gw"))
    )


def _commit(gateway: GatewayClient, token: str, revision: Revision) -> float:
    started = time.perf_counter()
    gateway.commit(token, revision.base, revision.result, "")
    return time.perf_counter() - started


def prepare(server: Server, fqrn: str, name: str, entries: int) -> Revision:
    """A result with that many new files of one content in a new directory ``/long`` or ``/small``."""
    top = "/" + name.rstrip("0123456789")
    web = f"http://127.0.0.1:{server.web}/cvmfs/{fqrn}"
    with closing(LocalStorage(str(server.root / "srv/cvmfs" / fqrn), durable=False)) as storage:
        base = SignedManifest.parse(storage.read(".cvmfspublished")).manifest.root_hash
    spool = Spool(str(server.root))
    objects = ObjectStore(RemoteStorage(web, spool))
    content = objects.add(name.encode(), Algorithm.SHA1, deflate=deflate)
    with closing(CatalogTree(CatalogStore(objects), base)) as tree:
        if tree.get(top) is None:
            tree.put(top, directory_entry(top[1:]), (), None)
        entry = file_entry("", content)._replace(size=len(name))
        for number in range(entries):
            new = f"{name}-{number}"
            tree.put(f"{top}/{new}", entry._replace(name=new), (), None)
        root, _ = tree.store(int(time.time()), Algorithm.SHA1)
    return Revision(base, root.hash, [SpoolPack(spool, [*spool.items()])])


def _percentile(times: list[float]) -> float:
    """The 99th, in milliseconds."""
    return sorted(times)[int(len(times) * 0.99)] * 1000
