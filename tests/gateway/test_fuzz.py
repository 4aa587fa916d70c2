"""What nobody should send: mutated object packs and requests. No crash, no growth, and the right exceptions only.

A few seconds as part of the tests. ``CVMFS_GW_FUZZ_S=600 pytest -n 0 -rP tests/gateway/test_fuzz.py`` goes on for ten
minutes with each and says how many there were; ``CVMFS_GW_FUZZ_SEED`` repeats what was found.
"""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Iterator

import pytest

from cvmfs_gw.api.messages import CommitRequest, EnableRequest, GcRequest, NewLeaseRequest, PayloadHead, decode, number
from cvmfs_gw.gateway.authorization import parse_header
from cvmfs_gw.gateway.errors import GatewayError, PayloadError
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.gateway.packs import PackReceiver
from cvmfs_objstore.hashes import ContentHash, Suffix
from cvmfs_objstore.memory import MemoryStorage
from cvmfs_objstore.objects import ObjectStore
from tests.gateway.support import KEY, catalog, digest_of, pack

SECONDS = float(os.environ.get("CVMFS_GW_FUZZ_S", "1"))
SEED = int(os.environ.get("CVMFS_GW_FUZZ_SEED", "0")) or random.SystemRandom().getrandbits(32)
GROWTH = 32 << 20
"""Bytes that the process may grow by, however long it goes on: allocators round."""

WORDS: tuple[bytes, ...] = (
    b"\n",
    b" ",
    b"C ",
    b"N ",
    b"V2",
    b"S",
    b"--\n",
    b"-rmd160",
    b"-1",
    b"0",
    b"9" * 18,
    b"9" * 30,
    b"\0",
    b"\xff",
)
WORDS += (b'"', b"{", b"[", b"}", b"null", b"1e999", b'"\\ud800"', b"[" * 2000, b"/..", b"//", b"%2f")


def mutate(rng: random.Random, data: bytes) -> bytes:
    """*data* with a few bytes changed, cut, doubled, or replaced by something meaningful."""
    mutated = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(mutated) + 1)
        end = min(len(mutated), at + rng.choice((0, 1, 1, 4, 50)))
        match rng.randrange(4):
            case 0:
                mutated[at:end] = rng.randbytes(end - at)
            case 1:
                del mutated[at:end]
            case 2:
                mutated[at:at] = mutated[at:end]
            case 3:
                mutated[at:end] = rng.choice(WORDS)
    return bytes(mutated)


def rounds() -> Iterator[random.Random]:
    """Random generators until time is up, each with a seed that a failure shows."""
    until = time.monotonic() + SECONDS
    seed = SEED
    while time.monotonic() < until:
        yield random.Random(seed)
        seed += 1


def resident() -> int:
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def fuzz(name: str, one: Callable[[random.Random], None]) -> None:
    before, count = 0, 0
    for count, rng in enumerate(rounds(), 1):
        if count == 500:
            before = resident()
        try:
            one(rng)
        except Exception as error:
            pytest.fail(f"{name}, seed {SEED + count - 1}: {type(error).__name__}: {error}")
    assert count
    growth = resident() - before if before else 0
    print(f"{name}: {count:,} in {SECONDS:.0f} s from seed {SEED}, memory grew by {growth / (1 << 20):.1f} MiB")
    assert growth < GROWTH


def test_object_packs() -> None:
    objects = [b"", b"x", b"small" * 100, os.urandom(2_000), bytes(1_100_000)]

    def one(rng: random.Random) -> None:
        header, data = pack(rng.sample(objects, rng.randrange(4)), rng.choice(list(Suffix)))
        whole = header + data
        honest = rng.random() < 0.5
        if honest:  # the digest is of what is sent, so that the header's own parser is reached
            header = mutate(rng, header)
            whole = header + data
        else:
            whole = mutate(rng, whole)
        storage = MemoryStorage()
        try:
            receiver = PackReceiver(ObjectStore(storage), digest_of(header), len(header))
        except PayloadError:
            return
        try:
            while whole:
                size = rng.choice((1, 10, 1000, 100_000, 2_000_000))
                receiver.feed([whole[:size], memoryview(whole[size : 2 * size])])
                whole = whole[2 * size :]
            receiver.finish()
        except PayloadError:
            receiver.abort()
        store = ObjectStore(storage)
        for name in store.list():
            store.verify(name)
        assert all(path.startswith("data/") for path in storage.list())

    fuzz("object packs", one)


def test_requests() -> None:
    root = str(catalog("x"))
    bodies: list[tuple[type[object], bytes]] = [
        (NewLeaseRequest, b'{"path":"a.org/b/c","api_version":"2","hostname":"h","wait":"3"}'),
        (
            CommitRequest,
            f'{{"old_root_hash":"{root}","new_root_hash":"{root}","tag_name":"t","tag_channel":0}}'.encode(),
        ),
        (PayloadHead, b'{"session_token":"T","payload_digest":"00","header_size":"12","api_version":"2"}'),
        (EnableRequest, b'{"enable":true,"wait":false}'),
        (GcRequest, b'{"repo":"a.org","num_revisions":3,"timestamp":"2026-01-01T00:00:00Z","dry_run":true}'),
    ]

    def one(rng: random.Random) -> None:
        shape, body = rng.choice(bodies)
        try:
            request: object = decode(mutate(rng, body), shape)
            if isinstance(request, NewLeaseRequest):
                number(request.api_version, "api_version")
                number(request.wait or 0, "wait")
                path = LeasePath.parse(request.path)
                assert not {"", ".", ".."} & set(path.components)
                assert "\0" not in path.path
            elif isinstance(request, CommitRequest):
                request.body()
            elif isinstance(request, PayloadHead):
                number(request.header_size, "header_size")
        except GatewayError:
            pass

    fuzz("requests", one)


def test_authorization_headers() -> None:
    def one(rng: random.Random) -> None:
        header = mutate(rng, f"{KEY.id} MDEyMzQ1Njc4OTo=".encode()).decode("utf-8", "surrogateescape")
        parsed = parse_header(header)
        assert parsed is None or len(parsed) == 2

    fuzz("headers", one)


def test_hashes() -> None:
    def one(rng: random.Random) -> None:
        text = mutate(rng, str(catalog("x")).encode()).decode("latin-1")
        try:
            parsed = ContentHash.parse(text)
        except ValueError:
            return
        assert str(parsed) == text

    fuzz("hashes", one)
