"""A commit that is killed, or fails, at any system call: old or new revision, never in between, and once only."""

from __future__ import annotations

import atexit
import errno
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from cvmfs_gw.engine.commit import Engine
from cvmfs_gw.engine.commit_api import CommitRequest
from cvmfs_gw.engine.configure import RepositoryOptions
from cvmfs_gw.engine.create import create_repository
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.engine.repository import MANIFEST_PATH, Repository
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.formats.chain import verify_chain
from cvmfs_objstore.formats.entry import Kind
from cvmfs_objstore.formats.history import History
from cvmfs_objstore.formats.keychain import PublicKey
from cvmfs_objstore.formats.reflog import REFLOG_PATH, Reflog
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from tests.engine.repositories import publisher_root, put
from tests.engine.trees import NOW, Item, make_entry, read

FQRN: Final = "faults.example.org"
CALLS: Final = ("open", "write", "rename", "link", "unlink", "fsync", "fchmod", "truncate", "close", "mkdir")
"""What a commit asks of the system to change something."""
KILLED: Final = 9


class World:
    """A repository with a nested catalog, and a publisher's result that is uploaded and not committed."""

    def __init__(self, root: str) -> None:
        self.paths = SystemPaths(root)
        # Making keys takes longer than all the rest, so all worlds have the same.
        options = RepositoryOptions("http://localhost/", keys=_keys())
        create_repository(FQRN, self.paths, {}, options, NOW)
        repository = self.repository()
        first = self._publisher_change(repository, "/a", Item(Kind.DIRECTORY, 1), nest=True)
        self.commit(first)
        self.before = repository.head()
        self.request = self._publisher_change(repository, "/a/new", Item(Kind.FILE, 1, chunks=1))

    def repository(self) -> Repository:
        return Repository(FQRN, self.paths, {}, durable=True)

    def _publisher_change(self, repository: Repository, path: str, item: Item, *, nest: bool = False) -> CommitRequest:
        head = repository.head()
        tree = CatalogTree(repository.catalogs, head.root_hash)
        entry, chunks = make_entry(path, item)
        tree.put_root(make_entry("", Item(Kind.DIRECTORY, 1))[0])
        tree.put(path, entry, chunks, None)
        if nest:
            tree.nest(path)
        root, _ = tree.store(NOW - 1, Algorithm.SHA1)
        tree.close()
        return CommitRequest(FQRN, "", head.root_hash, root.hash, "generic-")

    def commit(self, request: CommitRequest) -> int:
        return Engine(self.paths, {}, clock=lambda: NOW + 5).commit(request).final_revision

    def check_readable(self) -> int:
        """Look at the repository as a client does; returns its revision."""
        repository = self.repository()
        raw = repository.storage.read(MANIFEST_PATH)
        head = repository.head()
        assert head.certificate is not None
        certificate = repository.objects.get_plain(head.certificate)
        keys = PublicKey.load_all(self.paths.key_file(FQRN, "pub"))
        now = datetime.fromtimestamp(NOW, UTC)
        verify_chain(repository.storage.read(".cvmfswhitelist"), certificate, raw, keys, now, FQRN)
        found = read(repository.catalogs, head.root_hash)
        assert found.mountpoints == {"/a"}
        expected = {2: {"", "/a"}, 3: {"", "/a", "/a/new"}}[head.revision]
        assert set(found.model) == expected
        assert head.history is not None
        with History.load(repository.objects.get_plain(head.history)) as history:
            trunk = history.get("trunk")
            assert trunk is not None
            assert trunk.root_hash == head.root_hash
        return head.revision

    def check_clean(self) -> None:
        """Look at what only operators and collectors see: the reflog, and that nothing is left over."""
        repository = self.repository()
        head = repository.head()
        data = repository.storage.read(REFLOG_PATH)
        assert head.reflog_hash is not None
        assert ContentHash.of(data) == head.reflog_hash
        repository.reflog(head).close()
        with Reflog.load(data) as reflog:
            known = {ref for ref, _ in reflog.refs()}
        assert {head.root_hash, head.history, head.certificate} <= known
        reachable = set(known)
        for ref in known:
            if ref.suffix is Suffix.CATALOG:
                with repository.catalogs.load(ref) as catalog:
                    reachable.update(nested.hash for nested in catalog.nested().values())
            assert repository.objects.has(ref), ref
        for root in (self.request.new_root,):
            reachable.add(root)
            with repository.catalogs.load(root) as catalog:
                reachable.update(nested.hash for nested in catalog.nested().values())
        stored = {name for name in repository.objects.list() if name.suffix in (Suffix.CATALOG, Suffix.HISTORY)}
        assert stored <= reachable, stored - reachable
        assert not os.listdir(os.path.join(self.paths.repository_storage(FQRN), "data", "txn"))
        assert not repository.journal.names()


