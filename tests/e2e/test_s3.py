"""Repositories in a bucket: made by ours or by ``cvmfs_server``, published to through both gateways in turn."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.machines import content
from conformance.machines.machine import missing
from conformance.machines.snapshot import grafted
from tests.e2e.s3 import BucketWorld, bucket_world
from tests.e2e.test_swap import PORT, REFERENCE, run_ours, run_reference
from tests.e2e.world import NOBODY


@pytest.fixture
def world() -> Iterator[BucketWorld]:
    absent = [program for program in REFERENCE if shutil.which(program) is None]
    if reason := missing() or (f"not on PATH: {', '.join(absent)}" if absent else ""):
        pytest.skip(reason)
    with bucket_world() as made:
        made.port = PORT
        yield made


def plant(top: Path) -> None:
    for folder in ("left", "right"):
        content.put(top / folder / "file", folder)
        (top / folder / ".cvmfscatalog").touch()
    (top / "large").write_bytes(bytes(range(256)) * 200_000)  # several chunks, and payloads in several parts


def test_gateways_replace_each_other(world: BucketWorld) -> None:
    repository = world.mkfs(world.new_name())
    run_ours(world)
    alpha = world.publisher("alpha", repository)
    tree = alpha.publish(plant)
    world.verify(repository, tree)
    world.stop()
    run_reference(world)
    tree = grafted(tree, "left", alpha.publish(lambda top: content.put(top / "left/new", "reference"), "left"))
    world.verify(repository, tree)
    world.stop()
    run_ours(world)
    tree = grafted(tree, "right", alpha.publish(lambda top: content.put(top / "right/new", "ours"), "right"))
    world.verify(repository, tree)


def test_a_repository_of_cvmfs_server(world: BucketWorld) -> None:
    """Made and published to by ``cvmfs_server``, then served by our gateway, then ``cvmfs_server``'s again."""
    fqrn = world.new_name()
    repository = world.place(fqrn)
    machine = world.machine("stratum0")
    machine.write("/etc/cvmfs/s3.conf", world.conf.read_text(), 0o600)
    machine.write("/srv/keys/service", "#!/bin/sh\n", 0o755)
    machine.shell("mount --bind /srv/keys/service /usr/sbin/service")
    machine.run("cvmfs_server", "mkfs", "-z", "-s", "/etc/cvmfs/s3.conf", "-w", world.settings.url, "-o", "root", fqrn)
    machine.run("cvmfs_server", "transaction", fqrn)
    machine.shell(f"echo first > /cvmfs/{fqrn}/first")
    machine.run("cvmfs_server", "publish", fqrn)

    # what an operator has when both are on one machine: the same configuration, keys and spool folder
    for folder in (f"etc/cvmfs/repositories.d/{fqrn}", "etc/cvmfs/keys", f"var/spool/cvmfs/{fqrn}/tmp"):
        (world.root / folder).mkdir(parents=True)
    shutil.copy(machine.path("/etc/cvmfs/s3.conf"), world.root / "etc/cvmfs")
    conf = machine.path(f"/etc/cvmfs/repositories.d/{fqrn}/server.conf").read_text()
    for path in ("/etc/cvmfs/s3.conf", "/var/spool/cvmfs"):
        conf = conf.replace(path, f"{world.root}{path}")
    (world.root / f"etc/cvmfs/repositories.d/{fqrn}/server.conf").write_text(conf)
    checksum = f"var/spool/cvmfs/{fqrn}/reflog.chksum"
    shutil.copy(machine.path(f"/{checksum}"), world.root / checksum)
    for kind in ("pub", "crt", "key"):
        shutil.copy(machine.path(f"/etc/cvmfs/keys/{fqrn}.{kind}"), world.root / "etc/cvmfs/keys")
    (world.root / f"etc/cvmfs/keys/{fqrn}.gw").write_text("plain_text key secret\n")
    (world.root / "etc/cvmfs/gateway").mkdir()
    (world.root / "etc/cvmfs/gateway/repo.json").write_text(f'{{"version": 2, "repos": ["{fqrn}"]}}')
    for made in world.root.rglob("*"):
        shutil.chown(made, NOBODY, NOBODY)

    run_ours(world)
    alpha = world.publisher("alpha", repository)
    tree = alpha.publish(plant)
    assert (alpha.top / "first").read_text() == "first\n"
    world.verify(repository, tree)
    world.program("tag", "add", fqrn, "kept")
    alpha.publish(lambda top: shutil.rmtree(top / "left"))
    world.program("rollback", fqrn, "-t", "kept")
    world.program("gc", fqrn, "-r", "0")
    world.verify(repository, tree)
    world.program("doctor", fqrn)
    world.program("export", fqrn, str(world.root / "copy"))
    world.stop()

    shutil.copy(world.root / checksum, machine.path(f"/{checksum}"))
    machine.run("cvmfs_server", "transaction", fqrn)
    assert (machine.path(f"/cvmfs/{fqrn}/left/file")).exists()
    machine.shell(f"echo last > /cvmfs/{fqrn}/last")
    machine.run("cvmfs_server", "publish", fqrn)
    machine.run("cvmfs_server", "gc", "-f", fqrn)
    machine.run("cvmfs_server", "check", fqrn)
    shutil.copy(machine.path(f"/{checksum}"), world.root / checksum)
    world.check(repository)
