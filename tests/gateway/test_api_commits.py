from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from cvmfs_gw.engine.errors import EngineError, LimitExceeded, MergeError, MissingReflog, PathViolation, TagError
from cvmfs_gw.gateway.committer import CommitBody, Committed
from cvmfs_gw.gateway.config import Config
from cvmfs_gw.gateway.leasestate import State
from cvmfs_gw.gateway.service import GatewayService
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.objects import ObjectStore
from tests.gateway.support import (
    ADMIN,
    FQRN,
    KEY,
    NEW,
    OLD,
    OTHER,
    REPO_JSON,
    STRANGER,
    Api,
    Clock,
    FakeEngine,
    catalog,
    until,
    write_access,
)


async def test_commit(api: Api, engine: FakeEngine, clock: Clock) -> None:
    token = await api.token(f"{FQRN}/a/b")
    granted = clock.now
    clock.advance(5_000)
    reply = await api.commit(
        token,
        tag_name="v1",
        tag_description="first",
        tag_channel=2,
        auto_tag_threshold=1_700_000_000,
        delete_tags="old  older",
        novelty=None,
    )
    assert reply == {"status": "ok", "final_revision": 1, "tag_name": "v1"}
    (request,) = engine.requests
    assert (request.fqrn, request.lease_path) == (FQRN, "/a/b")
    assert (request.old_root, request.new_root) == (OLD, NEW)
    assert (request.tag_name, request.tag_description, request.tag_channel) == ("v1", "first", 2)
    assert (request.auto_tag_threshold, request.delete_tags) == (1_700_000_000, ("old", "older"))
    assert (request.started_ms, request.repeated, request.create_ancestors) == (granted, False, False)
    assert (await api.call("GET", "/leases"))[1]["data"] == {}


async def test_commit_of_the_whole_repository_with_the_least_said(api: Api, engine: FakeEngine) -> None:
    token = await api.token(f"{FQRN}/")
    body = {"old_root_hash": OLD.bare, "new_root_hash": NEW.bare}
    await api.call("POST", f"/leases/{token}", body, key=KEY, signed=token.encode())
    (request,) = engine.requests
    assert (request.lease_path, request.tag_name, request.delete_tags) == ("", "", ())
    assert (request.old_root, request.new_root) == (OLD, NEW)


async def test_the_same_commit_gets_the_same_answer(api: Api, engine: FakeEngine) -> None:
    token = await api.token()
    assert await api.commit(token) == await api.commit(token) == {"status": "ok", "final_revision": 1}
    assert len(engine.requests) == 1
    assert (await api.commit(token, new=catalog("newer")))["reason"] == "invalid lease"
    assert (await api.commit(token, key=STRANGER))["reason"] == "authorization error: invalid_key"
    assert (await api.commit(token, key=ADMIN))["status"] == "ok"


async def test_the_same_commit_while_it_runs(api: Api, engine: FakeEngine) -> None:
    engine.gate = threading.Event()
    token = await api.token()
    first = asyncio.create_task(api.commit(token))
    await engine.entered()
    second = asyncio.create_task(api.commit(token))
    assert (await api.commit(token, new=catalog("newer")))["reason"] == "commit in progress"
    assert (await api.commit(token, key=STRANGER))["reason"] == "authorization error: invalid_key"
    engine.gate.set()
    assert await first == await second == {"status": "ok", "final_revision": 1}
    assert len(engine.requests) == 1


async def test_the_same_answer_after_a_restart(
    api: Api,
    service: GatewayService,
    engine: FakeEngine,
    clock: Clock,
    config: Config,
    paths: SystemPaths,
    stores: dict[str, ObjectStore],
) -> None:
    token = await api.token()
    open_token = await api.token(f"{FQRN}/b")
    await api.commit(token, tag_name="v1")
    await service.close()

    again = GatewayService.open(config, paths, engine=FakeEngine(), stores=stores.__getitem__, clock=clock)
    outcome = await again.commits.commit(token, CommitBody(OLD, NEW), KEY)
    assert (outcome.final_revision, outcome.root_hash, outcome.tag_name) == (1, catalog("root 1"), "v1")
    assert (await again.commits.commit(open_token, CommitBody(OLD, NEW), KEY)).final_revision == 1
    await again.close()


async def test_a_killed_process(
    config: Config, paths: SystemPaths, clock: Clock, stores: dict[str, ObjectStore]
) -> None:
    killed = GatewayService.open(config, paths, engine=FakeEngine(), stores=stores.__getitem__, clock=clock)
    lease = await killed.leases.acquire(f"{FQRN}/a", KEY, protocol=3, hostname="h")
    clock.advance(7_000_000)
    killed._book.begin_commit(lease.token, OLD, NEW, clock())
    await killed.close()

    clock.advance(7_000_000)
    engine = FakeEngine()
    again = GatewayService.open(config, paths, engine=engine, stores=stores.__getitem__, clock=clock)
    assert (await again.commits.commit(lease.token, CommitBody(OLD, NEW), KEY)).final_revision == 1
    assert engine.requests[0].repeated
    await again.close()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MergeError("no way"), "merge_error"),
        (LimitExceeded("no way"), "merge_error"),
        (PathViolation("no way"), "path_violation"),
        (MissingReflog("no way"), "missing_reflog"),
        (TagError("no way"), "miscellaneous"),
    ],
)
async def test_a_refused_commit_leaves_the_lease(api: Api, engine: FakeEngine, error: EngineError, reason: str) -> None:
    token = await api.token()
    engine.failures.append(error)
    assert await api.commit(token) == {"status": "error", "reason": reason, "detail": "no way"}
    assert (await api.commit(token))["status"] == "ok"
    assert not engine.requests[1].repeated


