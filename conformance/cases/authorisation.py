"""Who may do what: signatures, keys, administrators, paths."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

from conformance.outcomes import NotApplicable, equal, expect
from conformance.pack import Pack
from conformance.probe import Probe, accepted, granted, refused
from conformance.registry import API, SAFETY, case, each
from conformance.wire import Key, Reply

Forge = Callable[[Key, bytes], dict[str, str]]


def _mac(key: Key, message: bytes) -> hmac.HMAC:
    return hmac.new(key.secret, message, hashlib.sha1)


def _header(key: Key, mac: bytes) -> dict[str, str]:
    return {"Authorization": f"{key.id} {base64.b64encode(mac).decode()}"}


FORGERIES: dict[str, tuple[str, Forge]] = {
    "missing": ("without Authorization", lambda key, message: {}),
    "empty": ("with an empty Authorization", lambda key, message: {"Authorization": ""}),
    "one.word": ("with one word for Authorization", lambda key, message: {"Authorization": key.id}),
    "three.words": (
        "with three words for Authorization",
        lambda key, message: {"Authorization": key.authorization(message) + " more"},
    ),
    "base64": ("with a signature that is not base64", lambda key, message: {"Authorization": f"{key.id} %%%"}),
    "unknown.key": ("signed by an unknown key", lambda key, message: _header(Key("nobody", b""), b"0" * 40)),
    "secret": (
        "signed with a wrong secret",
        lambda key, message: {"Authorization": Key(key.id, b"wrong").authorization(message)},
    ),
    "raw": (
        "signed with the raw digest instead of its hex text",
        lambda key, message: _header(key, _mac(key, message).digest()),
    ),
    "upper": (
        "signed with upper-case hex",
        lambda key, message: _header(key, _mac(key, message).hexdigest().upper().encode()),
    ),
    "plain.hex": (
        "signed with hex that is not in base64",
        lambda key, message: {"Authorization": f"{key.id} {_mac(key, message).hexdigest()}"},
    ),
    "other": (
        "with a signature of something else",
        lambda key, message: {"Authorization": key.authorization(message + b" ")},
    ),
    "truncated": (
        "with the first half of the signature",
        lambda key, message: _header(key, _mac(key, message).hexdigest()[:20].encode()),
    ),
}


@each(
    "authorisation.lease",
    API,
    {name: (f"POST /leases {words} is refused as invalid_hmac", forge) for name, (words, forge) in FORGERIES.items()},
)
def lease(probe: Probe, forge: Forge) -> None:
    path = probe.path()
    body = f'{{"path":"{probe.fqrn}{path}","api_version":"2"}}'.encode()
    reply = probe.gateway.call("POST", "/leases", body, headers=forge(probe.target.key, body))
    refused(probe.keep(reply), "lease", "invalid_hmac")
    expect(probe.fqrn + path not in probe.listing(), "a lease was granted all the same")


def _some(*names: str) -> dict[str, tuple[str, Forge]]:
    return {name: FORGERIES[name] for name in names}


@each(
    "authorisation.drop",
    API,
    {
        name: (f"DELETE /leases/<token> {words} is refused as invalid_hmac", forge)
        for name, (words, forge) in _some("missing", "secret", "other").items()
    },
)
def drop(probe: Probe, forge: Forge) -> None:
    token = probe.acquire()
    headers = forge(probe.target.key, token.encode())
    refused(probe.gateway.call("DELETE", f"/leases/{token}", headers=headers), "drop", "invalid_hmac")
    equal(probe.gateway.show(token).status, 200, "HTTP status of the lease")


@each(
    "authorisation.commit",
    API,
    {
        name: (f"a commit {words} is refused as invalid_hmac", forge)
        for name, (words, forge) in _some("missing", "secret", "other").items()
    },
)
def commit(probe: Probe, forge: Forge) -> None:
    before = probe.repository.manifest()
    token = probe.acquire()
    body = f'{{"old_root_hash":"{before.root}C","new_root_hash":"{before.root}C","tag_name":""}}'.encode()
    reply = probe.gateway.call("POST", f"/leases/{token}", body, headers=forge(probe.target.key, token.encode()))
    refused(reply, "commit", "invalid_hmac")
    equal(probe.repository.manifest().revision, before.revision, "revision")


@case("authorisation.commit.body", "a commit signed over its body instead of the token is refused", API)
def commit_body(probe: Probe) -> None:
    root = probe.repository.manifest().root
    token = probe.acquire()
    body = f'{{"old_root_hash":"{root}C","new_root_hash":"{root}C","tag_name":""}}'.encode()
    refused(probe.gateway.call("POST", f"/leases/{token}", body, signed=body), "commit", "invalid_hmac")


@each(
    "authorisation.payload",
    API,
    {
        f"{style}.{name}": (f"a payload ({style}) {words} is refused as invalid_hmac", style == "token", forge)
        for style in ("legacy", "token")
        for name, (words, forge) in _some("missing", "secret", "other").items()
    },
)
def payload(probe: Probe, in_url: bool, forge: Forge) -> None:
    token, made = probe.acquire(), probe.new_object()
    pack = Pack.of([made])
    route, lead = probe.gateway.payload_parts(token, pack, in_url=in_url)
    signed = token.encode() if in_url else lead
    headers = {"Message-Size": str(len(lead)), **forge(probe.target.key, signed)}
    refused(probe.gateway.call("POST", route, lead + pack.bytes, headers=headers), "payload", "invalid_hmac")
    expect(not probe.repository.has(made.name), "the object was stored all the same")


@case("authorisation.payload.whole", "a legacy payload is signed over the JSON in front, not over the whole body", API)
def payload_whole(probe: Probe) -> None:
    token, pack = probe.acquire(), Pack.of([probe.new_object()])
    _, lead = probe.gateway.payload_parts(token, pack)
    refused(probe.gateway.payload(token, pack, signed=lead + pack.bytes), "payload", "invalid_hmac")


# --- administrators -------------------------------------------------------------------------------------------------

ADMIN_ROUTES: dict[str, tuple[str, str, Callable[[Probe], tuple[str, bytes]]]] = {
    "enable": ("POST", "POST /repos/<name>", lambda probe: (f"/repos/{probe.fqrn}", b'{"enable":true,"wait":false}')),
    "cancel": ("DELETE", "DELETE /leases-by-path", lambda probe: (f"/leases-by-path/{probe.fqrn}{probe.path()}", b"")),
    "gc": (
        "POST",
        "POST /gc",
        lambda probe: ("/gc", f'{{"repo":"{probe.fqrn}","dry_run":true,"num_revisions":100000}}'.encode()),
    ),
}
ADMIN_FAULTS: dict[str, tuple[str, str]] = {
    "missing": ("without Authorization", "invalid_authorization_header"),
    "malformed": ("with one word for Authorization", "invalid_authorization_header"),
    "unknown": ("signed by an unknown key", "invalid_key"),
    "ordinary": ("signed by a key of no administrator", "no_admin_key"),
    "secret": ("signed with a wrong secret", "invalid_hmac"),
}


@each(
    "authorisation.admin",
    API,
    {
        f"{route}.{fault}": (f"{title} {words} is refused as {reason}", route, fault)
        for route, (_, title, _) in ADMIN_ROUTES.items()
        for fault, (words, reason) in ADMIN_FAULTS.items()
    },
)
def admin(probe: Probe, route: str, fault: str) -> None:
    method, _, make = ADMIN_ROUTES[route]
    path, body = make(probe)
    signed = body if method == "POST" else (probe.gateway.root + path).encode()
    key = probe.target.key
    if fault == "secret":
        key = Key(probe.admin.id, b"wrong")
    elif fault == "unknown":
        key = Key("nobody", b"nothing")
    headers = {"missing": {}, "malformed": {"Authorization": key.id}}.get(fault)
    if headers is None:
        headers = {"Authorization": key.authorization(signed)}
    if fault == "ordinary" and probe.target.admin_key == key:
        raise NotApplicable("the publishers' key is an administrator's here")
    reply = probe.gateway.call(method, path, body, headers=headers)
    refused(reply, route, ADMIN_FAULTS[fault][1])


# --- which key for what ---------------------------------------------------------------------------------------------


@case("authorisation.foreign", "a key that is not for the repository gets no lease there, as invalid_key", API)
def foreign(probe: Probe) -> None:
    key = probe.need(probe.target.foreign_key, "--foreign-key")
    refused(probe.ask(probe.path(), key=key), "lease", "authorization error: invalid_key")


@each(
    "authorisation.restricted",
    API,
    {
        "at": ("a key restricted to a path gets a lease on it", "{}", True),
        "below": ("a key restricted to a path gets a lease below it", "{}/a/b", True),
        "root": ("a key restricted to a path gets none on the whole repository", "", False),
        "beside": ("a key restricted to a path gets none beside it", "/elsewhere", False),
        "longer": ("a key restricted to /a gets none on /ab", "{}x", False),
        "climbing": ("a key restricted to a path gets none on one that climbs out of it", "{}/../elsewhere", False),
    },
)
def restricted(probe: Probe, path: str, allowed: bool) -> None:
    key = probe.need(probe.target.restricted_key, "--restricted-key")
    reply = probe.ask(path.format(probe.target.restricted_path), key=key)
    if allowed:
        granted(reply)
    else:
        refused(reply, "lease", "" if ".." in path else "authorization error: invalid_path")


@each(
    "authorisation.owner",
    "a lease is its key's",
    {
        "drop": ("another key cannot drop a lease", lambda p, token, key: p.gateway.drop(token, key=key)),
        "payload": (
            "another key cannot send payloads for a lease",
            lambda p, token, key: p.gateway.payload(token, Pack.of([p.new_object()]), key=key),
        ),
        "commit": (
            "another key cannot commit a lease",
            lambda p, token, key: p.gateway.commit(token, *[p.build(lambda tree: None).base] * 2, key=key),
        ),
        "renew": ("another key cannot renew a lease", lambda p, token, key: p.gateway.renew(token, key=key)),
    },
)
def owner(probe: Probe, act: Callable[[Probe, str, Key], Reply]) -> None:
    key = probe.need(probe.target.other_key, "--other-key")
    token = probe.acquire()
    reply = act(probe, token, key)
    if reply.status == 405:
        raise NotApplicable("this gateway does not renew leases")
    refused(reply, "what the other key asks for")
    equal(probe.gateway.show(token).status, 200, "HTTP status of the lease")


@case("authorisation.other", "another key of the repository gets leases of its own", API)
def other(probe: Probe) -> None:
    key = probe.need(probe.target.other_key, "--other-key")
    path = probe.path()
    probe.acquire(path, key=key)
    equal(probe.listing()[probe.fqrn + path]["key_id"], key.id, "key_id")


@each(
    "authorisation.read",
    API,
    {
        "repos": ("GET /repos needs no signature", "/repos", "data"),
        "leases": ("GET /leases needs no signature", "/leases", "data"),
        "root": ("GET of the API's root needs no signature", "", "welcome"),
    },
)
def reading(probe: Probe, route: str, member: str) -> None:
    reply = probe.gateway.get(route)
    equal(reply.status, 200, "HTTP status")
    expect(member in reply.json, f"no {member}: {reply}")


@case("authorisation.secrets", "no reply shows the secret of a key", SAFETY)
def secrets(probe: Probe) -> None:
    keys = [probe.target.key, probe.target.admin_key, probe.target.other_key, probe.target.foreign_key]
    for route in ("", "/repos", f"/repos/{probe.fqrn}", "/leases"):
        body = probe.gateway.get(route).body
        expect(not any(key is not None and key.secret in body for key in keys), f"GET {route} shows a secret")


@case("authorisation.replay", "a signature of one lease request is good for that request only", API)
def replayed(probe: Probe) -> None:
    first = f'{{"path":"{probe.fqrn}{probe.path()}","api_version":"2"}}'.encode()
    second = f'{{"path":"{probe.fqrn}{probe.path()}","api_version":"2"}}'.encode()
    accepted(probe.keep(probe.gateway.call("POST", "/leases", first, signed=first)), "lease")
    refused(probe.keep(probe.gateway.call("POST", "/leases", second, signed=first)), "lease", "invalid_hmac")
