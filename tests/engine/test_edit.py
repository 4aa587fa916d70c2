"""Changes of the server's own: published as a whole or not at all, also when killed or failing at any system call."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cvmfs_gw.care.check import CheckOptions, check_repository
from cvmfs_gw.engine.changes import Put
from cvmfs_gw.engine.edit import edit
from cvmfs_gw.engine.errors import EngineError, LimitExceeded
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.rules import Rules
from cvmfs_gw.engine.statistics import PublishCounts
from cvmfs_gw.engine.transaction import Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.formats.entry import Kind
from cvmfs_objstore.formats.manifest import Manifest
from tests.engine.repositories import everything, new_repository, tags
from tests.engine.test_faults import KILLED, at_call
from tests.engine.trees import NOW, Item, make_entry


def link(path: str) -> Put:
    return Put(path, make_entry(path, Item(Kind.SYMLINK, 1))[0])


def add(*paths: str) -> Callable[[CatalogTree, Rules], PublishCounts]:
    def editor(tree: CatalogTree, rules: Rules) -> PublishCounts:
        transaction = Transaction(tree)
        transaction.apply(link(path) for path in paths)
        return transaction.counts

    return editor


def run(repository: Repository, *paths: str) -> Manifest:
    return edit(repository, add(*paths), NOW + 5, clock=lambda: NOW + 6)


def whole(repository: Repository) -> int:
    """The revision, of a repository in which nothing is wrong."""
    report = check_repository(repository, CheckOptions(integrity=True), NOW)
    assert not report.faults.errors, [*report.faults]
    assert not repository.journal.names()
    folder = repository.paths.repository_storage(repository.fqrn)
    assert os.listdir(os.path.join(folder, "data", "txn")) == []
    return repository.head().revision


def test_a_change_is_published(tmp_path: Path, keys: str) -> None:
    repository = new_repository(str(tmp_path), keys)
    head = run(repository, "/a", "/b")
    assert (head.revision, head.published) == (2, NOW + 5)
    assert repository.head() == head
    assert tags(repository)["trunk"].root_hash == head.root_hash
    assert whole(repository) == 2


def test_no_change_is_no_revision(tmp_path: Path, keys: str) -> None:
    repository = new_repository(str(tmp_path), keys)
    before = everything(repository)
    assert edit(repository, lambda tree, rules: None, NOW + 5).revision == 1
    assert everything(repository) == before


@pytest.mark.parametrize("error", [LimitExceeded("x"), ZeroDivisionError()])
def test_what_the_editor_raises_ends_it(tmp_path: Path, keys: str, error: Exception) -> None:
    repository = new_repository(str(tmp_path), keys)
    before = everything(repository)

    def editor(tree: CatalogTree, rules: Rules) -> PublishCounts:
        add("/a")(tree, rules)
        raise error

    with pytest.raises(type(error)):
        edit(repository, editor, NOW + 5)
    assert everything(repository) == before


def calls_of(repository: Repository) -> list[str]:
    with at_call(-1, lambda name, original, args: None) as seen:
        run(repository, "/a")
    return list(seen)


def die(name: str, original: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    if name == "write":
        original(args[0], bytes(args[1])[: len(args[1]) // 2])
    os._exit(KILLED)


def test_killed_at_every_call(tmp_path_factory: pytest.TempPathFactory, keys: str) -> None:
    calls = calls_of(new_repository(str(tmp_path_factory.mktemp("all")), keys))
    assert {"rename", "write"} <= set(calls)
    seen = set()
    for number in range(len(calls)):
        repository = new_repository(str(tmp_path_factory.mktemp("killed")), keys)
        child = os.fork()
        if not child:
            try:
                with at_call(number, die):
                    run(repository, "/a")
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED, calls[number]
        repository.recover()
        revision = whole(repository)
        seen.add(revision)
        assert run(repository, "/b").revision == revision + 1
        assert whole(repository) == revision + 1
    assert seen == {1, 2}


def test_failing_at_every_call(tmp_path_factory: pytest.TempPathFactory, keys: str) -> None:
    calls = calls_of(new_repository(str(tmp_path_factory.mktemp("all")), keys))

    def fail(name: str, original: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if name == "close":
            return original(*args)  # may be that of a finalizer, which has nobody to tell
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for number in range(len(calls)):
        repository = new_repository(str(tmp_path_factory.mktemp("failed")), keys)
        try:
            with at_call(number, fail):
                run(repository, "/a")
        except EngineError:
            repository.recover()
        before = whole(repository)
        assert run(repository, "/b").revision == before + 1
        assert whole(repository) == before + 1
