"""The two-way table of commands: ``cvmfs_server`` on a repository of ours, and ours on one that it has made.

Each row is run in turn on one repository, and says what must be in the answer; after each that changes something, the
other one's check, with every object read, finds nothing wrong.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conformance.machines import content
from tests.e2e.stratum0 import Stratum0
from tests.e2e.test_care import age, give_reflog
from tests.e2e.world import World

OURS: Final = "ours.example.org"
THEIRS: Final = "theirs.example.org"
WELL: Final = "no problems found"


@dataclass(frozen=True)
class Row:
    """A command with ``@`` for the name of the repository and ``$`` for a folder of the test, and what it must say."""

    command: str
    says: str = ""
    changes: bool = False


THEIRS_ON_OURS: Final = (
    Row("check @", WELL),
    Row("check -i @", WELL),
    Row("check -c @", WELL),
    Row("check -t v1 @", WELL),
    Row("check -s /n @", WELL),
    Row("info @", OURS),
    Row("list", OURS),
    Row("list-catalogs -x @", "/n/m"),
    Row("list-catalogs -s -e -h @", "/n/m"),
    Row("print-stats @", "start_time"),
    Row("print-stats -t gc_statistics @", "start_time"),
    Row("diff -s v1 -d v2 @", "/added-2"),
    Row("diff -m @", "/added-3"),
    Row("tag @", "v1"),
    Row("tag -l -x @", "v1"),
    Row("tag -i v2 -x @", "v2"),
    Row("tag -b -x @", "(default)"),
    Row("tag -a theirs -m note @", changes=True),
    Row("tag -a theirs-2 -m note @", changes=True),
    Row("tag -f -r theirs-2 @", changes=True),
    Row("resign -f -d 20 @", changes=True),
    Row("resign -p @", changes=True),
    Row("update-repoinfo -f $/info.json @", changes=True),
    Row("gc -f -d -l -r 0 @"),
    Row("gc -f -r 1 @", changes=True),
    Row("rollback -f -t v2 @", changes=True),
    Row("checkout -b branch -t v1 @"),
    Row("transaction @"),
    Row("publish -a on-branch @", changes=True),
    Row("ingest -t $/new.tar -b /ingested @", changes=True),
    Row("rollback -f @", changes=True),
    Row("eliminate-hardlinks -f @", changes=True),
    Row("gc -f -t 2030-01-01 @", changes=True),
    Row("check -r @", WELL, changes=True),
)

OURS_ON_THEIRS: Final = (
    Row("check @", WELL),
    Row("check -i -a @", WELL),
    Row("check -t v1 @", WELL),
    Row("check -i -s /n @", WELL),
    Row("check --repair @", WELL),
    Row("doctor --no-web @", "0 errors"),
    Row("inspect tree @", "/n/m/file"),
    Row("inspect du @", "/n"),
    Row("inspect largest @", "/large"),
    Row("inspect catalogs @", "/n/m"),
    Row("inspect duplicates @", "times"),
    Row("ls -R @", "n/m/file"),
    Row("cat @ /added-2", "2"),
    Row("history @", "v1"),
    Row("diff @ v1 v2", "A /added-2"),
    Row("diff @", "A /added-3"),
    Row("diff --json @ v1 v2", '"/added-2"'),
    Row("tag list @", "v1"),
    Row("tag list --json @", '"v1"'),
    Row("tag branches @", "branch"),
    Row("tag show @ v2", "v2"),
    Row("tag add @ ours v2 -m note", changes=True),
    Row("tag move @ ours", changes=True),
    Row("tag remove @ ours", changes=True),
    Row("resign --show @", "in 29 days"),
    Row("resign -d 20 @", changes=True),
    Row("resign --manifest @", changes=True),
    Row("resign --only-own @", changes=True),
    Row("repoinfo @", "administrator"),
    Row("repoinfo @ -f $/info.json", "meta info", changes=True),
    Row("gc -r 0 -d -l @"),
    Row("gc -r 0 @", changes=True),
    Row("gc -t 2030-01-01 @", changes=True),
    Row("export @ $/copy", "copied"),
    Row("export @ $/copy.tar", "copied"),
    Row("rollback @ -t v2", "is what revision 3 was (v2)", changes=True),
    Row("tag list @", "on-branch"),
    Row("check -i -a @", WELL),
)


def go_through(
    rows: tuple[Row, ...], fqrn: str, folder: str, do: Callable[[list[str]], str], check: Callable[[], None]
) -> None:
    for row in rows:
        said = do(row.command.replace("@", fqrn).replace("$", folder).split())
        assert row.says in said, (row.command, said)
        if row.changes:
            check()


def test_theirs_on_ours(world: World) -> None:
    repository = world.mkfs(OURS, "-z")
    world.serve()
    publisher = world.publisher("alpha", repository)

    def change(number: int) -> content.Change:
        def plant(top: Path) -> None:
            content.put(top / f"added-{number}", f"{number}")
            for nested in ("n", "n/m"):
                content.put(top / nested / ".cvmfscatalog", b"")
                content.put(top / nested / "file", f"nested {number}", moment=number)

        return plant

    for number in (1, 2, 3):
        publisher.publish(change(number), "", "-a", f"v{number}")
    world.program("gc", OURS)
    age(repository)
    admin = world.importer("admin", repository)
    statistics = f"/var/spool/cvmfs/{OURS}/stats.db"
    shutil.copyfile(f"{world.root}{statistics}", admin.path(statistics))
    information = {"administrator": "Jo", "email": "", "organisation": "", "description": "", "url": ""}
    admin.write("/srv/info.json", json.dumps({**information, "recommended-stratum0": "", "recommended-stratum1s": []}))
    admin.shell("mkdir -p /srv/new/d && echo new > /srv/new/d/file && tar -C /srv/new -cf /srv/new.tar d")

    def check() -> None:
        world.adopt_reflog(admin, repository)
        assert WELL in world.program("check", "-i", "-a", OURS).output
        world.check(repository)

    give_reflog(world, admin, repository)
    go_through(THEIRS_ON_OURS, OURS, "/srv", lambda words: admin.run("cvmfs_server", *words).output, check)


def test_ours_on_theirs(world: World) -> None:
    world.mkfs(OURS)
    world.serve()
    theirs = Stratum0(world, THEIRS, "-z", "-g")
    for number in (1, 2, 3):
        theirs.publish(
            f"echo {number} > added-{number}; mkdir -p n/m; touch n/.cvmfscatalog n/m/.cvmfscatalog;"
            f" echo {number} > n/m/file; head -c 20000000 /dev/urandom > large",
            f"v{number}",
        )
        if number == 1:
            theirs("checkout", "-b", "branch", "-t", "v1", THEIRS)
            theirs.publish("touch branched", "on-branch")
    theirs.adopt()
    age(theirs.repository)
    theirs.take_reflog()
    folder = world.root / "scratch"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    (folder / "info.json").write_text(json.dumps({"administrator": "Jo", "recommended-stratum1s": []}))

    def do(words: list[str]) -> str:
        said = world.program(*words).output
        theirs.take_reflog()
        return said

    def check() -> None:
        assert WELL in theirs("check", "-i", THEIRS).output

    go_through(OURS_ON_THEIRS, THEIRS, str(folder), do, check)
    # and it goes on publishing
    theirs.publish("echo on > on", "v4")
    theirs.share()
    assert WELL in world.program("check", "-i", "-a", THEIRS).output
    theirs.close()
