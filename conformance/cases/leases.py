"""Leases: granting, showing, dropping, and which paths exclude each other."""

from __future__ import annotations

import base64
import re
from typing import Final

from conformance.outcomes import Deviates, Failed, NotApplicable, equal, expect
from conformance.pack import Pack
from conformance.probe import Probe, accepted, granted, refused
from conformance.registry import API, PUBLISHER, case, each

DURATION: Final = re.compile(r"(\d+h)?(\d+m)?\d+(\.\d+)?(s|ms|µs)")
EXPIRES: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [+-]\d{4} \S+")


@case("leases.grant", "POST /leases grants with status ok, session_token and max_api_version", API)
def grant(probe: Probe) -> None:
    reply = accepted(probe.ask(probe.path()), "lease")
    expect(isinstance(reply.get("session_token"), str), f"session_token is {reply.get('session_token')!r}")
    version = reply.get("max_api_version")
    expect(isinstance(version, int) and not isinstance(version, bool), f"max_api_version is {version!r}")


@case("leases.reply.members", "a granted lease's reply has the three members that release 2.12 has", API)
def reply_members(probe: Probe) -> None:
    members = set(accepted(probe.ask(probe.path()), "lease"))
    more = members - {"status", "session_token", "max_api_version"}
    if more and more <= {"revision", "root_hash"}:
        raise Deviates("also tells the present head, as later releases do; publishers of 2.12 pass it over")
    equal(more, set(), "other members")


@case("leases.reply.head", "revision and root_hash in a lease's reply, where they are, are those of the head", API)
def reply_head(probe: Probe) -> None:
    manifest = probe.repository.manifest()
    reply = accepted(probe.ask(probe.path()), "lease")
    if "revision" not in reply:
        raise NotApplicable("this gateway does not tell the head")
    equal(reply["revision"], manifest.revision, "revision")
    equal(reply.get("root_hash"), manifest.root, "root_hash")


@case("leases.token.form", "tokens are 32 random bytes in base32", API)
def token_form(probe: Probe) -> None:
    token = probe.acquire()
    try:
        raw = base64.b32decode(token)
    except ValueError:
        raise Failed(f"a token of {len(token)} characters that is not base32") from None
    equal(len(raw), 32, "bytes in a token")


@case("leases.token.differ", "no two leases get the same token", API)
def tokens_differ(probe: Probe) -> None:
    tokens = [probe.acquire() for _ in range(20)]
    equal(len(set(tokens)), 20, "different tokens")


@case("leases.token.hidden", "GET /leases shows no token", "a token is the right to commit")
def token_hidden(probe: Probe) -> None:
    token = probe.acquire()
    for route in ("/leases", f"/leases/{token}", "/repos"):
        expect(token.encode() not in probe.gateway.get(route).body, f"GET {route.split('/')[1]} shows the token")


@each(
    "leases.version",
    API,
    {
        "2": ("a publisher that speaks protocol 2 is answered with 2", 2, 2),
        "3": ("a publisher that speaks protocol 3 is answered with 3", 3, 3),
        "newer": ("a publisher that speaks more than the gateway is answered with the gateway's own", 99, None),
    },
)
def version(probe: Probe, asked: int, wanted: int | None) -> None:
    found = accepted(probe.ask(probe.path(), api_version=str(asked)), "lease")["max_api_version"]
    if wanted is None:
        expect(3 <= found < 99, f"max_api_version is {found}")
    else:
        equal(found, wanted, "max_api_version")


@each(
    "leases.version.old",
    API,
    {
        "0": ("a publisher that speaks protocol 0 is refused", "0"),
        "1": ("a publisher that speaks protocol 1 is refused", "1"),
        "negative": ("a negative protocol number is refused", "-3"),
    },
)
def old_version(probe: Probe, asked: str) -> None:
    refused(probe.ask(probe.path(), api_version=asked), "lease", "incompatible request version")


@case("leases.list", "GET /leases has each lease under its path", API)
def listed(probe: Probe) -> None:
    paths = [probe.path() for _ in range(3)]
    for path in paths:
        probe.acquire(path)
    found = probe.listing()
    for path in paths:
        expect(probe.fqrn + path in found, f"{path} is not in the list")


