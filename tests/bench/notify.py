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
STUCK_MESSAGES: Final = 6000
"""More than the buffers of a connection and the reference's queue hold together."""
_CONNECT_EARLY: Final = 1000
"""With more subscribers than this, the reference gets its first message when all are connected: it sends it to all of
them again for each that connects, which takes longer than anybody waits."""


class Process:
    """A process with many subscribers. *silent*: the server does not answer them before there is a message."""

    def __init__(self, server: Server, count: int, *, silent: bool = False, stuck: bool = False) -> None:
        settings = {"port": server.port, "count": count, "fqrn": FQRN, "root": API_ROOT}
        settings |= {"silent": silent, "stuck": stuck}
        script = str(Path(__file__).parent / "listeners.py")
        command = [*server.enter, sys.executable, script, json.dumps(settings)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.connected = self._answer()

    def publish(self, message: bytes) -> dict[str, Any]:
        return self._ask({"publish": message.decode(), "expect": 1})

    def post(self, messages: list[bytes]) -> int:
        """How many are answered before one is not."""
        return int(self._ask({"post": [message.decode() for message in messages]})["answered"])

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
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
def subscribed(server: Server, count: int, *, silent: bool = False, stuck: bool = False) -> Iterator[Process]:
    process = Process(server, count, silent=silent and server.name != "ours", stuck=stuck)
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
    before = resident_kib(server.pid)
    early = server.name == "ours" or count <= _CONNECT_EARLY
    if early:
        with subscribed(server, 1, silent=True) as first:
            first.publish(next(feed))
        before = resident_kib(server.pid)  # all code is loaded
    with subscribed(server, count, silent=not early) as process:
        results = []
        for _ in range(publications):
            time.sleep(PAUSE_S)
            results.append(process.publish(next(feed)))
        memory = (resident_kib(server.pid) - before) / count
        last = sorted(result["last"] * 1000 for result in results)
        return {
            "p50": statistics.median(last),
            "p99": last[min(len(last) - 1, int(len(last) * 0.99))],
            "acknowledged": statistics.median(result["acknowledged"] for result in results) * 1000,
            "slowest": max(result["acknowledged"] for result in results) * 1000,
            "memory": memory,
            "surplus": float(sum(result["events"] - count for result in results)),
            "connecting": float(process.connected["events"] - count) if early else 0.0,
            "broken": float(results[-1]["broken"]),
        }


def measure_stuck(server: Server) -> float:
    """Of :data:`STUCK_MESSAGES`, how many are taken in while one subscriber never reads."""
    with subscribed(server, 1, silent=True, stuck=True) as process:
        return float(process.post(list(itertools.islice(messages(server), STUCK_MESSAGES))))


_ROWS: Final = (
    ("p50", "last delivery, median", "ms"),
    ("p99", "last delivery, p99", "ms"),
    ("acknowledged", "publisher's answer, median", "ms"),
    ("slowest", "publisher's answer, slowest", "ms"),
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
    with ours() as server:
        stuck = measure_stuck(server)
    theirs_stuck = None
    if with_reference:
        with reference() as server:
            theirs_stuck = measure_stuck(server)
    what = f"of {STUCK_MESSAGES} messages taken in while one never reads"
    result.append(Row(what, stuck, theirs_stuck, "", str(STUCK_MESSAGES)))
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