async def test_an_engine_that_breaks_down(api: Api, engine: FakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    token = await api.token()
    engine.failures.append(ZeroDivisionError("secret detail"))
    assert await api.commit(token) == {"status": "error", "reason": "miscellaneous"}
    assert "ZeroDivisionError" in caplog.text
    assert token not in caplog.text
    assert (await api.commit(token))["status"] == "ok"


async def test_a_lease_that_expires_during_its_commit(api: Api, engine: FakeEngine, clock: Clock) -> None:
    engine.gate = threading.Event()
    token = await api.token(f"{FQRN}/a")
    commit = asyncio.create_task(api.commit(token))
    await engine.entered()
    clock.advance(8_000_000)
    assert (await api.lease(f"{FQRN}/a"))["time_remaining"] == "1s"
    engine.failures.append(MergeError("try again"))
    engine.gate.set()
    assert (await commit)["reason"] == "merge_error"
    assert (await api.commit(token))["status"] == "ok"


async def test_a_publisher_that_goes_away(api: Api, engine: FakeEngine, service: GatewayService) -> None:
    engine.gate = threading.Event()
    token = await api.token()
    commit = asyncio.create_task(api.commit(token))
    await engine.entered()
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    engine.gate.set()
    assert await api.commit(token) == {"status": "ok", "final_revision": 1}
    assert len(engine.requests) == 1


async def test_one_at_a_time_in_order_and_repositories_side_by_side(
    api: Api, service: GatewayService, engine: FakeEngine
) -> None:
    engine.gate = threading.Event()
    tokens = [await api.token(f"{FQRN}/{n}") for n in range(4)]
    other = await api.token(f"{OTHER}/a")
    commits = []
    for token in tokens:
        commits.append(asyncio.create_task(api.commit(token)))
        await until(lambda token=token: service._book.state(token) is State.COMMITTING)  # type: ignore[misc]
    commits.append(asyncio.create_task(api.commit(other)))
    await engine.entered(2)
    assert engine.running == 2
    engine.gate.set()
    assert all(reply["status"] == "ok" for reply in await asyncio.gather(*commits))
    assert [r.lease_path for r in engine.requests if r.fqrn == FQRN] == ["/0", "/1", "/2", "/3"]
    assert engine.most_running == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"new_root_hash": "what"},
        {"new_root_hash": str(NEW)[:-1] + "H"},
        {"old_root_hash": ""},
        {"old_root_hash": None},
        {"tag_channel": "trunk"},
        {"tag_name": 5},
        {"auto_tag_threshold": "soon"},
        {"delete_tags": ["a"]},
    ],
)
async def test_malformed_commits(api: Api, engine: FakeEngine, fields: dict[str, Any]) -> None:
    token = await api.token()
    body = {"old_root_hash": str(OLD), "new_root_hash": str(NEW), **fields}
    status, reply = await api.call("POST", f"/leases/{token}", body, key=KEY, signed=token.encode())
    assert (status, reply["status"]) == (400, "error")
    assert not engine.requests
    assert (await api.commit(token))["status"] == "ok"


async def test_unknown_and_expired_tokens(api: Api, clock: Clock) -> None:
    refused = {"status": "error", "reason": "invalid lease"}
    assert await api.commit("UNKNOWN") == refused
    assert await api.commit("X" * 2000) == refused
    token = await api.token()
    clock.advance(7_200_000)
    assert await api.commit(token) == refused


async def test_tokens_with_escapes(api: Api) -> None:
    token = await api.token()
    escaped = token.replace("=", "%3D")
    body = {"old_root_hash": str(OLD), "new_root_hash": str(NEW)}
    reply = await api.call("POST", f"/leases/{escaped}", body, key=KEY, signed=token.encode())
    assert reply[1]["status"] == "ok"


async def test_listeners(api: Api, service: GatewayService, caplog: pytest.LogCaptureFixture) -> None:
    heard: asyncio.Queue[Committed] = asyncio.Queue()

    async def broken(committed: Committed) -> None:
        raise ValueError("not interested")

    service.commits.on_committed += [broken, heard.put]
    await api.commit(await api.token(f"{FQRN}/a"))
    committed = await heard.get()
    assert (committed.fqrn, committed.lease_path, committed.outcome.final_revision) == (FQRN, "/a", 1)
    assert "not interested" in caplog.text


async def test_a_key_that_lost_its_path(api: Api, service: GatewayService, paths: SystemPaths) -> None:
    token = await api.token(f"{FQRN}/a")
    repo = {**REPO_JSON["repos"][0], "keys": [{"id": "key1", "path": "/elsewhere"}]}
    write_access(paths, {**REPO_JSON, "repos": [repo]})
    await service.reload()
    assert (await api.commit(token))["reason"] == "authorization error: invalid_path"


async def test_a_database_that_cannot_record(
    api: Api, service: GatewayService, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    token = await api.token(f"{FQRN}/a")
    monkeypatch.setattr(service._book._database, "finish_commit", full)
    assert await api.commit(token) == {"status": "ok", "final_revision": 1}
    assert "cannot record" in caplog.text
    assert (await api.lease(f"{FQRN}/a"))["status"] == "ok"
