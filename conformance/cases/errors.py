"""Errors, and the form of every reply: publishers crash on what is not a short JSON object in one piece."""

from __future__ import annotations

import time
from collections.abc import Callable

from conformance.outcomes import Deviates, NotApplicable, equal, expect
from conformance.pack import Pack
from conformance.probe import Probe, accepted
from conformance.registry import API, PUBLISHER, case, each
from conformance.wire import Reply, head, read_reply

Ask = Callable[[Probe], Reply]


def _lease(probe: Probe) -> Reply:
    return probe.ask(probe.path())


def _busy(probe: Probe) -> Reply:
    path = probe.path()
    probe.acquire(path)
    return probe.ask(path)


def _commit(probe: Probe) -> Reply:
    top = probe.path()
    return probe.publish(top, lambda tree: tree.make_directories(top)).reply


def _bad_commit(probe: Probe) -> Reply:
    return probe.gateway.commit(probe.acquire(), probe.repository.manifest().root, "1" * 40)


def _payload(probe: Probe) -> Reply:
    return probe.gateway.payload(probe.acquire(), Pack.of([probe.new_object()]))


def _bad_payload(probe: Probe) -> Reply:
    return probe.gateway.payload("NOTOKEN", Pack.of([probe.new_object()]))


def _drop(probe: Probe) -> Reply:
    return probe.gateway.drop(probe.acquire())


REPLIES: dict[str, tuple[str, str, Ask]] = {
    "lease": ("a lease", "ok", _lease),
    "busy": ("path_busy", "path_busy", _busy),
    "refused": ("a refused lease", "error", lambda p: p.keep(p.gateway.acquire("nothing.example.org/a"))),
    "commit": ("a commit", "ok", _commit),
    "commit.refused": ("a refused commit", "error", _bad_commit),
    "payload": ("a payload", "ok", _payload),
    "payload.refused": ("a refused payload", "error", _bad_payload),
    "drop": ("a dropped lease", "ok", _drop),
    "hmac": ("a request that is not signed", "error", lambda p: p.gateway.call("POST", "/leases", b"{}")),
}


@each(
    "errors.piece",
    PUBLISHER,
    {
        name: (f"the reply to {words} has a Content-Length, is not chunked, and comes in one read with its head", ask)
        for name, (words, _, ask) in REPLIES.items()
    },
)
def in_one_piece(probe: Probe, ask: Ask) -> None:
    reply = ask(probe)
    equal(reply.headers.get("content-length"), str(len(reply.body)), "Content-Length")
    expect("transfer-encoding" not in reply.headers, "Transfer-Encoding is there")
    expect(reply.first.endswith(reply.body), "the body came in another read than the head")


@each(
    "errors.status",
    API,
    {
        name: (f"the reply to {words} is HTTP 200 with status {status}", status, ask)
        for name, (words, status, ask) in REPLIES.items()
    },
)
def has_status(probe: Probe, status: str, ask: Ask) -> None:
    reply = ask(probe)
    equal(reply.status, 200, "HTTP status")
    equal(reply.json.get("status"), status, "status")
    if status == "error":
        reason = reply.json.get("reason")
        expect(isinstance(reason, str) and reason, f"reason is {reason!r}")


def _post(route: str, body: bytes) -> Ask:
    return lambda probe: probe.gateway.call("POST", route, body, signed=body)


MALFORMED: dict[str, tuple[str, int | None, Ask]] = {
    "json": ("a lease request that is no JSON", 400, _post("/leases", b"{")),
    "empty": ("a lease request without a body", 400, _post("/leases", b"")),
    "list": ("a lease request that is a list", 400, _post("/leases", b"[]")),
    "version": (
        "a lease request whose api_version is no number",
        400,
        _post("/leases", b'{"path":"a/b","api_version":"x"}'),
    ),
    "version.missing": ("a lease request without api_version", 400, _post("/leases", b'{"path":"a/b"}')),
    "route": ("an unknown route", 404, lambda p: p.gateway.get("/nothing/there")),
    "method": ("a method that a route does not have", 405, lambda p: p.gateway.call("DELETE", "/repos")),
    "outside": ("a route outside the API", 404, lambda p: p.gateway.get("/../v0/leases")),
    "deep": ("JSON nested 10,000 levels deep", None, _post("/leases", b"[" * 10_000 + b"]" * 10_000)),
    "nul": ("JSON with a NUL in it", None, _post("/leases", b'{"path":"a\x00"}')),
}


@each(
    "errors.malformed",
    API,
    {name: (f"{words} is HTTP {status or '4xx'}", status, ask) for name, (words, status, ask) in MALFORMED.items()},
)
def malformed(probe: Probe, status: int | None, ask: Ask) -> None:
    reply = ask(probe)
    if status is None:
        expect(400 <= reply.status < 500 or reply.json.get("status") == "error", f"it is {reply}")
    else:
        equal(reply.status, status, "HTTP status")


@each(
    "errors.body",
    PUBLISHER,
    {
        name: (f"the answer to {words} is a JSON object with status error and a reason", ask)
        for name, (words, _, ask) in MALFORMED.items()
    },
)
def error_body(probe: Probe, ask: Ask) -> None:
    found = ask(probe).json
    equal(found.get("status"), "error", "status")
    expect(isinstance(found.get("reason"), str) and found["reason"], f"reason is {found.get('reason')!r}")


@case("errors.type", "replies are application/json", "what they are")
def content_type(probe: Probe) -> None:
    found = probe.gateway.get("/repos").headers.get("content-type", "")
    if found.startswith("text/plain"):
        raise Deviates("says text/plain, as release 2.12 does; publishers do not look")
    expect(found.startswith("application/json"), f"Content-Type is {found!r}")


@case("errors.keepalive", "several requests can be made on one connection", PUBLISHER)
def keep_alive(probe: Probe) -> None:
    url = probe.gateway.url
    with url.connect(probe.target.timeout) as connection:
        for _ in range(3):
            target = f"{probe.gateway.root}/repos"
            connection.sendall(head("GET", target, url.netloc, {}, 0, close=False))
            reply = read_reply(connection, time.monotonic())
            expect(probe.fqrn in accepted(reply, "GET /repos")["data"], "the repository is not in it")
            if reply.headers.get("connection", "").lower() == "close":
                raise NotApplicable("the server closes its connections")


@case("errors.query", "a query string after a route does no harm", API)
def query(probe: Probe) -> None:
    expect(
        probe.fqrn in accepted(probe.gateway.get("/repos?a=b"), "GET /repos?a=b")["data"], "the repository is not in it"
    )


@case("errors.alive", "after all of this the gateway grants leases and commits", "bad input must cost nothing")
def alive(probe: Probe) -> None:
    _commit(probe)
