"""Caring for one repository with our commands and with ``cvmfs_server`` in turn."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from conformance.machines import content
from conformance.machines.machine import Machine
from cvmfs_gw.engine.publish import Publication, TagChanges
from cvmfs_gw.engine.repository import Repository as Opened
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.formats.keychain import Certificate, RepositoryKey
from cvmfs_objstore.formats.reflog import Reflog
from tests.e2e.stratum0 import Stratum0
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


def test_inside_statistics_and_keys(world: World) -> None:
    """What each says of the other's repository; keys that are rolled over; undo; a copy that is taken over."""
    repository = world.mkfs(FQRN, "-z")
    world.serve()
    publisher = world.publisher("alpha", repository)

    def change(number: int) -> content.Change:
        def plant(top: Path) -> None:
            content.put(top / "a" / "file", f"number {number}", moment=number)
            for nested in ("n", "n/m", "o"):
                content.put(top / nested / ".cvmfscatalog", b"")
                content.put(top / nested / f"file-{number}", f"nested {number}", moment=number)

        return plant

    trees = [publisher.publish(change(number)) for number in range(3)]
    admin = world.importer("admin", repository)

    def ours(*words: str) -> str:
        return world.program(*words).output

    def theirs(*words: str) -> str:
        output = admin.run("cvmfs_server", *words).output
        world.adopt_reflog(admin, repository)
        return output

    # catalogs and statistics
    listed = {line.strip() or "/" for line in theirs("list-catalogs", "-x", FQRN).splitlines()}
    found = {json.loads(line)["path"] for line in ours("inspect", "catalogs", "--json", FQRN).splitlines()}
    assert found == {"/", "/n", "/n/m", "/o"}
    assert found - {"/"} == listed - {"/"}
    ours("gc", FQRN)
    spool = f"var/spool/cvmfs/{FQRN}/stats.db"
    admin.path(f"/{spool}").write_bytes((repository.folder / spool).read_bytes())
    for table, number in (("publish_statistics", 3), ("gc_statistics", None)):
        head, *rows = theirs("print-stats", "-t", table, FQRN).splitlines()
        assert "start_time" in head
        assert all(row.count("|") == head.count("|") for row in rows)
        assert len(rows) == number if number else rows
    # signing: theirs, then ours
    give_reflog(world, admin, repository)
    theirs("resign", "-d", "20", FQRN)
    assert "no problems found" in ours("check", FQRN)
    ours("resign", FQRN)
    world.verify(repository, trees[-1])
    # undo: ours, then theirs; each goes back one publish
    ours("rollback", FQRN)
    world.verify(repository, trees[1])
    tree = publisher.publish(change(3))
    give_reflog(world, admin, repository)
    theirs("rollback", "-f", FQRN)
    assert "no problems found" in ours("check", FQRN)
    world.verify(repository, trees[1])
    # new keys, while a client may still have the old manifest
    keys = repository.folder / "etc/cvmfs/keys"
    key = RepositoryKey.generate()
    certificate = Certificate.self_signed(key, FQRN, datetime.now(UTC))
    for kind, data in (("crt", certificate.pem), ("key", key.pem)):
        path = keys / f"{FQRN}.{kind}"
        path.unlink()
        path.write_bytes(data)
        shutil.chown(path, NOBODY, NOBODY)
    ours("resign", FQRN)
    world.verify(repository, trees[1])
    ours("resign", "--manifest", FQRN)
    world.verify(repository, trees[1])
    ours("resign", "--only-own", FQRN)
    tree = publisher.publish(change(4))
    world.verify(repository, tree)
    assert "no problems found" in ours("check", "-i", FQRN)
    # a copy of it is one that the reference finds nothing wrong with, and that another server takes over
    copy, other = str(world.root / "copy"), str(world.root / "other")
    ours("export", FQRN, copy)
    ours("--root", other, "import", FQRN, "--from", copy, "-k", str(keys), "-w", repository.web)
    assert "no problems found" in ours("--root", other, "check", "-i", FQRN)
    checksum = f"/mnt/server/other/var/spool/cvmfs/{FQRN}/reflog.chksum"
    checked = world.client.machine.run(
        "cvmfs_swissknife", "check", "-c", "-r", f"/mnt/server/other/srv/cvmfs/{FQRN}", "-t", "/tmp", "-R", checksum
    )
    assert "no problems found" in checked.output


def test_import_of_theirs(world: World) -> None:
    """A Stratum 0 that ``cvmfs_server`` has made and published to, served by our web server, is taken over."""
    world.mkfs(FQRN)
    world.serve()
    theirs = Stratum0(world, "theirs.example.org", "-z")
    fqrn, other = theirs.fqrn, str(world.root / "other")
    for number in range(2):
        theirs.publish(
            f"mkdir -p d n && echo {number} > d/file && ln -sf file d/link"
            f" && touch n/.cvmfscatalog && head -c 20000000 /dev/zero > n/large-{number}",
            f"tag-{number}",
        )
    said = theirs.adopt("--link", root=other).output
    assert "taken: CVMFS_AUTO_GC=true" in said
    assert "no meaning here: CVMFS_UNION_FS_TYPE=overlayfs (nothing is mounted here)" in said
    assert "unknown" not in said, "all that mkfs writes is known"
    assert "no problems found" in world.program("--root", other, "check", "-i", "-a", fqrn).output
    listed = [
        json.loads(line)
        for line in world.program("--root", other, "inspect", "tree", "--json", fqrn).output.splitlines()
    ]
    assert {entry["path"] for entry in listed if entry["kind"] != "directory"} == {
        "/new_repository", "/d/file", "/d/link", "/n/.cvmfscatalog", "/n/large-0", "/n/large-1",
    }  # fmt: skip
    tags = world.program("--root", other, "tag", "list", fqrn).output
    assert "tag-0" in tags
    assert "tag-1" in tags
    theirs.close()
