"""A server that is killed at random moments under load, again and again.

Writers lease, upload and commit on disjoint paths; the server is killed with SIGKILL and started again. In between, a
client finds the repository whole: signatures, catalogs, objects. After the start everything that operators and
collectors see is right as well, and whoever lost a reply asks again: open leases go on, and each commit is answered and
published exactly once.

``CVMFS_GW_KILLS`` is how often the server is killed, ``CVMFS_GW_SEED`` what is random.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final, TypeVar

import pytest

from cvmfs_gw.client.errors import GatewayRefused, GatewayUnreachable, PathBusy
from cvmfs_gw.client.gateway import CommitReply, GatewayClient
from cvmfs_gw.client.keys import read_key_file
from cvmfs_gw.client.remote import RemoteStorage
from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.changes import Change, Nest, Put, Remove, Unnest
from cvmfs_gw.engine.commit import Engine
from cvmfs_gw.engine.commit_api import CommitRequest
from cvmfs_gw.engine.configure import RepositoryOptions
from cvmfs_gw.engine.create import create_repository
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.transaction import Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.formats.entry import Kind, is_below, parent_path
from cvmfs_objstore.formats.manifest import SignedManifest
from cvmfs_objstore.formats.objectpack import PackBuilder
from cvmfs_objstore.formats.reflog import REFLOG_PATH
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.objects import ObjectStore
from tests.engine.repositories import FQRN, check_chain, check_repository, make_keys, publisher_root, put, tags
from tests.engine.trees import Item, Model, make_entry, read

KILLS: Final = int(os.environ.get("CVMFS_GW_KILLS", "6"))
SEED: Final = int(os.environ.get("CVMFS_GW_SEED", "1"))
WRITERS: Final = 4
KILLS_A_ROUND: Final = 50
"""Then a new repository, so that checks do not take longer and longer."""
LONGEST_WAIT_S: Final = 0.25
"""The longest from the first commit after a start to the next kill."""
DEADLINE_S: Final = 60.0

T = TypeVar("T")


def reserve() -> socket.socket:
    """A port of loopback that nobody else gets while this is open.

    While the server is down, any outgoing connection might take its port. Nobody listens here, so that connections are
    refused until the server does.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> str:
    paths = SystemPaths(str(tmp_path_factory.mktemp("keys")))
    make_keys(FQRN, paths)
    return paths.keys


class Server:
    """The server's process, and the repository as it lies on the disk."""

    def __init__(self, folder: Path, keys: str) -> None:
        self.paths = SystemPaths(str(folder))
        self._reserved = [reserve(), reserve()]
        self.port, self.web_port = (reserved.getsockname()[1] for reserved in self._reserved)
        self.web = f"http://127.0.0.1:{self.web_port}/cvmfs/{FQRN}"
        self.api = f"http://127.0.0.1:{self.port}/api/v1"
        create_repository(FQRN, self.paths, {}, RepositoryOptions(self.web, keys=keys), time.time())
        self.repository = Repository(FQRN, self.paths, {}, durable=False)
        # The root directory becomes one that the plain model knows.
        head = self.repository.head().root_hash
        root = publisher_root(self.repository, head, [put("", Item(Kind.DIRECTORY, 1))], int(time.time()))
        Engine(self.paths, {}).commit(CommitRequest(FQRN, "", head, root))
        self.log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns at once."""
        ports = ["--port", str(self.port), "--web-port", str(self.web_port)]
        command = [sys.executable, "-m", "cvmfs_gw", "--root", self.paths.root, "serve", "--host", "127.0.0.1", *ports]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--in-process"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        """Return when it answers."""
        assert self._process is not None
        deadline = time.monotonic() + DEADLINE_S
        while True:
            assert self._process.poll() is None, f"the server ended\n{self.log.read_text()[-5000:]}"
            try:
                with urllib.request.urlopen(f"{self.api}/repos", timeout=5) as reply:
                    assert reply.status == 200
                    return
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.005)

    def end(self, number: signal.Signals) -> None:
        """Stop or kill it."""
        if self._process is not None:
            process, self._process = self._process, None
            process.send_signal(number)
            process.wait(DEADLINE_S)

    def close(self) -> None:
        self.end(signal.SIGKILL)
        for reserved in self._reserved:
            reserved.close()
        if isinstance(self.repository.storage, LocalStorage):
            self.repository.storage.close()


class Gate:
    """Where writers wait while there is no server."""

    def __init__(self, writers: int) -> None:
        self._changed = threading.Condition()
        self._writers = writers
        self._open = False
        self._waiting = 0
        self.stopping = False

    def wait(self) -> None:
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._open)
            self._waiting -= 1

    def leave(self) -> None:
        with self._changed:
            self._writers -= 1
            self._changed.notify_all()

    def open(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def close(self) -> None:
        """Return when every writer waits."""
        with self._changed:
            self._open = False
            assert self._changed.wait_for(lambda: self._waiting == self._writers, DEADLINE_S), "a writer hangs"


@dataclass
class Commit:
    """One commit, from its lease to its reply. *model* is the writer's tree after it."""

    tag: str
    token: str
    old_root: ContentHash
    new_root: ContentHash
    model: Model
    mountpoints: frozenset[str]
    uploaded: frozenset[ContentHash]
    asked: bool = False
    reply: CommitReply | None = None


