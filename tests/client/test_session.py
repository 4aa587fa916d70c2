"""A lease while it is held, on connections that break."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cvmfs_gw.client import places
from cvmfs_gw.client import session as module
from cvmfs_gw.client.errors import ClientError, CommitInDoubt, GatewayRefused, GatewayUnreachable, PathBusy
from cvmfs_gw.client.gateway import CommitReply, GatewayClient, NotSupported, Pack
from cvmfs_gw.client.keys import read_key_file
from cvmfs_gw.client.publish import publish
from cvmfs_gw.client.request import Progress
from cvmfs_gw.client.session import Session, divided
from cvmfs_gw.client.spool import Spool, SpoolPack, name_of
from cvmfs_gw.gateway.authorization import Key
from cvmfs_objstore.errors import ObjectNotFound
from cvmfs_objstore.formats.objectpack import PackHeader, PackItem
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from tests.client.support import Server, fill
from tests.engine.repositories import FQRN


@pytest.fixture
def spool() -> Iterator[Spool]:
    with Spool() as made:
        yield made


def put(spool: Spool, data: bytes, suffix: Suffix = Suffix.NONE) -> ContentHash:
    name = ContentHash.of(data, suffix=suffix)
    spool.put(name.path, data)
    return name


# -- the spool


@pytest.mark.parametrize("in_memory", [0, 2, 1000])
def test_spool(spool: Spool, in_memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, each once; large ones in files of their own; read alone and as packs."""
    monkeypatch.setattr(places, "IN_MEMORY", in_memory)
    data = [b"one", b"", b"x" * 3_000_000, b"four"]
    names = [put(spool, piece) for piece in data]
    assert not spool.put(names[0].path, b"one")
    with spool.stage() as staged:
        staged.write(b"sta")
        staged.write(b"ged")
        large = ContentHash.of(b"staged", suffix=Suffix.CHUNK)
        staged.publish(large.path)
    assert [(item.name, item.size) for item in spool.items()] == [
        *((name, len(piece)) for name, piece in zip(names, data, strict=True)),
        (large, 6),
    ]
    assert spool.open(large.path).read() == b"staged"
    assert spool.exists(large.path)
    assert spool.size(names[2].path) == 3_000_000
    with pytest.raises(ObjectNotFound):
        spool.open("data/00/" + "0" * 38)
    items = [[*spool.items()][at] for at in (3, 0, 1, 4, 2)]
    pack = SpoolPack(spool, items)
    content = b"".join(pack.stream())
    assert content == pack.header() + b"four" + b"one" + b"staged" + b"x" * 3_000_000
    assert PackHeader.parse(pack.header()).items == pack.items
    assert len(pack) == 5
    assert pack.size == 3_000_013
    assert (len(spool), spool.total) == (5, 3_000_013)
    assert not spool.exists(".cvmfspublished")
    before = spool.items()
    put(spool, b"later")
    assert len([*before]) == 5


