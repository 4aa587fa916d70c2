"""What is measured: leases, payloads, commits, fan-out of notifications, and serving objects."""

from __future__ import annotations

import contextlib
import time
from typing import Final

from conformance.bench.measure import Job
from conformance.notices import hear, message, server, tell
from conformance.objects import object_path, raw_object
from conformance.pack import Pack
from conformance.probe import Probe, accepted

_PAIRS: Final = 100
_SUBSCRIBERS: Final = 100
_READS: Final = 200


def _leases(connections: int) -> Job:
    def run(probe: Probe) -> float:
        paths = [f"{probe.fqrn}{probe.path()}" for _ in range(connections)]

        def pairs(path: str) -> None:
            for _ in range(_PAIRS // connections):
                reply = accepted(probe.gateway.acquire(path), "lease")
                accepted(probe.gateway.drop(reply["session_token"]), "drop")

        started = time.monotonic()
        probe.together(*(lambda p=path: pairs(p) for path in paths))
        return _PAIRS / (time.monotonic() - started)

    return Job(f"take and drop a lease, {connections} at once", "pairs/s", run)


def _payloads(count: int, size: int, connections: int, words: str) -> Job:
    def run(probe: Probe) -> float:
        seeds = [probe.fresh(16) for _ in range(connections)]
        filler = probe.fresh(size)
        packs = [
            Pack.of([raw_object(seed + number.to_bytes(4, "big") + filler[20:]) for number in range(count)])
            for seed in seeds
        ]
        tokens = [probe.acquire() for _ in range(connections)]
        started = time.monotonic()
        jobs = [
            lambda t=token, p=pack: accepted(probe.gateway.payload(t, p), "payload")
            for token, pack in zip(tokens, packs, strict=True)
        ]
        probe.together(*jobs)
        seconds = time.monotonic() - started
        for token in tokens:
            probe.gateway.drop(token)
        return count * size * connections / seconds / (1 << 20) if size > 10_000 else count * connections / seconds

    return Job(words, "MiB/s" if size > 10_000 else "objects/s", run)


def _commit(files: int) -> Job:
    def run(probe: Probe) -> float:
        top = probe.path()
        built = probe.build(lambda tree: tree.fill(top, files))
        token = probe.acquire(top)
        probe.send(token, built)
        seconds = probe.commit(token, built).reply.seconds
        probe.publish(top, lambda tree: tree.clear(top))
        return seconds * 1000

    return Job(f"a commit of {files:,} new file{'s' * (files > 1)}", "ms", run, small=True)


def fan_out(probe: Probe) -> float:
    """From a commit's reply to the arrival of its notification at the last subscriber, in milliseconds."""
    top = probe.path()
    built = probe.build(lambda tree: tree.make_directories(top))
    token = probe.acquire(top)
    probe.send(token, built)
    with contextlib.ExitStack() as stack:
        where = server(probe)
        listeners = [stack.enter_context(where.subscribe(probe.fqrn)) for _ in range(_SUBSCRIBERS)]
        listeners[-1].drain(0.3)
        for subscription in listeners:
            subscription.drain(0.0)
        probe.commit(token, built)
        started = time.monotonic()
        tell(probe, message(probe))  # where commits tell subscribers by themselves, this is news to nobody
        manifest = probe.repository.read(".cvmfspublished")
        for subscription in listeners:
            hear(subscription, manifest)
        return (time.monotonic() - started) * 1000


def serving(probe: Probe) -> float:
    """Objects read in a second."""
    path = object_path(probe.repository.manifest().root, "C")
    started = time.monotonic()
    for _ in range(_READS):
        probe.repository.read(path)
    return _READS / (time.monotonic() - started)


def manifests(probe: Probe) -> float:
    """Manifests read in a second."""
    started = time.monotonic()
    for _ in range(_READS):
        probe.repository.read(".cvmfspublished")
    return _READS / (time.monotonic() - started)


JOBS: Final = (
    _leases(1),
    _leases(8),
    _payloads(1_000, 2_000, 1, "payloads of small objects (2 kB)"),
    _payloads(100, 200_000, 1, "payloads of objects of 200 kB"),
    _payloads(50, 200_000, 4, "the same, 4 at once"),
    _payloads(2, 20_000_000, 1, "payloads of objects of 20 MB"),
    _commit(1),
    _commit(10_000),
    Job(f"a notification to {_SUBSCRIBERS} subscribers", "ms", fan_out, small=True),
    Job("reading the root catalog", "requests/s", serving),
    Job("reading the manifest", "requests/s", manifests),
)