@dataclass
class Writer:
    """Publishes changes below ``/w<number>`` until told to stop."""

    number: int
    server: Server
    gate: Gate
    random: random.Random
    model: Model = field(default_factory=dict)
    mountpoints: frozenset[str] = frozenset()
    pending: Commit | None = None
    done: list[Commit] = field(default_factory=list)
    abandoned: frozenset[ContentHash] = frozenset()
    """Catalogs that were uploaded for a lease that was then given up."""
    retried: int = 0
    error: BaseException | None = None
    _scopes: int = 0

    @property
    def top(self) -> str:
        return f"/w{self.number}"

    @property
    def scope(self) -> str:
        return f"{self.top}/{self._scopes}"

    def run(self) -> None:
        key = read_key_file(self.server.paths.key_file(FQRN, "gw"))
        try:
            with closing(GatewayClient(self.server.api, key, patience_s=0)) as gateway:
                while not self.gate.stopping:
                    self._publish(gateway)
        except BaseException as error:
            self.error = error
        finally:
            self.gate.leave()

    def _until_answered(self, call: Callable[[], T]) -> T:
        """Ask again whenever there was no answer."""
        while True:
            self.gate.wait()
            try:
                return call()
            except GatewayUnreachable:
                self.retried += 1

    def _publish(self, gateway: GatewayClient) -> None:
        token = self._until_answered(lambda: self._lease(gateway))
        if token is None:
            # Granted, but the server was killed before the reply: that lease lives on, and nobody has its token.
            self._scopes += 1
            return
        with ExitStack() as stack:
            folder = self.server.paths.root + f"/writer-{self.number}"
            local = stack.enter_context(closing(LocalStorage.create(folder, durable=False)))
            commit, pack = self._until_answered(lambda: self._prepare(local, token))
            self.pending = commit
            self._until_answered(lambda: gateway.upload(token, pack))
            for name in ObjectStore(local).list():
                local.delete(name.path)
        if self.random.random() < 0.05:
            self.pending, self.abandoned = None, self.abandoned | commit.uploaded
            before = self.retried
            try:
                self._until_answered(lambda: gateway.release(token))
            except GatewayRefused:
                assert self.retried > before, "the lease was lost"  # else it was the reply: the lease had ended
            return
        commit.asked = True
        commit.reply = self._until_answered(
            lambda: gateway.commit(token, commit.old_root, commit.new_root, commit.tag, "text")
        )
        self.model, self.mountpoints = commit.model, commit.mountpoints
        self.done.append(commit)
        self.pending = None

    def _lease(self, gateway: GatewayClient) -> str | None:
        try:
            return gateway.acquire(f"{FQRN}{self.scope}")
        except PathBusy:
            return None

    def _prepare(self, local: LocalStorage, token: str) -> tuple[Commit, PackBuilder]:
        """The change as catalogs on top of the present head, and the pack to upload."""
        with closing(RemoteStorage(self.server.web, local)) as remote:
            head = SignedManifest.parse(remote.read(".cvmfspublished")).manifest
            store = CatalogStore(ObjectStore(remote))
            model, mountpoints, changes = self._change()
            with closing(CatalogTree(store, head.root_hash)) as tree:
                Transaction(tree).apply(changes)
                root, stored = tree.store(int(time.time()), Algorithm.SHA1)
        pack = PackBuilder()
        for change in changes:
            if isinstance(change, Put) and change.entry.kind is Kind.FILE:
                entry, seed = change.entry, str(change.entry.mtimens)
                for number, chunk in enumerate(change.chunks):
                    pack.add(entry.chunk_hash(chunk), f"{seed}/{number}".encode())
                if entry.content_hash is not None:
                    pack.add(entry.content_hash, seed.encode())
        for ref in stored:
            pack.add(ref.hash, local.read(ref.hash.path))
        tag = f"{self.number}-{len(self.done)}-{self.random.randrange(1 << 30)}"
        uploaded = frozenset(ref.hash for ref in stored)
        return Commit(tag, token, head.root_hash, root.hash, model, mountpoints, uploaded), pack

    def _change(self) -> tuple[Model, frozenset[str], list[Change]]:
        """The writer's tree after a random change, and the change."""
        model, mountpoints = dict(self.model), set(self.mountpoints)
        removes: list[Change] = []
        puts: dict[str, Put] = {}

        def add(path: str, item: Item) -> None:
            model[path] = item
            puts[path] = put(path, item)

        for folder in (self.top, self.scope):
            if folder not in model:
                add(folder, Item(Kind.DIRECTORY, self._seed()))
        folders = [path for path, item in model.items() if item.kind is Kind.DIRECTORY and is_below(path, self.scope)]
        leaves = [p for p, item in model.items() if item.kind is not Kind.DIRECTORY and is_below(p, self.scope)]
        if leaves and self.random.random() < min(0.8, len(leaves) / 40):
            for path in self.random.sample(leaves, min(3, len(leaves))):
                del model[path]
                removes.append(Remove(path))
        if len(folders) < 8 and self.random.random() < 0.4:
            folder = f"{self.random.choice(folders)}/d{self.random.randrange(1 << 30)}"
            add(folder, Item(Kind.DIRECTORY, self._seed()))
            folders.append(folder)
        for _ in range(self.random.randint(1, 4)):
            kind = self.random.choice((Kind.FILE, Kind.FILE, Kind.FILE, Kind.SYMLINK, Kind.SPECIAL))
            chunks = self.random.choice((0, 0, 2)) if kind is Kind.FILE else 0
            path = f"{self.random.choice(folders)}/f{self.random.randrange(30)}"
            if path not in {remove.path for remove in removes if isinstance(remove, Remove)}:
                add(path, Item(kind, self._seed(), chunks))
        nestings: list[Change] = []
        if self.random.random() < 0.3:
            folder = self.random.choice(folders)
            nestings.append(Unnest(folder) if folder in mountpoints else Nest(folder))
            mountpoints ^= {folder}
        in_order = sorted(puts.values(), key=lambda change: change.entry.kind is not Kind.DIRECTORY)
        return model, frozenset(mountpoints), [*removes, *in_order, *nestings]

    def _seed(self) -> int:
        return self.random.randrange(1 << 29)


