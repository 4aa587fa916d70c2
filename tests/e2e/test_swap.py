"""The reference's gateway is replaced by ours while a transaction is open, and ours by the reference's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from conformance.machines import content
from conformance.machines.machine import missing
from conformance.machines.publisher import BUSY
from conformance.machines.snapshot import grafted, snapshot
from tests.e2e.network import private_network
from tests.e2e.world import Repository, World, unprivileged, wait_for

FQRN = "swap.example.org"
PORT = 4929
REFERENCE = ("cvmfs_gateway", "cvmfs_receiver", "ip")


@pytest.fixture
def swapping() -> Iterator[World]:
    """A world in a network of its own, where only the web server runs."""
    absent = [program for program in REFERENCE if shutil.which(program) is None]
    if reason := missing() or (f"not on PATH: {', '.join(absent)}" if absent else ""):
        pytest.skip(reason)
    with private_network(), World() as world, ExitStack() as stack:
        world.port = PORT
        where = ["--bind", "127.0.0.1", "--directory", str(world.root / "srv")]
        web = subprocess.Popen(
            unprivileged([sys.executable, "-m", "http.server", str(world.web_port), *where]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        stack.callback(web.wait)
        stack.callback(web.kill)
        yield world


def run_reference(world: World) -> None:
    """Start the reference's gateway on the files of *world*, by the same user as ours."""
    root = world.root
    work = ["--work_dir", str(root / "var/lib/cvmfs-gateway"), "--log_level", "error", "--port", str(PORT)]
    binds = "".join(f"mount --bind '{root}{path}' {path}; " for path in ("/etc/cvmfs", "/var/spool/cvmfs"))
    # the receiver ends at once where it cannot make a folder for its stack traces
    script = f'{binds} mount -t tmpfs -o mode=777 tmpfs /var/log; exec "$@"'
    space = ["unshare", "--mount", "--propagation", "private", "bash", "-euc", script, "reference"]
    program = shutil.which("cvmfs_gateway")
    assert program is not None
    world.run_gateway([*space, *unprivileged([program, *work])])


def run_ours(world: World) -> None:
    world.serve("--no-web")


def leases(repository: Repository) -> dict[str, Any]:
    """What the gateway says is leased."""
    with urllib.request.urlopen(f"{repository.gateway}/leases", timeout=30) as reply:
        found = json.load(reply)["data"]
    assert isinstance(found, dict)
    return found


def plant(top: Path) -> None:
    for folder in ("left", "right"):
        content.put(top / folder / "file", folder)


def test_the_reference_is_replaced_and_comes_back(swapping: World) -> None:
    world = swapping
    repository = world.mkfs(FQRN)
    run_reference(world)
    alpha = world.publisher("alpha", repository)
    beta = world.publisher("beta", repository)
    tree = alpha.publish(plant)
    world.verify(repository, tree)

    # Ours takes over with a transaction open, which holds its path and then commits.
    alpha.begin("left")
    content.put(alpha.top / "left/late", "begun with the reference")
    left = snapshot(alpha.top)
    world.stop()
    run_ours(world)
    assert list(leases(repository)) == [f"{FQRN}/left"]
    assert beta.begin("left/deeper", expect=None).code == BUSY
    alpha.commit()
    assert leases(repository) == {}
    tree = grafted(tree, "left", left)
    world.verify(repository, tree)

    # The reference takes over with a transaction open: it shows the lease and lets go of it, but cannot commit it.
    beta.begin("right")
    content.put(beta.top / "right/never", "begun with ours")
    world.stop()
    run_reference(world)
    shown = leases(repository)
    assert list(shown) == [f"{FQRN}/right"]
    assert shown[f"{FQRN}/right"]["key_id"]
    assert alpha.begin("right", expect=None).code == BUSY
    beta.abort()
    wait_for("the lease is gone", lambda: leases(repository) == {})
    right = alpha.publish(lambda top: content.put(top / "right/new", "by the reference"), "right")
    tree = grafted(tree, "right", right)
    world.verify(repository, tree)

    # And ours goes on where the reference was.
    world.stop()
    run_ours(world)
    tree = grafted(tree, "left", beta.publish(lambda top: content.put(top / "left/last", "by ours"), "left"))
    world.verify(repository, tree)
    assert repository.revision == 5