def test_many_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of them are looked up in a file that nobody sees."""
    monkeypatch.setattr(places, "IN_MEMORY", 10)
    monkeypatch.setattr(places, "_BATCH", 7)
    with Spool(str(tmp_path)) as spool:
        names = [put(spool, b"%d" % at, Suffix.CHUNK if at % 2 else Suffix.NONE) for at in range(100)]
        assert [item.name for item in spool.items()] == names
        assert not any(spool.put(name.path, b"again") for name in names)
        assert [spool.open(name.path).read() for name in names] == [b"%d" % at for at in range(100)]
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("suffix", Suffix)
def test_names(algorithm: Algorithm, suffix: Suffix) -> None:
    name = ContentHash.of(b"data", algorithm, suffix)
    assert name_of(name.path) == name


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with Spool(str(tmp_path)) as spool:
        put(spool, b"data")
        spool.stage().write(b"more")
        assert os.listdir(tmp_path) == []


def test_division(monkeypatch: pytest.MonkeyPatch) -> None:
    """By size and number; what is larger than a pack goes alone."""
    monkeypatch.setattr(module, "PACK_SIZE", 10)
    monkeypatch.setattr(module, "PACK_OBJECTS", 3)
    items = [PackItem(ContentHash.of(b"%d" % at), size) for at, size in enumerate((4, 4, 4, 25, 1, 1, 1, 1))]
    assert [[item.size for item in pack] for pack in divided(items)] == [[4, 4], [4], [25], [1, 1, 1], [1]]
    assert list(divided([])) == []


# -- a gateway that breaks


class Shaky(GatewayClient):
    """Takes the first *arriving* objects of a pack, and then the connection breaks, *breaks* times."""

    def __init__(self, breaks: int, arriving: int = 2, knows: bool = True) -> None:
        self.breaks, self.arriving, self.knows = breaks, arriving, knows
        self.there: set[ContentHash] = set()
        self.packs: list[int] = []
        self.released = self.renewed = 0
        self.left: float | None = None

    def missing(self, token: str, items: Sequence[PackItem]) -> list[PackItem]:
        return [item for item in items if not self.knows or item.name not in self.there]

    def upload(self, token: str, pack: Pack) -> None:
        assert isinstance(pack, SpoolPack)
        list(pack.stream())
        self.packs.append(len(pack))
        if self.breaks:
            self.breaks -= 1
            self.there |= {item.name for item in pack.items[: self.arriving]}
            raise GatewayUnreachable("broken")
        self.there |= {item.name for item in pack.items}

    def release(self, token: str) -> None:
        self.released += 1

    def seconds_left(self, token: str) -> float | None:
        return self.left

    def renew(self, token: str) -> float | None:
        self.renewed += 1
        if self.renewed == 1:
            raise GatewayUnreachable("for a moment")
        if self.renewed == 3:
            raise NotSupported("renewal", "HTTP 405")
        return self.left

    def commit(self, *arguments: object) -> CommitReply:
        return CommitReply(2)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0.0)


def test_only_what_is_missing_is_sent_again(spool: Spool) -> None:
    for at in range(7):
        put(spool, b"%d" % at)
    told: list[int] = []
    gateway = Shaky(breaks=2)
    with Session(gateway, "token") as session:
        sent = session.upload(spool.items(), spool, lambda objects, size: told.append(objects))
        session.commit(ContentHash.null(), ContentHash.null(), "", "")
    assert gateway.packs == [7, 5, 3]
    assert len(gateway.there) == 7
    assert (sent, told) == ((3, 3), [3])
    assert gateway.released == 0
    gateway = Shaky(breaks=1, knows=False)
    with Session(gateway, "token") as session:
        session.upload(spool.items(), spool, lambda objects, size: None)
    assert gateway.packs == [7, 7]
    assert gateway.released == 1


def test_connection_that_never_holds(spool: Spool) -> None:
    put(spool, b"data")
    gateway = Shaky(breaks=1000, arriving=0)
    with pytest.raises(GatewayUnreachable), Session(gateway, "token") as session:
        session.upload(spool.items(), spool, lambda objects, size: None)
    assert gateway.released == 1


def test_stopped(spool: Spool) -> None:
    """Nothing is sent any more, and nobody waits for what was being sent."""
    put(spool, b"data")
    gateway = Shaky(breaks=0)
    with Session(gateway, "token") as session:
        session.stop()
        assert session.upload(spool.items(), spool, lambda objects, size: None) == (0, 0)
    assert gateway.packs == []


class Pauses(threading.Event):
    """Notes how long is waited, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.noted.append(timeout)
        return False


@pytest.mark.parametrize(
    ("left", "pauses"),
    [
        (None, [20, 20, 20]),  # the gateway does not say
        (7200.0, [2400, 20, 2400]),  # soon again after a failure
        (30.0, [10, 10, 10]),
        (0.0, [0.1, 0.1, 0.1]),
    ],
)
def test_lease_is_renewed(left: float | None, pauses: list[float]) -> None:
    """After a third of its life, until it is heard that there is no renewal here."""
    gateway = Shaky(breaks=0)
    gateway.left = left
    session = Session(gateway, "token")
    session._ended = noted = Pauses()
    session._keep()
    assert noted.noted == pytest.approx(pauses)
    assert gateway.renewed == 3


# -- our gateway


def test_waiting(server: Server) -> None:
    """In line, until the other one is done; and no longer than was said."""
    waited: list[PathBusy] = []
    with closing(server.client()) as one, closing(server.client()) as two:
        token = one.acquire(f"{FQRN}/t")
        with pytest.raises(PathBusy):
            two.acquire(f"{FQRN}/t", 0.5, waited.append)
        other = threading.Thread(target=lambda: one.release(token))
        got: list[str] = []
        waiting = threading.Thread(target=lambda: got.append(two.acquire(f"{FQRN}/t", 60)))
        waiting.start()
        other.start()
        waiting.join(30)
        other.join(30)
        two.release(got[0])
    assert waited == []  # the gateway itself held the request until time was up


class Losing(GatewayClient):
    """Does not get the first replies to a request for a lease."""

    losses = 2

    def _ask(self, method: str, route: str, *arguments: Any) -> dict[str, object]:
        reply = super()._ask(method, route, *arguments)
        if route == "/leases" and self.losses:
            self.losses -= 1
            raise GatewayUnreachable("cut off")
        return reply


def test_lost_reply_to_a_lease(server: Server) -> None:
    """It is granted again, and to nobody else."""
    key = read_key_file(server.paths.key_file(FQRN, "gw"))
    with (
        closing(Losing(server.gateway, key, sleep=lambda seconds: None)) as client,
        closing(server.client()) as other,
    ):
        token = client.acquire(f"{FQRN}/t")
        assert client.losses == 0
        with pytest.raises(PathBusy):
            other.acquire(f"{FQRN}/t")
        assert client.renew(token)
        client.release(token)
        other.release(other.acquire(f"{FQRN}/t"))


