"""The suite can fail: gateways that do wrong do not pass the cases that are about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from conformance import registry
from conformance.model import Report, Verdict
from conformance.runner import run
from conformance.servers import own
from conformance.target import Target
from conformance.wire import Reply
from tests.conformance.broken import Spoil, fake, refuse, rubbish, say_ok, spoiled


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with own() as found:
        yield replace(found, timeout=10.0)


def failed(report: Report) -> set[str]:
    return {result.id for result in report.results if result.verdict is Verdict.FAIL}


QUICK = (
    "leases",
    "authorisation",
    "payloads.style",
    "payloads.content",
    "commits.reply",
    "tags.named",
    "admin",
    "errors",
)


@pytest.mark.parametrize("answer", [say_ok, refuse, rubbish])
def test_a_fake(target: Target, answer: Callable[[str, str, bytes], tuple[int, bytes]]) -> None:
    cases = [case for case in registry.select(QUICK) if not case.id.startswith("leases.expired")]
    with fake(answer) as url:
        report = run(replace(target, gateway=url, timeout=5.0, restart_command=""), cases)
    passed = [result.id for result in report.results if result.verdict is Verdict.PASS]
    # Who refuses everything is right about everything that has to be refused.
    assert len(passed) < len(cases) * (0.6 if answer is refuse else 0.45), passed
    assert {"leases.list", "leases.busy.same", "payloads.style.legacy", "commits.reply", "tags.named"} <= failed(report)


def _changed(**members: object) -> Callable[[Reply], tuple[int, bytes]]:
    def change(reply: Reply) -> tuple[int, bytes]:
        return reply.status, json.dumps({**json.loads(reply.body), **members}).encode()

    return change


def _without(name: str) -> Callable[[Reply], tuple[int, bytes]]:
    def change(reply: Reply) -> tuple[int, bytes]:
        return reply.status, json.dumps({k: v for k, v in json.loads(reply.body).items() if k != name}).encode()

    return change


def on(method: str, part: str, change: Callable[[Reply], tuple[int, bytes]]) -> Spoil:
    """Spoil the replies to *method* on paths that hold *part*."""
    return lambda m, path, reply: change(reply) if m == method and part in path else None


FAULTS: dict[str, tuple[Spoil, str]] = {
    "no token": (on("POST", "/leases", _without("session_token")), "leases.grant"),
    "version as text": (on("POST", "/leases", _changed(max_api_version="2")), "leases.grant"),
    "same token": (on("POST", "/leases", _changed(session_token="A")), "leases.token.differ"),
    "short token": (on("POST", "/leases", _changed(session_token="ABCD====")), "leases.token.form"),
    "empty list": (on("GET", "/leases", _changed(data={})), "leases.list"),
    "remaining as number": (on("POST", "/leases", _changed(time_remaining=7199)), "leases.busy.remaining"),
    "never busy": (on("POST", "/leases", _changed(status="ok", session_token="A")), "leases.busy.same"),
    "always ok": (on("DELETE", "/leases/", _changed(status="ok")), "leases.drop.twice"),
    "payload never refused": (on("POST", "/payloads", _changed(status="ok")), "payloads.content.hash"),
    "payload ok as 500": (on("POST", "/payloads", lambda reply: (500, reply.body)), "payloads.style.token"),
    "revision off by one": (on("POST", "/leases/", _changed(final_revision=1)), "commits.reply"),
    "no revision": (on("POST", "/leases/", _without("final_revision")), "commits.reply"),
    "commit never refused": (on("POST", "/leases/", _changed(status="ok")), "commits.missing.root"),
    "reason missing": (on("POST", "/leases", _without("reason")), "authorisation.lease.secret"),
    "not JSON": (on("POST", "/leases", lambda reply: (reply.status, b"oops")), "errors.status.lease"),
    "disabled not shown": (on("GET", "/repos", _changed(data={})), "admin.disable.shown"),
    "admin open to all": (on("POST", "/gc", _changed(status="ok")), "authorisation.admin.gc.ordinary"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_one_fault(target: Target, what: str) -> None:
    spoil, case = FAULTS[what]
    cases = [found for found in registry.select([case]) if found.id == case]
    assert not failed(run(target, cases)), "the case is to pass on what is right"
    with spoiled(target.gateway, spoil) as url:
        assert failed(run(replace(target, gateway=url, restart_command=""), cases)) == {case}


def test_a_broken_store(target: Target) -> None:
    """A web server that gives other bytes, other types and validators."""

    def spoil(method: str, path: str, reply: Reply) -> tuple[int, bytes] | None:
        return (200, reply.body[:-1] + b"?") if reply.status == 200 and reply.body else None

    cases = registry.select(["objectstore"])
    with spoiled(target.stratum0, spoil) as url:
        report = run(replace(target, stratum0=f"{url}/cvmfs", timeout=5.0, store=None), cases)
    wanted = {
        "objectstore.manifest.signature",
        "objectstore.present.C",
        "objectstore.present.X",
        "objectstore.check",
        "objectstore.http.range.first",
        "objectstore.http.object.type",
        "objectstore.http.mutable.age.published",
        "objectstore.reflog",
        "objectstore.whitelist.signature",
    }
    assert wanted <= failed(report)


def test_a_lost_commit_is_found(target: Target) -> None:
    """A gateway that says that it has committed, and has not."""

    def spoil(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        return say_ok(method, path, body)

    names = ["commits.change.add.file", "commits.merge.plain", "concurrency.commits", "tags.trunk", "faults.commit.cut"]
    with fake(spoil) as url:
        report = run(replace(target, gateway=url, restart_command=""), registry.select(names), destructive=True)
    assert set(names) <= failed(report)
