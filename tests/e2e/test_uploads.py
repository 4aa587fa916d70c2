"""Uploads as their users see them: with curl, as the documentation says, and in a mounted client.

``CVMFS_TEST_ARTIFACTS=1000`` lets more of them come and go.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from conformance.machines.machine import Machine
from cvmfs_gw.paths import SystemPaths
from tests.e2e.world import NOBODY, Repository, World, wait_for

FQRN: Final = "ci.example.org"
TOP: Final = f"/cvmfs/{FQRN}"
MEMORY: Final = "/dev/shm"
DOCUMENT: Final = Path(__file__).parents[2] / "docs/uploads.md"
ARTIFACTS: Final = int(os.environ.get("CVMFS_TEST_ARTIFACTS", "200"))
SHORT_S: Final = 10
"""Time to live of those that expire in the test, in seconds."""
LONG_S: Final = 86_400
"""The same of every tenth, which stays."""


PATIENCE_S: Final = 300
"""How long a machine with a lot to do may take for one commit, or for a client to follow, in seconds."""


def follows(client: Machine, condition: Callable[[], bool]) -> bool:
    """Whether *condition* holds after the client has looked for news.

    By itself, one that found the server gone looks again after three minutes only.
    """
    client.run("cvmfs_talk", "-i", FQRN, "remount", "sync")
    return condition()


def blocks(kind: str) -> str:
    """What the documentation tells to type."""
    found = re.findall(rf"^```sh {kind}\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return "\n".join(found)


def knows(world: World, token: str) -> bool:
    """Whether the server takes the token: it looks for new ones every few seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", world.port, timeout=PATIENCE_S)
    connection.request("GET", f"/api/v1/repos/{FQRN}/entries", headers={"Authorization": f"Bearer {token}"})
    status = connection.getresponse().status
    connection.close()
    return status == 200


def test_the_documentation(world: World) -> None:
    assert "cvmfs-gw mkfs" in blocks("server")
    repository = world.mkfs(FQRN, "--garbage-collection", "--no-auto-tags", "--compression", "none")
    token = world.program("token", "create", f"{FQRN}/builds").output.strip()
    world.serve()
    values = {
        "FQRN": FQRN,
        "TOKEN": token,
        "API": f"{world.gateway}/repos/{FQRN}",
        "META": f"http://127.0.0.1:{world.web_port}/cvmfs-meta",
    }
    settings = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    job = world.machine("job").shell(f"{settings}set -o pipefail; cd /tmp\n{blocks('job')}")
    operator = world.program("token", "create", FQRN).output.strip()
    wait_for("the server knows the new token", lambda: knows(world, operator))
    whole = world.machine("operator").shell(
        f"{settings}TOKEN={operator}\nset -o pipefail; cd /tmp\n{blocks('operator')}"
    )
    assert '"status":"error"' not in job.output + whole.output
    assert whole.output.count('"status":"ok"') == 4
    assert "\n1000000\n" in job.output
    reader = world.machine("reader").shell(f"{settings}set -o pipefail; cd /tmp\n{blocks('reader')}")
    assert reader.output.splitlines()[-3:] == [f"{FQRN} is mounted at /cvmfs/{FQRN}", "built again", "hello"]
    world.check(repository)


def put(world: World, token: str, numbers: range) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", world.port, timeout=PATIENCE_S)
    headers = {"Authorization": f"Bearer {token}"}
    for n in numbers:
        ttl = SHORT_S if n % 10 else LONG_S
        path = f"/api/v1/repos/{FQRN}/files/builds/{n % 25}/{n}?ttl_s={ttl}"
        connection.request("PUT", path, b"artifact %d\n" % n, headers)
        reply = connection.getresponse()
        assert reply.status == 201, reply.read()
        reply.read()
    connection.close()


def step(world: World) -> float:
    """By how many seconds the server finds the clock of its machine wrong."""
    connection = http.client.HTTPConnection("127.0.0.1", world.port, timeout=PATIENCE_S)
    connection.request("GET", "/metrics")
    found = re.search(rb"^cvmfs_gateway_clock_step_seconds (\S+)$", connection.getresponse().read(), re.MULTILINE)
    connection.close()
    assert found
    return float(found[1])