class Round:
    """One repository, and the kills that it goes through."""

    def __init__(self, server: Server, generator: random.Random, counts: Counter[str], starts: list[float]) -> None:
        self.server, self.random, self.counts, self.starts = server, generator, counts, starts
        self.first = server.repository.head().revision
        self.gate = Gate(WRITERS)
        self.writers = [Writer(n, server, self.gate, random.Random(generator.random())) for n in range(WRITERS)]
        self._verified: set[ContentHash] = set()

    def run(self, kills: int) -> None:
        server, gate = self.server, self.gate
        server.start()
        server.wait()
        threads = [threading.Thread(target=writer.run, daemon=True) for writer in self.writers]
        for thread in threads:
            thread.start()
        try:
            for number in range(kills):
                gate.open()
                self._wait_for_a_commit()
                time.sleep(self.random.random() * LONGEST_WAIT_S)  # the random moment
                server.end(signal.SIGKILL)
                gate.close()
                self._raise()
                self._check_dead()
                if self.random.random() < 0.2:  # and once more while it starts
                    server.start()
                    time.sleep(self.random.random() * median([1.0, *self.starts]))
                    server.end(signal.SIGKILL)
                    self.counts["killed while starting"] += 1
                    self._check_dead(again=True)
                started = time.monotonic()
                server.start()
                server.wait()
                self.starts.append(time.monotonic() - started)
                self._check_alive(everything=number % 10 == 9 or number == kills - 1)
            gate.stopping = True
            gate.open()
            for thread in threads:
                thread.join(DEADLINE_S)
                assert not thread.is_alive()
            self._raise()
            self._check_alive(everything=True)
        finally:
            gate.stopping = True
            server.end(signal.SIGTERM)
        self.counts["commits acknowledged"] += sum(len(writer.done) for writer in self.writers)
        self.counts["calls asked again"] += sum(writer.retried for writer in self.writers)

    def _raise(self) -> None:
        for writer in self.writers:
            if writer.error is not None:
                raise writer.error

    def _wait_for_a_commit(self) -> None:
        before = sum(len(writer.done) for writer in self.writers)
        deadline = time.monotonic() + DEADLINE_S
        while sum(len(writer.done) for writer in self.writers) == before:
            self._raise()
            assert time.monotonic() < deadline, "no commit comes to its end"
            time.sleep(0.005)

    # -- checks

    def _check_dead(self, *, again: bool = False) -> None:
        """What clients see while the server is down, and where the kill hit."""
        repository = self.server.repository
        head = check_chain(repository, time.time())
        self._check_tree(head.root_hash)
        if again:
            return
        published = tags(repository)
        asked = [writer.pending for writer in self.writers if writer.pending is not None and writer.pending.asked]
        landed = sum(1 for commit in asked if commit.tag in published)
        counts = self.counts
        counts["kills"] += 1
        counts["kills with a published commit unanswered"] += bool(landed)
        counts["kills with none"] += not landed
        counts["commits cut off before they were published"] += len(asked) - landed
        counts["commits cut off after they were published"] += landed
        counts["kills in the middle of a publish"] += bool(repository.journal.names())
        assert head.reflog_hash is not None
        reflog = ContentHash.of(repository.storage.read(REFLOG_PATH))
        counts["kills between reflog and manifest"] += reflog.digest != head.reflog_hash.digest
        counts["kills that left half-written files"] += bool(self._staged())

    def _staged(self) -> list[str]:
        return os.listdir(os.path.join(self.server.paths.repository_storage(FQRN), "data", "txn"))

    def _check_tree(self, root: ContentHash) -> None:
        """All catalogs and objects are there, and each writer's tree is that before or after its open commit."""
        found = read(self.server.repository.catalogs, root)
        for writer in self.writers:
            model = {path: item for path, item in found.model.items() if is_below(path, writer.top)}
            mountpoints = frozenset(path for path in found.mountpoints if is_below(path, writer.top))
            allowed = [(writer.model, writer.mountpoints)]
            if writer.pending is not None and writer.pending.asked:
                allowed.append((writer.pending.model, writer.pending.mountpoints))
            assert (model, mountpoints) in allowed, f"{writer.top} is neither old nor new"
        assert {path for path in found.model if path and not parent_path(path)} <= {w.top for w in self.writers}
        objects = self.server.repository.objects
        for path, item in found.model.items():
            entry, chunks = make_entry(path, item)
            names = [entry.chunk_hash(chunk) for chunk in chunks]
            for name in [*names, *([entry.content_hash] if entry.content_hash is not None else [])]:
                if name in self._verified:
                    assert objects.has(name), name
                else:
                    objects.verify(name)
                    self._verified.add(name)

    def _check_alive(self, *, everything: bool) -> None:
        """What operators and collectors see once the server is up again, while nobody writes."""
        repository = self.server.repository
        head = check_chain(repository, time.time())
        self._check_tree(head.root_hash)
        uploaded = frozenset[ContentHash]().union(*(writer.abandoned for writer in self.writers))
        pending = [writer.pending for writer in self.writers if writer.pending is not None]
        uploaded = uploaded.union(*(commit.uploaded for commit in pending))
        check_repository(repository, time.time(), uploaded)
        assert not repository.journal.names()
        names = tags(repository)
        done = [commit for writer in self.writers for commit in writer.done]
        for commit in done:
            assert commit.reply is not None
            assert names[commit.tag].revision == commit.reply.final_revision
        landed = [commit for commit in pending if commit.tag in names]
        assert head.revision == self.first + len(done) + len(landed), "a commit was published twice, or is lost"
        revisions = {tag.revision for name, tag in names.items() if not name.startswith("trunk")}
        assert revisions >= set(range(self.first + 1, head.revision + 1))
        self._check_histories(head.history)
        key = read_key_file(self.server.paths.key_file(FQRN, "gw"))
        with closing(GatewayClient(self.server.api, key, patience_s=0)) as gateway:
            for commit in done if everything else self.random.sample(done, min(3, len(done))):
                again = gateway.commit(commit.token, commit.old_root, commit.new_root, commit.tag, "text")
                assert again == commit.reply
        assert repository.head() == head

    def _check_histories(self, present: ContentHash | None) -> None:
        """Each tag database in the store is one that was published."""
        stored = {name for name in self.server.repository.objects.list() if name.suffix is Suffix.HISTORY}
        assert present in stored
        assert len(stored) <= self.server.repository.head().revision + 1


def test_killed_under_load(tmp_path: Path, keys: str) -> None:
    generator = random.Random(SEED)
    counts: Counter[str] = Counter()
    starts: list[float] = []
    started = time.monotonic()
    try:
        for number in range(0, KILLS, KILLS_A_ROUND):
            folder = tmp_path / str(number)
            folder.mkdir()
            with closing(Server(folder, keys)) as server:
                try:
                    Round(server, generator, counts, starts).run(min(KILLS_A_ROUND, KILLS - number))
                except BaseException:
                    print(f"--- the server's log\n{server.log.read_text(errors='replace')[-5000:]}")
                    raise
    finally:
        print(f"seed {SEED}, {time.monotonic() - started:.0f} s")
        print("\n".join(f"{what}: {count}" for what, count in sorted(counts.items())))
        if starts:
            print(f"from start to first answer: median {median(starts):.2f} s, longest {max(starts):.2f} s")
