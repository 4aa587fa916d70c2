"""Tags, going back, signing, checks and growth over the API: what they do, and who may."""

from __future__ import annotations

import asyncio

import pytest

from cvmfs_gw.care.check import CheckOptions
from cvmfs_gw.care.resign import WHITELIST_PATH
from cvmfs_gw.engine.repository import MANIFEST_PATH
from cvmfs_gw.gateway.committer import Committed
from tests.care.collecting import content_of
from tests.engine.repositories import FQRN
from tests.gateway.caring import Gateway
from tests.gateway.support import KEY

REPO = f"/repos/{FQRN}"


async def names(gateway: Gateway) -> set[str]:
    return {tag["name"] for tag in (await gateway.ask("GET", f"{REPO}/tags", None))["data"]}


async def test_tags(gateway: Gateway) -> None:
    added = await gateway.ask("POST", f"{REPO}/tags", name="mine", description="of mine")
    assert (added["status"], added["data"]["revision"]) == ("ok", 5)
    assert "mine" in await names(gateway)
    again = await gateway.ask("POST", f"{REPO}/tags", name="mine")
    assert (again["status"], again["detail"]) == ("error", "there is a tag 'mine' already")
    moved = await gateway.ask("POST", f"{REPO}/tags", name="mine", revision="trunk-previous", move=True)
    assert (moved["data"]["revision"], moved["data"]["description"]) == (4, "of mine")
    assert (await gateway.ask("DELETE", f"{REPO}/tags/mine"))["data"]["name"] == "mine"
    assert "mine" not in await names(gateway)
    assert (await gateway.ask("DELETE", f"{REPO}/tags/trunk"))["status"] == "error"
    gateway.past.check()


async def test_rollback(gateway: Gateway) -> None:
    told: list[int] = []

    async def listener(committed: Committed) -> None:
        told.append(committed.outcome.final_revision)

    gateway.service.commits.on_committed.append(listener)
    done = await gateway.ask("POST", f"{REPO}/rollback")
    assert (done["revision"], done["target"]["revision"]) == (6, 4)
    assert content_of(gateway.past.repository(), "/f") == b"2"
    assert (await gateway.ask("POST", f"{REPO}/rollback"))["status"] == "error", "only one undo is possible"
    await gateway.service.commits.finish()
    assert told == [6]


@pytest.mark.parametrize(("what", "path"), [("whitelist", WHITELIST_PATH), ("manifest", MANIFEST_PATH)])
async def test_signature(gateway: Gateway, what: str, path: str) -> None:
    signed = await gateway.sign("whitelist")
    assert (await gateway.ask("GET", f"{REPO}/whitelist", None))["expires"] == signed["expires"]
    storage = gateway.past.repository().storage
    # put back afterwards by the signature alone
    before = storage.modified(path)
    assert (await gateway.sign(what))["status"] == "ok"
    assert storage.modified(path) >= before
    gateway.past.check()


async def ended(gateway: Gateway, job: dict[str, object]) -> dict[str, object]:
    """Ask until the check is done."""
    while job["state"] == "running":
        await asyncio.sleep(0)
        job = await gateway.ask("GET", f"{REPO}/checks/{job['id']}")
    return job


async def test_check(gateway: Gateway) -> None:
    await gateway.sign("whitelist")
    job = await ended(gateway, await gateway.ask("POST", f"{REPO}/checks", integrity=True))
    report = job["report"]
    assert isinstance(report, dict)
    assert (job["state"], job["progress"], report["errors"]) == ("done", 1.0, 0)
    repository = gateway.past.repository()
    history = repository.head().history
    assert history is not None
    repository.storage.write(history.path, b"damaged")
    job = await ended(gateway, await gateway.ask("POST", f"{REPO}/checks", integrity=True))
    report = job["report"]
    assert isinstance(report, dict)
    assert not report["ok"]
    assert all({"kind", "place", "remedy"} <= set(fault) for fault in report["faults"])
    job = await ended(gateway, await gateway.ask("POST", f"{REPO}/checks", tag="none"))
    assert job["state"] == "failed"
    assert (await gateway.ask("GET", f"{REPO}/checks/none"))["reason"] == "no such check: none"


async def test_checks_are_joined_and_forgotten(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvmfs_gw.gateway.care.MAX_JOBS", 2)
    care = gateway.service.care
    first = await care.begin_check(FQRN, CheckOptions())
    assert await care.begin_check(FQRN, CheckOptions()) is first or first.state != "running"
    for tag in ("a", "b", "c"):
        job = await care.begin_check(FQRN, CheckOptions(tag=tag))
        await ended(gateway, {"id": job.id, "state": "running"})
    assert (await gateway.ask("GET", f"{REPO}/checks/{first.id}"))["status"] == "error"


async def test_growth(gateway: Gateway) -> None:
    await gateway.ask("POST", f"{REPO}/tags", name="first", revision="trunk-previous")
    data = (await gateway.ask("GET", f"{REPO}/growth", None))["data"]
    assert [(point["revision"], point["entries"], point["size"]) for point in data] == [(4, 2, 1), (5, 2, 1)]


@pytest.mark.parametrize(
    ("method", "route"),
    [
        ("POST", "/tags"), ("DELETE", "/tags/trunk"), ("POST", "/rollback"), ("POST", "/checks"), ("GET", "/checks/x"),
        ("POST", "/whitelist"), ("POST", "/manifest"),
    ],
)  # fmt: skip
async def test_only_administrators(gateway: Gateway, method: str, route: str) -> None:
    before = gateway.past.repository().head()
    assert (await gateway.ask(method, REPO + route, KEY))["reason"] == "no_admin_key"
    assert (await gateway.ask(method, REPO + route, None))["reason"] == "invalid_authorization_header"
    assert gateway.past.repository().head() == before


async def test_unknown_repository(gateway: Gateway) -> None:
    assert (await gateway.ask("GET", "/repos/none.example.org/tags"))["reason"] == "invalid_repo"
    assert (await gateway.ask("POST", "/repos/none.example.org/checks"))["reason"] == "invalid_repo"
