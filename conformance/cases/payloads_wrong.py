"""Malformed payloads: refused, and the lease is as good as before."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from conformance.outcomes import equal, expect
from conformance.pack import Pack
from conformance.probe import Probe, accepted, refused, turned_down
from conformance.registry import API, FORMAT, SAFETY, case, each

Make = Callable[[Probe], Pack]


def _pack(probe: Probe) -> Pack:
    return Pack.of([probe.new_object(500) for _ in range(3)])


def _replaced(old: bytes, new: bytes) -> Make:
    def make(probe: Probe) -> Pack:
        pack = _pack(probe)
        expect(old in pack.header, "the case is wrong")
        return Pack.raw(pack.header.replace(old, new, 1), pack.data)

    return make


def _suffixed(probe: Probe) -> Pack:
    made = probe.new_object()
    return Pack.raw(Pack.of([made]).header.replace(made.name.encode(), made.name.encode() + b"Z"), made.data)


def check_alive(probe: Probe, token: str) -> None:
    """The lease still takes payloads."""
    made = probe.new_object()
    accepted(probe.gateway.payload(token, Pack.of([made])), "a right payload afterwards")
    expect(probe.repository.has(made.name), "a right payload afterwards is not stored")


@each(
    "payloads.claim",
    API,
    {
        "digest": ("a payload_digest that is not the header's is refused", {"payload_digest": "1" * 40}),
        "no.digest": ("a payload_digest that is no hash is refused", {"payload_digest": "what"}),
        "header.short": ("a header_size that is too small is refused", {"header_size": "20"}),
        "header.text": ("a header_size that is no number is turned down", {"header_size": "many"}),
        "header.missing": ("a payload without header_size is turned down", {"header_size": None}),
        "header.negative": ("a negative header_size is turned down", {"header_size": "-1"}),
        "header.zero": ("a header_size of 0 is turned down", {"header_size": "0"}),
    },
)
def claims(probe: Probe, fields: dict[str, Any]) -> None:
    token = probe.acquire()
    turned_down(probe.gateway.payload(token, _pack(probe), **fields), "payload")
    check_alive(probe, token)


@each(
    "payloads.header",
    FORMAT,
    {
        "version": ("a pack of version 1 is refused", _replaced(b"V2", b"V1")),
        "no.number": ("a pack that does not say how many objects it has is refused", _replaced(b"N3\n", b"")),
        "unknown.letter": ("a pack with an entry of an unknown kind is refused", _replaced(b"--\nC ", b"--\nQ ")),
        "suffix": ("an object with a suffix that there is not is refused", _suffixed),
    },
)
def headers(probe: Probe, make: Make) -> None:
    token = probe.acquire()
    refused(probe.gateway.payload(token, make(probe)), "payload")
    check_alive(probe, token)


@each(
    "payloads.counts",
    SAFETY,
    {
        "fewer": ("a pack with more entries than it says is refused", _replaced(b"N3", b"N2")),
        "more": ("a pack with fewer entries than it says is refused", _replaced(b"N3", b"N4")),
        "sum": ("a pack whose sizes do not add up to what it says is refused", _replaced(b"S", b"S1")),
        "garbage": ("a header that is rubbish is refused", lambda probe: Pack.raw(b"nonsense\n" * 3, b"x")),
        "trailing": (
            "bytes after the last object are refused",
            lambda probe: Pack.raw((pack := _pack(probe)).header, pack.data + b"more"),
        ),
    },
)
def counts(probe: Probe, make: Make) -> None:
    token = probe.acquire()
    refused(probe.gateway.payload(token, make(probe)), "payload")
    check_alive(probe, token)


@each(
    "payloads.short",
    SAFETY,
    {
        "data": (
            "a pack that ends early is refused, and does not block the gateway for good",
            lambda probe: Pack.raw((pack := _pack(probe)).header, pack.data[:-10]),
        ),
        "no.data": (
            "a pack without its objects is refused, and does not block the gateway for good",
            lambda probe: Pack.raw(_pack(probe).header, b""),
        ),
        "header": (
            "a header_size beyond the end is refused, and does not block the gateway for good",
            lambda probe: _pack(probe).claiming(header_size="5000"),
        ),
        "size": (
            "an object said to be larger than it is is refused, and does not block the gateway for good",
            lambda probe: _longer(_pack(probe)),
        ),
    },
    destructive=True,
)
def short(probe: Probe, make: Make) -> None:
    token = probe.acquire()
    pack = make(probe)
    route, lead = probe.gateway.payload_parts(token, pack)
    headers = {"Message-Size": str(len(lead))}
    turned_down(
        probe.gateway.call("POST", route, lead + pack.bytes, signed=lead, headers=headers, timeout=15.0), "payload"
    )
    check_alive(probe, token)


def _longer(pack: Pack) -> Pack:
    lines = pack.header.split(b"\n")
    words = lines[-2].split(b" ")
    lines[-2] = b" ".join([*words[:2], b"%d" % (int(words[2]) + 7)])
    lines[1] = b"S%d" % (len(pack.data) + 7)
    return Pack.raw(b"\n".join(lines), pack.data)


@each(
    "payloads.named",
    "no publisher sends named files through a gateway",
    {
        "file": ("a named file in a pack is refused and not written", "{}"),
        "manifest": ("a named file .cvmfspublished in a pack does not replace the manifest", ".cvmfspublished"),
        "climbing": ("a named file ../x in a pack is refused", "../{}"),
        "absolute": ("a named file /tmp/x in a pack is refused", "/tmp/{}"),
    },
    spoils=True,
)
def named(probe: Probe, name: str) -> None:
    own = probe.name()
    name = name.format(own)
    before = probe.repository.read(".cvmfspublished")
    made = probe.new_object()
    encoded = base64.urlsafe_b64encode(name.encode()).decode()
    header = f"V2\nS{len(made.data)}\nN1\n--\nN {made.name} {len(made.data)} {encoded}\n".encode()
    token = probe.acquire()
    refused(probe.gateway.payload(token, Pack.raw(header, made.data)), "payload")
    expect(probe.repository.ask("{}").status == 404, "the file was written")
    equal(probe.repository.read(".cvmfspublished"), before, "the manifest")
    check_alive(probe, token)


@case("payloads.path", "a path in place of a hash is refused", SAFETY)
def path_for_hash(probe: Probe) -> None:
    token = probe.acquire()
    pack = Pack.raw(b"V2\nS4\nN1\n--\nC ../../conformance 4\n", b"oops")
    refused(probe.gateway.payload(token, pack), "payload")
    check_alive(probe, token)


@each(
    "payloads.message.size",
    API,
    {
        "missing": ("a payload without Message-Size is HTTP 400", None),
        "text": ("a payload whose Message-Size is no number is HTTP 400", "many"),
        "empty": ("a payload whose Message-Size is empty is HTTP 400", ""),
    },
)
def message_size(probe: Probe, size: str | None) -> None:
    token, pack = probe.acquire(), _pack(probe)
    route, lead = probe.gateway.payload_parts(token, pack)
    headers = {} if size is None else {"Message-Size": size}
    reply = probe.gateway.call("POST", route, lead + pack.bytes, signed=lead, headers=headers)
    equal(reply.status, 400, "HTTP status")
    check_alive(probe, token)


@each(
    "payloads.message",
    SAFETY,
    {
        "beyond": ("a Message-Size beyond the body is turned down", "1000000"),
        "huge": ("a Message-Size of a gigabyte is turned down, without taking that much memory", "1073741824"),
        "inside": ("a Message-Size that cuts the JSON is turned down", "10"),
        "negative": ("a negative Message-Size is turned down", "-1"),
    },
)
def message_size_wrong(probe: Probe, size: str) -> None:
    token, pack = probe.acquire(), _pack(probe)
    route, lead = probe.gateway.payload_parts(token, pack)
    reply = probe.gateway.call("POST", route, lead + pack.bytes, signed=lead, headers={"Message-Size": size})
    turned_down(reply, "payload")
    check_alive(probe, token)


@case("payloads.message.rubbish", "a signed payload whose JSON is rubbish is HTTP 400", API)
def rubbish(probe: Probe) -> None:
    body = b"this is no JSON, and no pack follows"
    headers = {"Message-Size": str(len(body))}
    equal(probe.gateway.call("POST", "/payloads", body, signed=body, headers=headers).status, 400, "HTTP status")