@functools.cache
def _keys() -> str:
    """A folder with keys of the repository."""
    folder = tempfile.mkdtemp(prefix="cvmfs-test-keys-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    paths = SystemPaths(folder)
    create_repository(FQRN, paths, {}, RepositoryOptions("http://localhost/"), NOW)
    return paths.keys


@contextmanager
def at_call(number: int, act: Callable[[str, Callable[..., Any], tuple[Any, ...]], Any]) -> Iterator[list[str]]:
    """Let *act* stand in for the system call of that number (from 0); yields the names of the calls so far."""
    seen: list[str] = []
    originals = {name: getattr(os, name) for name in CALLS}

    def wrap(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen.append(name)
            if len(seen) - 1 == number:
                return act(name, original, args)
            return original(*args, **kwargs)

        return call

    for name, original in originals.items():
        setattr(os, name, wrap(name, original))
    try:
        yield seen
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def _die(name: str, original: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    if name == "write":
        original(args[0], bytes(args[1])[: len(args[1]) // 2])
    os._exit(KILLED)


def _in_child(number: int, world: World) -> int:
    """Commit in a child that dies at that call; returns its exit code."""
    child = os.fork()
    if not child:
        try:
            with at_call(number, _die):
                world.commit(world.request)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _count_calls(world: World) -> list[str]:
    with at_call(-1, _die) as seen:
        world.commit(world.request)
    return list(seen)


def test_killed_at_every_call(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Killed before any one call (at a write: in the middle of it), then started again and asked again."""
    calls = _count_calls(World(str(tmp_path_factory.mktemp("all"))))
    assert {"rename", "fsync", "link", "write"} <= set(calls)
    seen = set()
    for number in range(len(calls)):
        world = World(str(tmp_path_factory.mktemp("killed")))
        assert _in_child(number, world) == KILLED, calls[number]
        revision = world.check_readable()
        seen.add(revision)
        Engine(world.paths, {}).recover(FQRN)
        assert world.check_readable() == revision
        world.check_clean()
        assert world.commit(world.request) == 3
        assert world.check_readable() == 3
        world.check_clean()
    assert seen == {2, 3}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_failing_at_every_call(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    """Whatever call fails, the publisher learns it, nothing is half done, and the next try works."""
    calls = _count_calls(World(str(tmp_path_factory.mktemp("all"))))

    def fail(name: str, original: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if name == "close":
            return original(*args)  # may be that of a finalizer, which has nobody to tell
        raise OSError(number, os.strerror(number))

    for index in range(len(calls)):
        world = World(str(tmp_path_factory.mktemp("failed")))
        try:
            with at_call(index, fail):
                revision = world.commit(world.request)
        except EngineError:
            revision = 0
        assert world.check_readable() in ({3} if revision else {2, 3}), calls[index]
        Engine(world.paths, {}).recover(FQRN)
        world.check_clean()
        assert world.commit(world.request) == 3
        assert world.check_readable() == 3


def test_vanished_staging_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    world = World(str(tmp_path_factory.mktemp("staging")))
    os.rmdir(os.path.join(world.paths.repository_storage(FQRN), "data", "txn"))
    assert world.commit(world.request) == 3
    world.check_clean()


def test_undo_leaves_what_a_publisher_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that makes the very catalog that was uploaded, byte by byte, and fails, does not take it away."""
    world = World(str(tmp_path))
    engine, repository = Engine(world.paths, {}, clock=lambda: NOW), world.repository()
    base = world.before.root_hash
    result = publisher_root(repository, base, [put("/a/x", Item(Kind.SYMLINK, 1))], NOW)
    request = CommitRequest(FQRN, "/a/x", base, result)

    def nested(root: ContentHash) -> ContentHash:
        with repository.catalogs.load(root) as catalog:
            return catalog.nested()["/a"].hash

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(EngineError):
            engine.commit(request)
    assert repository.objects.has(nested(result))
    outcome = engine.commit(request)
    assert outcome.final_revision == 3
    made, uploaded = nested(outcome.root_hash), nested(result)
    plain = repository.catalogs.plain
    assert plain(made) == plain(uploaded), "or this test shows nothing"
    assert made != uploaded
