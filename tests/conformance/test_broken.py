"""The suite can fail: gateways that do wrong do not pass the cases that are about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from conformance import registry
from conformance.model import Report, Verdict
from conformance.runner import run
from conformance.servers import own
from conformance.target import Target
from conformance.wire import Reply
from tests.conformance.broken import Answer, Spoil, Stir, Wrong, fake, refuse, rubbish, say_ok, slow, spoiled, trusting


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


FAKES: dict[Answer, float] = {say_ok: 0.45, refuse: 0.6, rubbish: 0.3}
"""How many of the cases may pass. Who refuses everything is right about everything that has to be refused."""
RIGHT = ("errors.piece.", "authorisation.secrets")
"""What all that answer in JSON are right about: the form of a reply, and that something is not in it."""


def test_fakes(target: Target) -> None:
    cases = [case for case in registry.select(QUICK) if not case.id.startswith("leases.expired")]
    passed: dict[Answer, set[str]] = {}
    for answer, most in FAKES.items():
        with fake(answer) as url:
            report = run(replace(target, gateway=url, timeout=5.0, restart_command=""), cases)
        passed[answer] = {result.id for result in report.results if result.verdict is Verdict.PASS}
        assert len(passed[answer]) < len(cases) * most, passed[answer]
        wanted = {"leases.list", "leases.busy.same", "payloads.style.legacy", "commits.reply", "tags.named"}
        assert wanted <= failed(report)
    assert not [id for id in passed[say_ok] & passed[refuse] if not id.startswith(RIGHT)]


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
def test_one_reply(target: Target, what: str) -> None:
    spoil, case = FAULTS[what]
    _finds(target, Wrong(spoil), [case])


def _finds(target: Target, wrong: Wrong, names: Sequence[str]) -> None:
    """Cases pass on what is right, and each of them fails on what is *wrong*."""
    cases = [found for found in registry.select(names) if found.id in names]
    assert not failed(run(target, cases)), "the cases are to pass on what is right"
    with spoiled(target.gateway, wrong) as url:
        report = run(replace(target, gateway=url, restart_command=""), cases)
    assert failed(report) == set(names), [(result.id, result.verdict) for result in report.results]


OTHERS: dict[str, tuple[Callable[[Target], Wrong], tuple[str, ...]]] = {
    "any signature will do": (
        lambda target: Wrong(meddle=trusting(target.key)),
        (
            "authorisation.lease.secret",
            "authorisation.lease.truncated",
            "authorisation.drop.other",
            "authorisation.commit.missing",
            "authorisation.payload.legacy.secret",
            "authorisation.payload.token.missing",
            "authorisation.foreign",
            "authorisation.restricted.root",
            "authorisation.owner.commit",
        ),
    ),
    "anybody is an administrator": (
        lambda target: Wrong(meddle=trusting(target.admin_key or target.key)),
        ("authorisation.admin.enable.ordinary", "authorisation.admin.gc.secret"),
    ),
    "objects are not stored": (
        lambda target: Wrong(swallow=("/payloads",)),
        ("payloads.style.legacy", "payloads.style.token", "commits.change.add.file", "payloads.content.hash"),
    ),
    "commits are not made": (
        lambda target: Wrong(spoil=on("POST", "/leases/", _changed(final_revision=1)), swallow=("/leases/",)),
        ("commits.change.add.file", "commits.merge.plain", "leases.drop", "faults.commit.delay", "tags.named"),
    ),
    "replies come in chunks": (lambda target: Wrong(chunked=True), ("errors.piece.lease", "errors.piece.commit")),
}


@pytest.mark.parametrize("what", OTHERS)
def test_one_fault(target: Target, what: str) -> None:
    wrong, names = OTHERS[what]
    _finds(target, wrong(target), names)


def test_all_is_slow(target: Target) -> None:
    """How fast the right one is, on a busy machine, is nobody's business here."""
    names = ["timing.quiet.leases", "timing.quiet.lease"]
    with spoiled(target.gateway, Wrong(meddle=slow(0.45))) as url:
        report = run(replace(target, gateway=url, restart_command=""), registry.select(names))
    assert failed(report) == set(names)


STREAMS: dict[str, tuple[Stir, tuple[str, ...]]] = {
    "one event is all": (lambda number, chunk: [chunk] if not number else [], ("notifications.receive",)),
    "the last event is not kept": (lambda number, chunk: [chunk] if number else [], ("notifications.last",)),
    "twice": (lambda number, chunk: [chunk, chunk], ("notifications.last.newest",)),
    "two in one chunk": (lambda number, chunk: [chunk + chunk], ("notifications.form.chunked",)),
    "a comment before": (lambda number, chunk: [b": ping\n\n" + chunk], ("notifications.form.first.line",)),
    "no empty line": (lambda number, chunk: [chunk[:-1]], ("notifications.form.end",)),
    "ends cleanly": (lambda number, chunk: [chunk, b""], ("notifications.form.quiet",)),
    "another manifest": (
        lambda number, chunk: [chunk.replace(b'"manifest":"', b'"manifest":"AAAA').replace(b'": "', b'":"')],
        ("notifications.message.manifest",),
    ),
    "too long": (
        lambda number, chunk: [chunk.replace(b"\n\n", b"\ndata: " + b"x" * 16384 + b"\n\n")],
        ("notifications.form.size",),
    ),
}


@pytest.mark.parametrize("what", STREAMS)
def test_one_stream(target: Target, what: str) -> None:
    stir, names = STREAMS[what]
    _finds(target, Wrong(stir=stir), names)


def test_leases_lost_in_a_restart(target: Target) -> None:
    assert target.store is not None
    work = target.store.parents[2] / "var/lib/cvmfs-gateway"
    command = f"rm {work}/gw.db*; {target.restart_command}"
    names = ["restart.lease.listed", "restart.lease.excludes", "restart.lease.drop", "restart.payload.commit"]
    cases = registry.select(names)
    assert not failed(run(target, cases))
    assert failed(run(replace(target, restart_command=command), cases)) == set(names)


def test_a_manifest_that_stays(target: Target) -> None:
    """A web server, or a cache before it, that gives the manifest that it had first."""
    first: list[bytes] = []

    def stale(method: str, path: str, reply: Reply) -> tuple[int, bytes] | None:
        if not path.endswith("/.cvmfspublished"):
            return None
        first.append(reply.body)
        return reply.status, first[0]

    names = ["commits.change.add.file", "tags.named"]
    with spoiled(target.stratum0, Wrong(stale)) as url:
        assert set(names) <= failed(run(replace(target, stratum0=f"{url}/cvmfs"), registry.select(names)))


def test_a_broken_store(target: Target) -> None:
    """A web server that gives other bytes, other types and validators."""

    def spoil(method: str, path: str, reply: Reply) -> tuple[int, bytes] | None:
        return (200, reply.body[:-1] + b"?") if reply.status == 200 and reply.body else None

    cases = registry.select(["objectstore"])
    with spoiled(target.stratum0, Wrong(spoil)) as url:
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