@case("leases.list.fields", "a lease is listed with key_id, path, expires and hostname", API)
def listed_fields(probe: Probe) -> None:
    path = probe.path()
    probe.acquire(path, hostname="builder7.example.org")
    shown = probe.listing()[probe.fqrn + path]
    equal(shown.get("key_id"), probe.target.key.id, "key_id")
    equal(shown.get("path"), probe.fqrn + path, "path")
    equal(shown.get("hostname"), "builder7.example.org", "hostname")
    expect(EXPIRES.fullmatch(str(shown.get("expires"))), f"expires is {shown.get('expires')!r}")
    more = set(shown) - {"key_id", "path", "hostname", "expires"}
    if more:
        raise Deviates(f"tells more for people to decide by ({', '.join(sorted(more))}); no tool reads the list")


@case("leases.show", "GET /leases/<token> has the lease in data, and no status", API)
def shown(probe: Probe) -> None:
    path = probe.path()
    reply = probe.gateway.show(probe.acquire(path))
    equal(reply.status, 200, "HTTP status")
    data = reply.json.get("data")
    if not isinstance(data, dict):
        raise Failed(f"no data: {reply}")
    equal(data.get("path"), probe.fqrn + path, "path")
    equal(data.get("key_id"), probe.target.key.id, "key_id")
    expect("status" not in reply.json, "there is a status")


@case("leases.hostname.missing", "publishers before 2.11, which send no hostname, get leases", API)
def no_hostname(probe: Probe) -> None:
    path = probe.path()
    probe.acquire(path, hostname=None)
    shown = probe.listing()[probe.fqrn + path]
    expect(shown.get("hostname"), "no hostname is shown, not even the publisher's address")


@case("leases.unknown.fields", "a lease request with fields that nobody knows is granted", API)
def unknown_fields(probe: Probe) -> None:
    granted(probe.ask(probe.path(), of_a_later_release={"deep": [1, 2]}))


@case("leases.content.type", "the body's content type does not matter", PUBLISHER)
def content_type(probe: Probe) -> None:
    for kind in ("application/x-www-form-urlencoded", "application/json", "text/plain", "nonsense"):
        body = f'{{"path":"{probe.fqrn}{probe.path()}","api_version":"2"}}'.encode()
        reply = probe.gateway.call("POST", "/leases", body, signed=body, headers={"Content-Type": kind})
        granted(probe.keep(reply))


# --- the end of a lease ---------------------------------------------------------------------------------------------


@case("leases.drop", "DELETE /leases/<token> answers ok and takes the lease from the list", API)
def drop(probe: Probe) -> None:
    path = probe.path()
    accepted(probe.gateway.drop(probe.acquire(path)), "drop")
    expect(probe.fqrn + path not in probe.listing(), "the lease is still listed")


@case("leases.drop.frees", "a path can be leased again at once after its lease was dropped", API)
def drop_frees(probe: Probe) -> None:
    path = probe.path()
    for _ in range(5):
        accepted(probe.gateway.drop(probe.acquire(path)), "drop")


@case("leases.drop.twice", "dropping a lease a second time is refused as invalid lease", API)
def drop_twice(probe: Probe) -> None:
    token = probe.acquire()
    accepted(probe.gateway.drop(token), "drop")
    refused(probe.gateway.drop(token), "second drop", "invalid lease")


@case("leases.token.escaped", "a token whose padding is percent-encoded in the URL is the same token", API)
def escaped_token(probe: Probe) -> None:
    token = probe.acquire()
    route = f"/leases/{token.replace('=', '%3D')}"
    accepted(probe.gateway.call("DELETE", route, signed=token.encode()), "drop")


