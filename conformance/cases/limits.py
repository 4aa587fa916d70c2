"""Limits: what must be possible, and that sizes which a client chooses are bounded."""

from __future__ import annotations

import base64
from typing import Any

from conformance.consistency import check
from conformance.objects import raw_object
from conformance.outcomes import equal, expect
from conformance.pack import Pack
from conformance.probe import Probe, accepted, granted, turned_down
from conformance.registry import API, FORMAT, PUBLISHER, SAFETY, case, each
from conformance.tree import Tree


@case("limits.body", "a lease request of 20 MB is turned down", SAFETY)
def large_body(probe: Probe) -> None:
    body = b'{"path":"' + b"a" * 20_000_000 + b'","api_version":"2"}'
    turned_down(probe.gateway.call("POST", "/leases", body, signed=body), "lease")


@case("limits.body.unsigned", "a body of 20 MB that nobody signed is turned down", SAFETY)
def large_unsigned(probe: Probe) -> None:
    turned_down(probe.gateway.call("POST", "/leases", b"x" * 20_000_000), "lease")


@case("limits.head", "a payload whose JSON is 20 MB is turned down", SAFETY)
def large_head(probe: Probe) -> None:
    pack = Pack.of([probe.new_object()])
    turned_down(probe.gateway.payload(probe.acquire(), pack, filler="x" * 20_000_000), "payload")


@case("limits.header", "a pack whose header is over 10,000,000 bytes is turned down", SAFETY, destructive=True)
def large_header(probe: Probe) -> None:
    header = b"V2\nS0\nN0\n--\n" + b"C " + b"0" * 10_100_000
    turned_down(probe.gateway.payload(probe.acquire(), Pack.raw(header, b"")), "payload")


@case("limits.header.claimed", "a header_size of an exabyte is turned down", SAFETY, destructive=True)
def claimed_header(probe: Probe) -> None:
    pack = Pack.of([probe.new_object()]).claiming(header_size=str(1 << 60))
    turned_down(probe.gateway.payload(probe.acquire(), pack), "payload")


@case("limits.object.claimed", "an object said to have an exabyte is turned down", SAFETY, destructive=True)
def claimed_object(probe: Probe) -> None:
    header = f"V2\nS{1 << 60}\nN1\n--\nC {'1' * 40} {1 << 60}\n".encode()
    turned_down(probe.gateway.payload(probe.acquire(), Pack.raw(header, b"x" * 100)), "payload")


@case("limits.pack.objects", "a pack of 20,000 objects is stored", PUBLISHER)
def many_objects(probe: Probe) -> None:
    seed = probe.fresh(16)
    objects = [raw_object(seed + number.to_bytes(4, "big")) for number in range(20_000)]
    accepted(probe.gateway.payload(probe.acquire(), Pack.of(objects)), "payload")
    for each_object in (objects[0], objects[9_999], objects[-1]):
        expect(probe.repository.has(each_object.name), "an object is missing")


@case("limits.pack.bytes", "a pack of 64 MB is stored", PUBLISHER)
def large_pack(probe: Probe) -> None:
    objects = [raw_object(probe.fresh(16_000_000)) for _ in range(4)]
    accepted(probe.gateway.payload(probe.acquire(), Pack.of(objects)), "payload")
    for each_object in objects:
        expect(probe.repository.has(each_object.name), "an object is missing")


@case("limits.leases", "300 leases can be open at once, and are all listed", API)
def many_leases(probe: Probe) -> None:
    top = probe.path()
    for number in range(300):
        probe.acquire(f"{top}/n{number:03}")
    found = [path for path in probe.listing() if path.startswith(f"{probe.fqrn}{top}/")]
    equal(len(found), 300, "leases listed")


@each(
    "limits.text",
    SAFETY,
    {
        "hostname": ("a hostname of 100,000 characters does no harm", {"hostname": "h" * 100_000}),
        "hostname.odd": ("a hostname with quotes, markup and line breaks does no harm", {"hostname": "'\"<b>\n\0;--"}),
    },
)
def hostnames(probe: Probe, fields: dict[str, Any]) -> None:
    probe.ask(probe.path(), **fields)
    equal(probe.gateway.get("/leases").status, 200, "HTTP status of GET /leases")
    granted(probe.ask(probe.path()))


@case("limits.token", "a token of 10,000 characters is turned down", SAFETY)
def long_token(probe: Probe) -> None:
    reply = probe.gateway.drop("A" * 10_000)
    turned_down(reply, "drop")


@each(
    "limits.tag",
    SAFETY,
    {
        "name": ("a tag name of 5,000 characters is turned down or kept whole", 5_000),
        "usual": ("a tag name of 200 characters is kept whole", 200),
    },
)
def long_tag(probe: Probe, length: int) -> None:
    top, name = probe.path(), (probe.name() + "t" * length)[:length]
    built = probe.build(lambda tree: tree.make_directories(top))
    token = probe.acquire(top)
    probe.send(token, built)
    reply = probe.gateway.commit(token, built.base, built.root, tag_name=name)
    if reply.status == 200 and reply.json.get("status") == "ok":
        expect(name in probe.repository.tags(), "it was cut or lost")
    else:
        expect(length > 1_000, f"refused: {reply}")


@case("limits.depth", "a tree 100 levels deep can be published", FORMAT)
def deep(probe: Probe) -> None:
    top = probe.path()
    bottom = top + "/d" * 100
    probe.publish(top, lambda tree: tree.make_directories(bottom))
    check(probe.repository).need(bottom)


@case("limits.nested", "30 nested catalogs, one in the other, can be published", FORMAT)
def deeply_nested(probe: Probe) -> None:
    top = probe.path()

    def act(tree: Tree) -> None:
        tree.make_directories(top + "/n" * 30)
        for level in range(30, 0, -1):
            tree.nest(top + "/n" * level)

    probe.publish(top, act)
    tree = check(probe.repository)
    equal(sum(prefix.startswith(top) for prefix in tree.prefixes()), 30, "nested catalogs")


@case("limits.file", "a file of many chunks can be published", FORMAT)
def many_chunks(probe: Probe) -> None:
    top, piece = probe.path(), base64.b64encode(probe.fresh(300))

    def act(tree: Tree) -> None:
        tree.make_directories(top)
        pieces = [piece + str(n).encode() for n in range(200)]
        tree.put_chunked(f"{top}/large", pieces)

    probe.publish(top, act)
    equal(len(check(probe.repository).need(f"{top}/large").chunks), 200, "chunks")