def test_lost_lease_that_is_not_granted_again() -> None:
    """By the reference, which says that it is busy, and cannot say by whom."""

    class Reference(GatewayClient):
        asked = 0

        def _ask(self, *arguments: object) -> dict[str, object]:
            self.asked += 1
            if self.asked == 1:
                raise GatewayUnreachable("cut off")
            return {"status": "path_busy", "time_remaining": "9m"}

    client = Reference("http://127.0.0.1:1/api/v1", Key("id", b"secret"), sleep=lambda seconds: None)
    with pytest.raises(PathBusy, match="or by us"):
        client.acquire("a.b/c")
    client.close()


def test_polling() -> None:
    """A gateway without a line is asked again and again, with pauses that grow and differ."""
    pauses: list[float] = []

    class Busy(GatewayClient):
        def _call(self, *arguments: object, **options: object) -> dict[str, object]:
            if len(pauses) < 6:
                return {"status": "path_busy", "time_remaining": "9m"}
            return {"status": "ok", "session_token": "token"}

    waited: list[PathBusy] = []
    client = Busy("http://127.0.0.1:1/api/v1", Key("id", b"secret"), sleep=pauses.append)
    assert client.acquire("a.b/c", 1000, waited.append) == "token"
    assert len(pauses) == len(waited) == 6
    assert pauses[-1] > pauses[0]
    assert len(set(pauses)) == 6
    client.close()


def test_what_is_missing(server: Server, spool: Spool) -> None:
    here, gone = put(spool, b"here"), put(spool, b"gone", Suffix.CHUNK)
    server.repository.objects.put(here, b"here")
    with closing(server.client()) as client:
        token = client.acquire(f"{FQRN}/t")
        assert [item.name for item in client.missing(token, [*spool.items()])] == [gone]
        assert client.seconds_left(token) == pytest.approx(7200, abs=60)
        assert client.renew(token) == pytest.approx(7200, abs=60)
        client.release(token)
        with pytest.raises(GatewayRefused):
            client.missing(token, [*spool.items()])


def test_gateway_that_cannot(server: Server, spool: Spool) -> None:
    """As the reference: no renewal, no question for objects."""
    put(spool, b"data")
    with closing(server.client()) as client:
        client._url += "/elsewhere"
        with pytest.raises(NotSupported):
            client.renew("token")
        assert client.missing("token", [*spool.items()]) == [*spool.items()]
        with pytest.raises(NotSupported):
            client.release("token")


def test_lost_reply_to_a_commit(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody says what became of it, the head does: the commit is done once."""
    folder = fill(tmp_path / "source", {"a/b": b"data"})
    commit = GatewayClient.commit
    asked: list[int] = []

    def lost(self: GatewayClient, *arguments: object) -> CommitReply:
        asked.append(1)
        commit(self, *arguments)  # type: ignore[arg-type]
        raise CommitInDoubt("the reply was lost")

    monkeypatch.setattr(GatewayClient, "commit", lost)
    report = server.publish(folder)
    assert (report.revision, report.changed, asked) == (2, True, [1])
    assert server.read() == {"/t": None, "/t/a": None, "/t/a/b": b"data"}


def test_lost_commit(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*arguments: object) -> CommitReply:
        raise CommitInDoubt("nothing arrived")

    monkeypatch.setattr(GatewayClient, "commit", lost)
    monkeypatch.setattr("cvmfs_gw.client.publish.DOUBT_S", 0.0)
    with pytest.raises(CommitInDoubt):
        server.publish(fill(tmp_path / "source", {"a": b"data"}))
    assert server.revision == 1


def test_interrupted(server: Server, tmp_path: Path) -> None:
    """Ctrl-C while something is sent: the lease is given back."""

    class Interrupting(Progress):
        def sending(self, objects: int, size: int) -> None:
            raise KeyboardInterrupt

    folder = fill(tmp_path / "source", {"a": b"data"})
    with pytest.raises(KeyboardInterrupt):
        publish(server.request(folder), Interrupting())
    with closing(server.client()) as client:
        client.release(client.acquire(f"{FQRN}/t"))
    assert server.revision == 1


def test_head_moves_within_the_path(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody published to the very path before it was leased: in the end it is equal to what came last."""
    ours = fill(tmp_path / "ours", {"same": b"1", "ours": b"1"})
    theirs = fill(tmp_path / "theirs", {"theirs": b"2", "deep/file": b"2"})
    acquire = GatewayClient.acquire

    def late(self: GatewayClient, *arguments: object) -> str:
        monkeypatch.undo()
        server.publish(theirs)
        return acquire(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(GatewayClient, "acquire", late)
    report = server.publish(ours)
    assert report.revision == 3
    assert server.read() == {"/t": None, "/t/same": b"1", "/t/ours": b"1"}
    with pytest.raises(ClientError):
        server.publish(ours, "/t/same/below")
