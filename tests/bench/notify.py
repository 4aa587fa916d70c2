"""Notifications: from the publisher's request to the last delivery, with so many deployed subscribers.

``python -m tests.bench.notify [--subscribers 100,1000,4000,10000]``
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cvmfs_gw.gateway.protocol import API_ROOT
from cvmfs_notify.messages import Activity
from cvmfs_notify.stream import GAP_S
from cvmfs_objstore.formats.keychain import RepositoryKey
from cvmfs_objstore.formats.manifest import SignedManifest
from tests.bench.servers import FQRN, Server, ours, reference, reference_missing
from tests.bench.table import Row, render

SUBSCRIBERS: Final = (100, 1000, 4000)
PAUSE_S: Final = GAP_S + 0.1
"""Between two publications: ours waits so long between two events for the same deployed client, on purpose."""
ROUNDS_EACH: Final = 4
"""Publications for each of the bench's rounds."""
_CONNECT_EARLY: Final = 1000
"""With more subscribers than this, the reference gets its first message when all are connected: it sends it to all of
them again for each that connects, which takes longer than anybody waits."""


class Process:
    """A process with many subscribers."""

    def __init__(self, server: Server, count: int) -> None:
        settings = {"port": server.port, "count": count, "fqrn": FQRN, "root": API_ROOT}
        script = str(Path(__file__).parent / "listeners.py")
        command = [*server.enter, sys.executable, script, json.dumps(settings)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.connected = self._answer()

    def publish(self, message: bytes) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"publish": message.decode(), "expect": 1}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the subscribers' process has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def messages(server: Server) -> Iterator[bytes]:
    """Ever newer revisions, properly signed."""
    manifest = SignedManifest.parse((server.root / f"srv/cvmfs/{FQRN}/.cvmfspublished").read_bytes()).manifest
    key = RepositoryKey.load(str(server.root / f"etc/cvmfs/keys/{FQRN}.key"))
    for revision in itertools.count(manifest.revision + 1):
        yield Activity(FQRN, dataclasses.replace(manifest, revision=revision).signed(key), "now").serialize()


@contextmanager
def subscribed(server: Server, count: int) -> Iterator[Process]:
    process = Process(server, count)
    try:
        yield process
    finally:
        process.close()


def resident_kib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return float(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])


def measure(server: Server, count: int, publications: int) -> dict[str, float]:
    """All numbers for one server with *count* subscribers; times in milliseconds."""
    feed = messages(server)
    with subscribed(server, 1) as first:
        first.publish(next(feed))  # everything is loaded
        before = resident_kib(server.pid)
        if server.name != "ours" and count > _CONNECT_EARLY:
            # of a repository without a message, nothing is sent while they connect
            return _measure(server, count, publications, feed, before, fresh=True)
    return _measure(server, count, publications, feed, before)


def _measure(
    server: Server, count: int, publications: int, feed: Iterator[bytes], before: float, *, fresh: bool = False
) -> dict[str, float]:
    with subscribed(server, count) as process:
        memory = (resident_kib(server.pid) - before) / count
        results = []
        for _ in range(publications):
            time.sleep(PAUSE_S)
            results.append(process.publish(next(feed)))
        last = sorted(result["last"] * 1000 for result in results)
        return {
            "p50": statistics.median(last),
            "p99": last[min(len(last) - 1, int(len(last) * 0.99))],
            "acknowledged": max(result["acknowledged"] for result in results) * 1000,
            "memory": max(memory, (resident_kib(server.pid) - before) / count),
            "surplus": float(sum(result["events"] - count for result in results)),
            "connecting": float(process.connected["events"] - count),
            "broken": float(results[-1]["broken"]),
        }


_ROWS: Final = (
    ("p50", "last delivery, median", "ms"),
    ("p99", "last delivery, p99", "ms"),
    ("acknowledged", "publisher's answer, slowest", "ms"),
    ("memory", "memory of each", "KiB"),
    ("surplus", "events more or less than one each", ""),
    ("connecting", "duplicates while they connect", ""),
)
_TARGETS: Final = {
    ("p99", 4000): "300",
    ("p99", 10000): "1000",
    ("acknowledged", 4000): "20",
    ("acknowledged", 10000): "20",
    ("memory", 4000): "40",
    ("surplus", 4000): "0",
    ("connecting", 4000): "0",
}


def rows(rounds: int, sizes: tuple[int, ...] = SUBSCRIBERS) -> list[Row]:
    """Each number of subscribers on servers of their own."""
    result = []
    with_reference = not reference_missing()
    for count in sizes:
        with ours() as server:
            found = measure(server, count, rounds * ROUNDS_EACH)
        theirs: dict[str, float] = {}
        if with_reference:
            with reference() as server:
                theirs = measure(server, count, rounds * ROUNDS_EACH)
        for key, what, unit in _ROWS:
            target = _TARGETS.get((key, count), "")
            row = Row(f"{count} subscribers: {what}", found[key], theirs.get(key), unit, target, True)
            result.append(row)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.notify", description=__doc__)
    parser.add_argument("--subscribers", default=",".join(map(str, SUBSCRIBERS)), help="numbers, with commas")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if missing := reference_missing():
        print(f"without the reference: {missing}")
    print(render(rows(arguments.rounds, tuple(int(number) for number in arguments.subscribers.split(",")))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
