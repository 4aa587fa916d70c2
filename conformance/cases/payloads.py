"""Object packs: what is stored of right ones, and that wrong ones do no harm."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from conformance.objects import NO_HASH, StoredObject, raw_object, stored
from conformance.outcomes import equal, expect
from conformance.pack import Pack
from conformance.probe import Probe, accepted, refused
from conformance.registry import API, FORMAT, PUBLISHER, SAFETY, case, each
from conformance.wire import Reply


def check_stored(probe: Probe, objects: Sequence[StoredObject]) -> None:
    """They are in the store, byte for byte."""
    for each_object in objects:
        reply = probe.repository.ask(each_object.path)
        equal(reply.status, 200, f"HTTP status of {each_object.path}")
        expect(reply.body == each_object.data, f"{each_object.path} has other bytes than were sent")


@each(
    "payloads.style",
    API,
    {
        "legacy": ("POST /payloads with the token in the JSON stores the objects", False),
        "token": ("POST /payloads/<token> stores the objects", True),
    },
)
def style(probe: Probe, in_url: bool) -> None:
    objects = [probe.new_object() for _ in range(3)]
    accepted(probe.gateway.payload(probe.acquire(), Pack.of(objects), in_url=in_url), "payload")
    check_stored(probe, objects)


@each(
    "payloads.size",
    FORMAT,
    {
        "none": ("an empty pack (N0) is accepted", 0, 0),
        "one.byte": ("objects of a few bytes are stored", 3, 1),
        "many": ("a pack of 2,000 small objects is stored", 2_000, 20),
        "large": ("an object of 8 MB is stored", 1, 8_000_000),
        "mixed": ("large objects and small ones in one pack are stored", 4, 1_500_000),
    },
)
def sizes(probe: Probe, count: int, size: int) -> None:
    objects = [raw_object(probe.fresh(size)) for _ in range(count)]
    if count == 4:
        objects = [each for large in objects for each in (large, raw_object(probe.fresh(10)))]
    accepted(probe.gateway.payload(probe.acquire(), Pack.of(objects)), "payload")
    check_stored(probe, objects[:3] + objects[-3:])


@case("payloads.size.zero", "an object of no bytes is legal", FORMAT)
def empty_object(probe: Probe) -> None:
    objects = [raw_object(b""), probe.new_object()]
    accepted(probe.gateway.payload(probe.acquire(), Pack.of(objects)), "payload")
    check_stored(probe, objects[1:])


@each(
    "payloads.suffix",
    FORMAT,
    {
        name: (f"an object with the suffix {suffix or '(none)'} is stored under it", suffix)
        for name, suffix in {"plain": "", "catalog": "C", "chunk": "P"}.items()
    },
)
def suffixes(probe: Probe, suffix: str) -> None:
    made = probe.new_object(suffix=suffix)
    accepted(probe.gateway.payload(probe.acquire(), Pack.of([made])), "payload")
    check_stored(probe, [made])


@each(
    "payloads.algorithm",
    FORMAT,
    {
        "rmd160": ("an object named by RIPEMD-160 is stored", "-rmd160"),
        "shake128": ("an object named by SHAKE-128 is stored", "-shake128"),
    },
)
def algorithms(probe: Probe, algorithm: str) -> None:
    made = stored(probe.fresh(100), algorithm)
    accepted(probe.gateway.payload(probe.acquire(), Pack.of([made])), "payload")
    check_stored(probe, [made])


@case("payloads.again", "objects that are there already are no error", API)
def again(probe: Probe) -> None:
    pack = Pack.of([probe.new_object() for _ in range(3)])
    token = probe.acquire()
    for _ in range(3):
        accepted(probe.gateway.payload(token, pack), "payload")


@case("payloads.same.twice", "an object that is twice in one pack is no error", API)
def twice(probe: Probe) -> None:
    made = probe.new_object()
    accepted(probe.gateway.payload(probe.acquire(), Pack.of([made, made])), "payload")
    check_stored(probe, [made])


@case("payloads.kept", "what an upload stored stays when its lease is dropped", "later packs leave out what is there")
def kept(probe: Probe) -> None:
    made, token = probe.new_object(), probe.acquire()
    accepted(probe.gateway.payload(token, Pack.of([made])), "payload")
    accepted(probe.gateway.drop(token), "drop")
    check_stored(probe, [made])


@case("payloads.several", "several packs can be sent for one lease", PUBLISHER)
def several(probe: Probe) -> None:
    token = probe.acquire()
    objects = [probe.new_object() for _ in range(5)]
    for each_object in objects:
        accepted(probe.gateway.payload(token, Pack.of([each_object])), "payload")
    check_stored(probe, objects)


@case("payloads.visible", "an object can be read as soon as its payload is answered", "commits name it next")
def visible(probe: Probe) -> None:
    token = probe.acquire()
    for _ in range(5):
        made = probe.new_object()
        accepted(probe.gateway.payload(token, Pack.of([made])), "payload")
        check_stored(probe, [made])


@case("payloads.token.both", "with a token in the URL, one in the JSON does no harm", API)
def token_in_both(probe: Probe) -> None:
    token, made = probe.acquire(), probe.new_object()
    pack = Pack.of([made])
    _, lead = probe.gateway.payload_parts(token, pack)
    headers = {"Message-Size": str(len(lead))}
    reply = probe.gateway.call("POST", f"/payloads/{token}", lead + pack.bytes, signed=token.encode(), headers=headers)
    accepted(reply, "payload")
    check_stored(probe, [made])


@case("payloads.unknown.fields", "fields in the JSON that nobody knows are passed over", API)
def unknown_fields(probe: Probe) -> None:
    made = probe.new_object()
    accepted(probe.gateway.payload(probe.acquire(), Pack.of([made]), later={"a": 1}), "payload")
    check_stored(probe, [made])


@case("payloads.expect", "a payload with Expect: 100-continue is taken", PUBLISHER)
def expects(probe: Probe) -> None:
    made = probe.new_object()
    reply = probe.gateway.payload(probe.acquire(), Pack.of([made]), headers={"Expect": "100-continue"})
    accepted(reply, "payload")
    check_stored(probe, [made])


@case(
    "payloads.chunked",
    "a payload without a length, in chunks, is taken or refused, and then nothing is stored",
    SAFETY,
    destructive=True,
)
def chunked(probe: Probe) -> None:
    token, made = probe.acquire(), probe.new_object()
    pack = Pack.of([made])
    _, lead = probe.gateway.payload_parts(token, pack)
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (lead, pack.header, pack.data)) + b"0\r\n\r\n"
    headers = {"Message-Size": str(len(lead)), "Transfer-Encoding": "chunked"}
    reply = probe.gateway.call("POST", "/payloads", iter([body]), signed=lead, headers=headers, timeout=15.0)
    if reply.status == 200 and reply.json.get("status") == "ok":
        check_stored(probe, [made])
    else:
        expect(not probe.repository.has(made.name), "refused, but stored")


@case("payloads.pieces", "a payload that arrives in pieces of a few bytes is taken", PUBLISHER)
def pieces(probe: Probe) -> None:
    token, made = probe.acquire(), probe.new_object(3000)
    pack = Pack.of([made])
    route, lead = probe.gateway.payload_parts(token, pack)
    whole = lead + pack.bytes
    reply = probe.gateway.call(
        "POST",
        route,
        (whole[at : at + 37] for at in range(0, len(whole), 37)),
        signed=lead,
        headers={"Message-Size": str(len(lead))},
        length=len(whole),
    )
    accepted(reply, "payload")
    check_stored(probe, [made])


# --- wrong objects --------------------------------------------------------------------------------------------------


def _wrong_hash(probe: Probe) -> tuple[Pack, list[StoredObject]]:
    good = probe.new_object()
    bad = StoredObject(probe.new_object().name, "", good.data)
    return Pack.of([bad]), [bad]


def _one_bit(probe: Probe) -> tuple[Pack, list[StoredObject]]:
    made = probe.new_object(5000)
    broken = made.data[:-1] + bytes([made.data[-1] ^ 1])
    return Pack.raw(Pack.of([made]).header, broken), [made]


def _zero_hash(probe: Probe) -> tuple[Pack, list[StoredObject]]:
    bad = StoredObject(NO_HASH, "", probe.fresh(50))
    return Pack.of([bad]), [bad]


def _one_of_three(probe: Probe) -> tuple[Pack, list[StoredObject]]:
    good, bad = probe.new_object(), StoredObject(probe.new_object().name, "", probe.fresh(60))
    return Pack.of([good, bad, probe.new_object()]), [bad]


@each(
    "payloads.content",
    SAFETY,
    {
        "hash": ("an object whose content has another hash is refused and not stored", _wrong_hash),
        "bit": ("an object with one bit turned over is refused and not stored", _one_bit),
        "zero": ("an object named by zeros is refused and not stored", _zero_hash),
        "one.of.three": ("a pack with one wrong object is refused, and that one is not stored", _one_of_three),
    },
)
def wrong_content(probe: Probe, make: Callable[[Probe], tuple[Pack, list[StoredObject]]]) -> None:
    pack, bad = make(probe)
    reply: Reply = probe.gateway.payload(probe.acquire(), pack)
    refused(reply, "payload")
    for each_object in bad:
        expect(not probe.repository.has(each_object.name), "it is in the store all the same")
