"""Group commit: together where that is possible, and each for itself where it is not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from cvmfs_gw.engine.changes import Change, Put
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.rules import Rules
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.ingest.contents import StoredContent
from cvmfs_gw.stratum0.committer import Done, GroupCommitter
from cvmfs_gw.stratum0.errors import Exists, NotCommitted, PathLeased, TryAgain
from cvmfs_gw.stratum0.jobs import Delete, Plan, PutFile
from cvmfs_objstore.formats.entry import Kind
from cvmfs_objstore.formats.manifest import Manifest
from tests.engine.repositories import FQRN, new_repository
from tests.engine.trees import NOW, Item, make_entry
from tests.stratum0.support import checked


class Free:
    """A job that does what it is told."""

    def __init__(self, path: str, plan: Callable[[CatalogTree, Rules], Plan]) -> None:
        self.path, self._plan = path, plan

    def plan(self, tree: CatalogTree, rules: Rules) -> Plan:
        return self._plan(tree, rules)


def puts(*paths: str) -> Free:
    """Put these entries, as directories where another lies in them."""
    changes: list[Change] = []
    for path in paths:
        kind = Kind.DIRECTORY if any(other.startswith(path + "/") for other in paths) else Kind.SYMLINK
        changes.append(Put(path, make_entry(path, Item(kind, 1))[0]))
    return Free(paths[-1], lambda tree, rules: Plan(changes))


class Bench:
    """A committer whose commits wait until they may begin."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.heads: list[tuple[int, int]] = []
        self.leased: set[str] = set()
        self.committer = GroupCommitter(self._open, self._check, self._published, lambda: NOW + 5.0)

    def _open(self, fqrn: str) -> Repository:
        self.begun.set()
        assert self.gate.wait(20)
        return self.repository

    def _check(self, fqrn: str, path: str, exclusive: bool) -> None:
        if exclusive and path in self.leased:
            raise PathLeased(1000)

    def _published(self, fqrn: str, head: Manifest, together: int) -> None:
        self.heads.append((head.revision, together))

    def together(self, *jobs: Free | PutFile | Delete) -> list[Future[Done]]:
        """Have these jobs committed in one commit, after one that holds it up."""
        first = self.committer.submit(FQRN, puts("/first"))
        assert self.begun.wait(20)
        answers = [self.committer.submit(FQRN, job) for job in jobs]
        self.gate.set()
        first.result(20)
        for answer in answers:
            answer.exception(20)
        return answers


@pytest.fixture
def bench(tmp_path: object, keys: str) -> Iterator[Bench]:
    bench = Bench(new_repository(str(tmp_path), keys))
    yield bench
    bench.gate.set()
    bench.committer.close()


def test_one_commit_for_all(bench: Bench) -> None:
    answers = bench.together(*(puts(f"/{n}") for n in range(20)))
    assert {answer.result().head.revision for answer in answers} == {3}
    assert bench.heads == [(2, 1), (3, 20)]
    assert checked(bench.repository) == {"/first", *(f"/{n}" for n in range(20))}


def test_one_that_is_refused_does_not_fail_the_others(bench: Bench) -> None:
    def refuse(tree: CatalogTree, rules: Rules) -> Plan:
        raise Exists("there is something")

    bench.leased.add("/leased")
    good, bad, busy, other = bench.together(puts("/a"), Free("/b", refuse), puts("/leased"), puts("/c"))
    assert isinstance(bad.exception(), Exists)
    assert isinstance(busy.exception(), PathLeased)
    assert good.result().head.revision == other.result().head.revision == 3
    assert checked(bench.repository) == {"/first", "/a", "/c"}


def test_changes_that_do_not_apply_fail_alone_and_leave_nothing(bench: Bench) -> None:
    orphan = Free(
        "/x",
        lambda tree, rules: Plan(
            [*puts("/half").plan(tree, rules).changes, Put("/no/x", make_entry("/no/x", Item(Kind.SYMLINK, 1))[0])]
        ),
    )
    good, bad, other = bench.together(puts("/a"), orphan, puts("/c"))
    assert isinstance(bad.exception(), NotCommitted)
    assert good.result().published
    assert other.result().published
    assert checked(bench.repository) == {"/first", "/a", "/c"}