def test_a_client_sees_artifacts_come_and_go(world: World) -> None:
    repository = world.mkfs(FQRN, "--garbage-collection", "--no-auto-tags")
    token = world.program("token", "create", FQRN).output.strip()
    world.set_clock(0)
    world.serve()
    client = world.machine("mounted")
    client.shell(f"curl -fsS http://127.0.0.1:{world.web_port}/cvmfs-meta/{FQRN}.sh | sh")
    top = client.path(TOP)
    began = time.monotonic()
    threads = [threading.Thread(target=put, args=(world, token, range(n, ARTIFACTS, 8))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def seen() -> set[int]:
        while True:
            with contextlib.suppress(FileNotFoundError):  # a directory goes while it is looked at
                return {int(path.name) for path in top.glob("builds/*/*")}

    print(f"{ARTIFACTS} artifacts put in {time.monotonic() - began:.1f} s, {repository.revision} revisions")
    assert repository.revision < ARTIFACTS, "no two were committed together"
    # those that were put first may be gone by now; of the others each is what it was
    lasting = {n for n in range(ARTIFACTS) if n % 10 == 0}
    wait_for("the client sees them", lambda: follows(client, lambda: lasting < seen()), PATIENCE_S)
    assert all((top / f"builds/{n % 25}/{n}").read_text() == f"artifact {n}\n" for n in lasting)
    # longer than what lasts may live, once while the server runs and once while it does not
    world.set_clock(2 * LONG_S)
    assert step(world) == pytest.approx(2 * LONG_S, abs=60)
    put(world, token, range(ARTIFACTS, ARTIFACTS + 10))
    lasting.add(ARTIFACTS)
    world.kill()
    world.set_clock(4 * LONG_S)
    world.serve()
    wait_for("the client sees them go", lambda: follows(client, lambda: seen() == lasting), PATIENCE_S)
    print(f"{ARTIFACTS + 10 - len(lasting)} gone after {time.monotonic() - began:.1f} s")
    assert all((top / f"builds/{n % 25}/{n}").read_text() == f"artifact {n}\n" for n in lasting)
    world.set_clock(-LONG_S)
    assert step(world) == pytest.approx(-LONG_S, abs=60)
    put(world, token, range(ARTIFACTS + 10, ARTIFACTS + 20))
    lasting.add(ARTIFACTS + 10)
    wait_for("the client sees the next go, too", lambda: follows(client, lambda: seen() == lasting), PATIENCE_S)
    world.check(repository)


@pytest.mark.parametrize("killed", [False, True])
def test_a_server_comes_back_empty_under_the_same_keys(world: World, killed: bool) -> None:
    repository = world.mkfs(FQRN, "--garbage-collection", "--no-auto-tags")
    token = world.program("token", "create", FQRN).output.strip()
    world.serve("--init", FQRN)
    client = world.machine("mounted")
    client.shell(f"curl -fsS http://127.0.0.1:{world.web_port}/cvmfs-meta/{FQRN}.sh | sh")
    top = client.path(TOP)
    put(world, token, range(1))
    wait_for("the client sees it", lambda: follows(client, (top / "builds/0/0").exists), PATIENCE_S)
    first = repository.revision
    if killed:
        world.kill()
    else:
        world.stop()
    shutil.rmtree(repository.storage)
    world.serve("--init", FQRN)
    assert repository.revision > first
    comes_back(world, repository, client, token)


def test_a_pod_comes_back_with_nothing_but_its_keys(world: World) -> None:
    """Everything else is in memory and gone with the server, but who may upload."""
    repository = world.mkfs(FQRN)
    token = world.program("token", "create", FQRN).output.strip()
    paths, kept = SystemPaths(str(world.root)), world.folder / "kept"
    shutil.copytree(paths.keys, kept)
    shutil.copy(paths.upload_config, kept)
    with tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as memory:
        os.chmod(memory, 0o755)

        def start() -> int:
            world.root = Path(tempfile.mkdtemp(dir=memory))
            settings = Path(SystemPaths(str(world.root)).upload_config)
            settings.parent.mkdir(parents=True)
            shutil.copy(kept / settings.name, settings)
            for folder in (world.root, kept):
                for place in (folder, *folder.rglob("*")):
                    os.chown(place, NOBODY, NOBODY)
            before = int(time.time())
            world.serve("--init", FQRN, "--init-keys", str(kept), "--init-url", repository.web)
            assert before <= repository.revision <= time.time()
            return repository.revision

        start()
        client = world.machine("mounted")
        client.shell(f"curl -fsS http://127.0.0.1:{world.web_port}/cvmfs-meta/{FQRN}.sh | sh")
        put(world, token, range(1))
        wait_for("the client sees it", lambda: follows(client, (client.path(TOP) / "builds/0/0").exists), PATIENCE_S)
        former = repository.revision
        world.kill()
        wait_for("there were fewer revisions than seconds", lambda: time.time() > former + 1)
        assert start() > former
        comes_back(world, replace(repository, folder=world.root), client, token)


def comes_back(world: World, repository: Repository, client: Machine, token: str) -> None:
    """The client, which was mounted before, sees that the repository is empty, and then what is new in it."""
    top = client.path(TOP)
    wait_for("the client sees that it is empty", lambda: follows(client, lambda: not list(top.iterdir())), PATIENCE_S)
    put(world, token, range(1, 2))
    wait_for("the client sees what is new", lambda: follows(client, (top / "builds/1/1").exists), PATIENCE_S)
    world.check(repository)