@each(
    "leases.unknown",
    API,
    {
        "show": ("showing an unknown token is HTTP 500, invalid lease", "GET"),
        "drop": ("dropping an unknown token is refused as invalid lease", "DELETE"),
        "commit": ("committing an unknown token is refused as invalid lease", "POST"),
        "payload": ("a payload for an unknown token is refused as invalid lease", "payload"),
    },
)
def unknown_token(probe: Probe, method: str) -> None:
    token = base64.b32encode(probe.fresh(32)).decode()
    if method == "GET":
        reply = probe.gateway.show(token)
        equal(reply.status, 500, "HTTP status")
        expect(b"invalid lease" in reply.body, f"the reason is missing: {reply}")
    elif method == "DELETE":
        refused(probe.gateway.drop(token), "drop", "invalid lease")
    elif method == "POST":
        root = probe.repository.manifest().root
        refused(probe.gateway.commit(token, root, root), "commit", "invalid lease")
    else:
        refused(probe.gateway.payload(token, Pack.of([probe.new_object()])), "payload", "invalid lease")


# --- who is in whose way --------------------------------------------------------------------------------------------


@each(
    "leases.busy",
    API,
    {
        "same": ("a path that is leased is busy", "/a", "/a"),
        "below": ("a path below a leased one is busy", "/a", "/a/b/c"),
        "above": ("a path above a leased one is busy", "/a/b/c", "/a"),
        "root": ("the whole repository is busy while any path is leased", "/a", None),
    },
)
def busy(probe: Probe, held: str, asked: str | None) -> None:
    top = probe.path()
    probe.acquire(top + held)
    reply = probe.ask("" if asked is None else top + asked)
    equal(reply.status, 200, "HTTP status")
    equal(reply.json.get("status"), "path_busy", "status")


@case("leases.busy.everything", "every path is busy while the whole repository is leased", API)
def busy_everything(probe: Probe) -> None:
    probe.acquire("")
    for path in ("", probe.path(), f"{probe.path()}/deep/down"):
        equal(probe.ask(path).json.get("status"), "path_busy", f"status of {path or '/'}")


@case("leases.busy.remaining", "path_busy comes with time_remaining, a duration such as 1h59m58.7s", API)
def busy_remaining(probe: Probe) -> None:
    path = probe.path()
    probe.acquire(path)
    found = probe.ask(path).json.get("time_remaining")
    expect(isinstance(found, str) and DURATION.fullmatch(found), f"time_remaining is {found!r}")


@case("leases.busy.own", "the holder of a lease gets no second one on its path", API)
def busy_own(probe: Probe) -> None:
    path = probe.path()
    token = probe.acquire(path)
    equal(probe.ask(path).json.get("status"), "path_busy", "status")
    equal(probe.gateway.show(token).status, 200, "HTTP status of the first lease")


@each(
    "leases.beside",
    "leases exclude each other by whole names (release 2.12 compares text)",
    {
        "other": ("two other directories can be leased at once", "/a", "/b"),
        "siblings": ("two directories in one can be leased at once", "/a/b", "/a/c"),
        "longer": ("/ab can be leased while /abc is", "/abc", "/ab"),
        "shorter": ("/abc can be leased while /ab is", "/ab", "/abc"),
        "case": ("/AB can be leased while /ab/c is: names differ in case", "/ab/c", "/AB"),
        "underscore": ("/a_b can be leased while /axb/c is: no wildcards in names", "/axb/c", "/a_b"),
        "percent": ("/a% can be leased while /axyz/c is: no wildcards in names", "/axyz/c", "/a%"),
    },
)
def beside(probe: Probe, held: str, asked: str) -> None:
    top = probe.path()
    probe.acquire(top + held)
    granted(probe.ask(top + asked))


@case("leases.other.repository", "leases of different repositories have nothing to do with each other", API)
def other_repository(probe: Probe) -> None:
    foreign = probe.need(probe.target.foreign_key, "--foreign-key")
    data = probe.gateway.get("/repos").json.get("data", {})
    others = [name for name, shown in data.items() if foreign.id in shown.get("keys", {}) and name != probe.fqrn]
    if not others:
        raise NotApplicable("the foreign key has no repository here")
    path = probe.path()
    probe.acquire(path)
    granted(probe.keep(probe.gateway.acquire(f"{others[0]}{path}", key=foreign), foreign))