def test_a_commit_that_cannot_be_published_is_split(bench: Bench) -> None:
    """One job brings more entries than the root catalog may have; the others fit."""
    path = bench.repository.paths.server_conf(FQRN)
    with open(path, "a", encoding="utf-8") as file:
        file.write("CVMFS_ROOT_KCATALOG_LIMIT=1\nCVMFS_ENFORCE_LIMITS=true\n")
    many = puts(*(f"/m{n}" for n in range(1100)))
    answers = bench.together(puts("/a"), puts("/b"), many, puts("/c"))
    assert [type(answer.exception()) for answer in answers] == [type(None), type(None), NotCommitted, type(None)]
    error = answers[2].exception()
    assert isinstance(error, NotCommitted)
    assert error.http_status == 413
    assert checked(bench.repository) == {"/first", "/a", "/b", "/c"}


def test_each_sees_what_those_before_it_did(bench: Bench) -> None:
    answers = bench.together(
        puts("/d", "/d/x"),
        Delete("/d", recursive=True),
        puts("/d", "/d/y"),
    )
    assert all(answer.result().head.revision == 3 for answer in answers)
    assert checked(bench.repository) == {"/first", "/d", "/d/y"}


def test_nothing_to_do_is_no_revision(bench: Bench) -> None:
    (answer,) = bench.together(Free("/a", lambda tree, rules: Plan([])))
    assert (answer.result().head.revision, answer.result().published) == (2, False)


def test_one_that_breaks_down_is_answered(bench: Bench) -> None:
    def fail(tree: CatalogTree, rules: Rules) -> Plan:
        raise ZeroDivisionError

    (answer,) = bench.together(Free("/a", fail))
    error = answer.exception()
    assert isinstance(error, NotCommitted)
    assert error.http_status == 500
    assert bench.committer.submit(FQRN, puts("/b")).result(20).published


def test_the_line_has_an_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvmfs_gw.stratum0.committer.MAX_WAITING", 3)
    first = bench.committer.submit(FQRN, puts("/first"))
    assert bench.begun.wait(20)
    waiting = [bench.committer.submit(FQRN, puts(f"/{n}")) for n in range(3)]
    with pytest.raises(TryAgain):
        bench.committer.submit(FQRN, puts("/x"))
    bench.gate.set()
    assert first.result(20).published
    assert all(answer.result(20).published for answer in waiting)


def test_what_a_collector_took_is_asked_for_again(bench: Bench) -> None:
    """Nothing refers to an object before its commit; one that has gone meanwhile must not be referred to after it."""
    content = StoredContent(5, 0, b"\1" * 20)
    good, lost = bench.together(puts("/a"), PutFile("/f", content, NOW))
    error = lost.exception()
    assert isinstance(error, NotCommitted)
    assert error.http_status == 503
    assert good.result().published
    assert checked(bench.repository) == {"/first", "/a"}


def test_a_fault_of_ours_fails_alone(bench: Bench) -> None:
    """Whatever a plan or its changes do, others of the same commit do not hear of it."""

    def faulty(tree: CatalogTree, rules: Rules) -> Plan:
        raise RecursionError

    def half_planned() -> Iterator[Change]:
        yield Put("/half", make_entry("/half", Item(Kind.SYMLINK, 1))[0])
        raise KeyError("none")

    broken = Free("/half", lambda tree, rules: Plan(half_planned()))  # type: ignore[arg-type]
    one, two, three, four = bench.together(puts("/a"), Free("/b", faulty), broken, puts("/c"))
    assert one.result().published
    assert four.result().published
    for answer in (two, three):
        with pytest.raises(NotCommitted):
            answer.result()
    assert checked(bench.repository) == {"/first", "/a", "/c"}
