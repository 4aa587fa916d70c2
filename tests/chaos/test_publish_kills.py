"""Publishers and the server killed at random: a tree is there as a whole or not at all, and what has arrived stays.

``CVMFS_GW_PUBLISH_KILLS=100`` for a long run, ``CVMFS_GW_SEED`` for other moments.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvmfs_gw.client.reader import RepositoryReader
from cvmfs_gw.paths import SystemPaths
from tests.cli.support import DEADLINE, Process, environment, free_ports, program, run, running

FQRN = "killed.example.org"
KILLS = int(os.environ.get("CVMFS_GW_PUBLISH_KILLS", "4"))
SEED = int(os.environ.get("CVMFS_GW_SEED", "7"))
FILES = 400
LARGE = 3 << 20


class World:
    """A server that may be killed and comes back on the same ports."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port, self.web_port = free_ports(2)
        self.web = f"http://127.0.0.1:{self.web_port}/cvmfs/{FQRN}"
        assert run("cvmfs-gw", "mkfs", FQRN, root=root).returncode == 0
        self.public_keys = Path(SystemPaths(str(root)).key_file(FQRN, "pub")).read_bytes()

    @contextmanager
    def serve(self) -> Iterator[Process]:
        where = ("--host", "127.0.0.1", "--port", str(self.port), "--web-port", str(self.web_port))
        with running("cvmfs-gw", "serve", "--in-process", "--no-fsync", *where, root=self.root) as server:
            server.wait_for("repositories http")
            yield server

    def publisher(self, name: str, source: Path) -> subprocess.Popen[str]:
        where = ("--gateway", f"http://127.0.0.1:{self.port}/api/v1", "--stratum0", self.web)
        command = [program("cvmfs-gw"), "publish", f"{FQRN}/{name}", str(source), "--json", *where]
        return subprocess.Popen(
            command, env=environment(self.root), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def tree(self, name: str) -> dict[str, bytes] | None:
        """What is below *name*, or None if it is not there."""
        with RepositoryReader(FQRN, self.web, self.public_keys) as reader:
            if reader.find(f"/{name}") is None:
                return None
            files = {path: entry for path, entry in reader.walk(f"/{name}") if not entry.is_directory}
            return {path.removeprefix(f"/{name}/"): reader.read(path) for path in files}


def _source(folder: Path, number: int) -> dict[str, bytes]:
    """A tree of its own, of small files and a large one; returns what is in it."""
    found = {f"d{at // 50}/f{at}": b"%d of %d" % (at, number) for at in range(FILES)}
    found["large"] = random.Random(number).randbytes(LARGE)
    for path, data in found.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "root")


def test_publisher_is_killed(world: World, tmp_path: Path) -> None:
    """All of a tree or nothing, and the next publisher of the same sends the rest."""
    source = random.Random(SEED)
    kept = 0
    with world.serve():
        _source(tmp_path / "first", KILLS)
        began = time.monotonic()
        world.publisher("first", tmp_path / "first").communicate(timeout=DEADLINE)
        whole_s = time.monotonic() - began
        for number in range(KILLS):
            content = _source(tmp_path / f"source{number}", number)
            publisher = world.publisher(f"tree{number}", tmp_path / f"source{number}")
            # the first one early, so that one at least does not come to its end
            timer = threading.Timer(whole_s * (source.uniform(0.2, 1.2) if number else 0.1), publisher.kill)
            timer.start()
            publisher.communicate(timeout=DEADLINE)
            timer.cancel()
            seen = world.tree(f"tree{number}")
            assert seen in (None, content), f"tree{number} is there in part"
            if seen is None:
                again = world.publisher(f"again{number}", tmp_path / f"source{number}")
                said, _ = again.communicate(timeout=DEADLINE)
                assert again.returncode == 0, said
                assert world.tree(f"again{number}") == content
            else:
                kept += 1
        assert run("cvmfs-gw", "check", "-i", FQRN, root=world.root).returncode == 0
    assert kept < KILLS, "nobody was killed in time"


def test_server_is_killed(world: World, tmp_path: Path) -> None:
    """The publisher waits until the server is back, sends the rest, and has published once."""
    source = random.Random(SEED)
    interrupted = 0
    for number in range(KILLS):
        content = _source(tmp_path / f"source{number}", number)
        with world.serve() as server:
            before = _revision(world)
            publisher = world.publisher(f"tree{number}", tmp_path / f"source{number}")
            assert publisher.stdout is not None
            # it has a lease when it begins to send: before, it has nothing that it could lose
            while line := publisher.stdout.readline():
                if '"sending"' in line:
                    break
            threading.Event().wait(source.uniform(0.0, 0.3))
            interrupted += publisher.poll() is None
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
        with world.serve():
            said = publisher.communicate(timeout=DEADLINE)[0]
            assert publisher.returncode == 0, said
            assert world.tree(f"tree{number}") == content
            assert _revision(world) == before + 1
            assert run("cvmfs-gw", "check", "-i", FQRN, root=world.root).returncode == 0
    assert interrupted, "the server was never killed in time"


def _revision(world: World) -> int:
    with RepositoryReader(FQRN, world.web, world.public_keys) as reader:
        return reader.head.revision
