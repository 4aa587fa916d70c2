"""Caring for one repository with our commands and with ``cvmfs_server`` in turn."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import closing
from pathlib import Path

from conformance.machines import content
from conformance.machines.machine import Machine
from cvmfs_gw.engine.publish import Publication, TagChanges
from cvmfs_gw.engine.repository import Repository as Opened
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.formats.reflog import Reflog
from tests.e2e.world import NOBODY, Repository, World

FQRN = "care.example.org"


def give_reflog(world: World, admin: Machine, repository: Repository) -> None:
    """Tell the importing machine, which has a spool folder of its own, that we have changed the reflog."""
    name = f"var/spool/cvmfs/{repository.fqrn}/reflog.chksum"
    admin.path(f"/{name}").write_bytes((repository.folder / name).read_bytes())
    shutil.chown(admin.path(f"/{name}"), NOBODY)


def test_two_ways(world: World) -> None:
    repository = world.mkfs(FQRN, "-z")
    world.serve()
    publisher = world.publisher("alpha", repository)

    def change(number: int) -> content.Change:
        def plant(top: Path) -> None:
            content.put(top / "a" / "file", f"number {number}", moment=number)
            content.put(top / "a" / f"only-{number}", f"only {number}")
            content.put(top / "n" / ".cvmfscatalog", b"")
            content.put(top / "n" / "file", f"nested {number}", moment=number)

        return plant

    trees = [publisher.publish(change(number), "", "-a", f"tag-{number}") for number in range(4)]

    def ours(*words: str) -> str:
        return world.program(*words).output

    def check() -> None:
        assert "no problems found" in ours("check", "-i", "-a", FQRN)
        world.check(repository)

    check()
    admin = world.importer("admin", repository)

    def theirs(*words: str) -> str:
        output = admin.run("cvmfs_server", *words).output
        world.adopt_reflog(admin, repository)
        return output

    # tags: each sees what the other has done
    ours("tag", "add", FQRN, "mine", "tag-1", "-m", "of ours")
    give_reflog(world, admin, repository)
    listed = {line.split()[0]: line for line in theirs("tag", "-l", "-x", FQRN).splitlines()}
    assert "of ours" in listed["mine"]
    theirs("tag", "-a", "theirs", "-m", "of theirs", FQRN)
    assert "of theirs" in ours("tag", "list", FQRN)
    check()
    # roll back with ours, check with theirs
    ours("rollback", FQRN, "-t", "tag-2")
    give_reflog(world, admin, repository)
    assert "no problems found" in theirs("check", "-i", FQRN)
    world.verify(repository, trees[2])
    # and the other way round
    theirs("rollback", "-f", "-t", "tag-1", FQRN)
    check()
    world.verify(repository, trees[1])
    # the collectors agree on what is garbage, and clients see the same as before
    ours("tag", "remove", FQRN, "mine", "tag-0")
    give_reflog(world, admin, repository)
    assert "no problems found" in theirs("check", "-i", FQRN)
    age(repository)
    give_reflog(world, admin, repository)
    before = world.objects(repository, "")
    dry = set(ours("gc", "-r", "0", "-d", "-l", FQRN).splitlines()[:-1])
    wanted = {
        line.split()[1] for line in theirs("gc", "-f", "-d", "-l", "-r", "0", FQRN).splitlines() if "Sweep:" in line
    }
    assert wanted <= dry, "the reference finds garbage that we do not"
    ours("gc", "-r", "0", FQRN)
    give_reflog(world, admin, repository)
    assert world.objects(repository, "") == before - len(dry)
    check()
    assert "no problems found" in theirs("check", "-i", FQRN)
    world.verify(repository, trees[1])
    # go on
    tree = publisher.publish(change(7), "", "-a", "tag-7")
    world.verify(repository, tree)
    give_reflog(world, admin, repository)
    theirs("gc", "-f", "-r", "0", FQRN)
    check()
    ours("resign", FQRN)
    world.verify(repository, tree)
    world.verify(repository, publisher.publish(change(8)))


def age(repository: Repository) -> None:
    """Let all objects and revisions be a day old: what is young stays, whatever the policy says."""
    moment = time.time() - 86_400
    for path in repository.storage.glob("data/??/*"):
        os.utime(path, (moment, moment))
    ours = Opened(repository.fqrn, SystemPaths(str(repository.folder)), {})
    head = ours.head()

    def change(reflog: Reflog) -> None:
        reflog.connection.execute("UPDATE refs SET timestamp = timestamp - 86400")

    with closing(Publication(ours, head, TagChanges(), time.time())) as publication:
        publication.amend(edit_reflog=change)
    for folder in (repository.storage, repository.folder / "var/spool/cvmfs" / repository.fqrn):
        for path in folder.iterdir():
            os.chown(path, NOBODY, NOBODY)
