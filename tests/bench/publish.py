"""Publishing a tree: our client through our gateway, beside ``cvmfs_server ingest`` through the reference's.

Both sides have their storage in memory and our web server, and get the same archives, alternating. All of it runs in a
network namespace of its own, as the reference's gateway listens on every interface.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from conformance.machines.machine import Machine, missing
from conformance.machines.publisher import Publisher
from tests.bench.servers import FQRN, MEMORY, Server, ours, reference, reference_missing, wait_for_port
from tests.bench.table import Row
from tests.e2e.world import Repository

FILES: Final = 50_000
LARGE: Final = 512 << 20
_PER_FOLDER: Final = 100
_PUBLISH_S: Final = 900.0


def rows(rounds: int) -> list[Row]:
    """Many tiny files, one large one, and a tree of which nothing has changed."""
    if os.environ.get("CVMFS_BENCH_ALONE"):
        return _rows(rounds)
    space = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$0" -m tests.bench.publish "$1"']
    command = (
        [*space, sys.executable, str(rounds)] if not reference_missing() else [sys.executable, "-m", __name__, "0"]
    )
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, "CVMFS_BENCH_ALONE": "1"})
    return [Row(*row) for row in json.loads(done.stdout)]


def _rows(rounds: int) -> list[Row]:
    times: dict[tuple[str, str], list[float]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cvmfs-bench-", dir=MEMORY)))
        mine = stack.enter_context(ours("--no-fsync", web=True))
        theirs = None if reference_missing() or missing() else stack.enter_context(_deployed())

        def measure(what: str, archive: Path, name: str, *options: str) -> None:
            times.setdefault((what, "ours"), []).append(_publish(mine, str(archive), name, *options))
            if theirs is not None and what != "fast":
                times.setdefault((what, "reference"), []).append(_ingest(theirs, archive, name))

        for number in range(max(1, rounds)):
            archive = folder / "archive.tar"
            _tiny(archive, number)
            measure("tiny", archive, f"tiny{number}")
            tree = folder / "tree"
            shutil.rmtree(tree, ignore_errors=True)
            with tarfile.open(archive) as file:
                file.extractall(tree, filter="data")
            for what in ("first", "again"):
                times.setdefault((what, "ours"), []).append(_publish(mine, str(tree), f"tree{number}"))
            times.setdefault(("tar again", "ours"), []).append(_publish(mine, str(archive), f"tiny{number}"))
            _large(archive, number)
            measure("large", archive, f"large{number}")
            _large(archive, number + 1000)
            measure("fast", archive, f"fast{number}", "--fast")

    def median(what: str, side: str = "ours") -> float:
        return statistics.median(times[what, side])

    def other(what: str) -> float | None:
        return median(what, "reference") if (what, "reference") in times else None

    return [
        Row(f"{FILES:,} tiny files in a tar", median("tiny"), other("tiny"), "s", "1x", smaller_is_better=True),
        Row("the same tar again, nothing changed", median("tar again"), None, "s", "", smaller_is_better=True),
        Row(
            "512 MiB, half random, half repetitive", median("large"), other("large"), "s", "1x", smaller_is_better=True
        ),
        Row("the large file with the fast encoder", median("fast"), other("large"), "s", "3x", smaller_is_better=True),
        Row(f"{FILES:,} tiny files in a directory", median("first"), None, "s", smaller_is_better=True),
        Row("the same again, nothing changed", median("again"), None, "s", f"{median('first') / 10:.2f} s", True),
    ]


@contextlib.contextmanager
def _deployed() -> Iterator[Publisher]:
    """A machine that publishes through the reference's gateway."""
    with reference(own_network=False) as server, served(server) as web, Machine("publisher") as machine:
        gateway = f"http://127.0.0.1:{server.port}/api/v1"
        yield Publisher(machine, Repository(FQRN, web, gateway, server.root).target)


@contextlib.contextmanager
def served(server: Server) -> Iterator[str]:
    """Our web server on the storage of *server*; gives the repository's URL."""
    port = server.port + 1
    script = "import sys; from aiohttp import web; from cvmfs_objstore.web import web_app; "
    script += "web.run_app(web_app(sys.argv[1]), host='127.0.0.1', port=int(sys.argv[2]), print=None, access_log=None)"
    command = [sys.executable, "-c", script, str(server.root / "srv/cvmfs"), str(port)]
    with subprocess.Popen(command) as process:
        try:
            web = f"http://127.0.0.1:{port}/cvmfs/{FQRN}"
            # the reference's receiver fetches the manifest from where it is served
            with (server.root / f"etc/cvmfs/repositories.d/{FQRN}/server.conf").open("a") as conf:
                conf.write(f"CVMFS_STRATUM0={web}\n")
            wait_for_port(process, port, ())
            yield web
        finally:
            process.terminate()


def _publish(server: Server, source: str, name: str, *options: str) -> float:
    where = ["--gateway", f"http://127.0.0.1:{server.port}/api/v1"]
    where += ["--stratum0", f"http://127.0.0.1:{server.web}/cvmfs/{FQRN}"]
    command = [sys.executable, "-m", "cvmfs_gw", "--root", str(server.root), "publish", f"{FQRN}/{name}", source]
    began = time.perf_counter()
    subprocess.run([*command, *where, *options], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _ingest(publisher: Publisher, archive: Path, name: str) -> float:
    place = publisher.machine.path("/tmp") / "archive.tar"
    shutil.copy(archive, place)
    began = time.perf_counter()
    publisher.machine.run(
        "cvmfs_server", "ingest", "-t", "/tmp/archive.tar", "-b", name, publisher.fqrn, timeout=_PUBLISH_S
    )
    taken = time.perf_counter() - began
    place.unlink()
    return taken


def _tiny(path: Path, seed: int) -> None:
    with tarfile.open(path, "w") as archive:
        for folder in range(FILES // _PER_FOLDER):
            entry = tarfile.TarInfo(f"d{folder:03}")
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, 1_700_000_000
            archive.addfile(entry)
            for number in range(_PER_FOLDER):
                data = f"tiny {seed} {folder} {number}\n".encode() * 3
                entry = tarfile.TarInfo(f"d{folder:03}/f{number:03}")
                entry.size, entry.mtime = len(data), 1_700_000_000
                archive.addfile(entry, io.BytesIO(data))


def _large(path: Path, seed: int) -> None:
    source = random.Random(seed)
    block = source.randbytes(1 << 16)
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("large")
        entry.size = LARGE
        data = b"".join(source.randbytes(1 << 20) for _ in range(LARGE >> 21)) + block * (LARGE // 2 // len(block))
        archive.addfile(entry, io.BytesIO(data))


if __name__ == "__main__":
    found = _rows(int(sys.argv[1]))
    fields = ("what", "ours", "reference", "unit", "target", "smaller_is_better")
    print(json.dumps([[getattr(row, field) for field in fields] for row in found]))
