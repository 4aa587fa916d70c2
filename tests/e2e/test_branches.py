"""Branches that ``cvmfs_server checkout -b`` has made: everything that we do keeps them, and there and back."""

from __future__ import annotations

import json
from pathlib import Path

from conformance.machines import content
from tests.e2e.stratum0 import Stratum0
from tests.e2e.world import World

FQRN = "theirs.example.org"


def test_branches(world: World) -> None:
    world.mkfs("ours.example.org")
    world.serve()
    theirs = Stratum0(world, FQRN, "-z", "-g")
    theirs.publish("touch version1; mkdir n; touch n/.cvmfscatalog n/one", "v1")
    theirs.publish("touch version2 n/two", "v2")
    for branch, tag, new in (("fix", "v1", "v1-fix"), ("deeper", "v1-fix", "v1-deeper")):
        theirs("checkout", "-b", branch, "-t", tag, FQRN)
        theirs.publish(f"echo {new} > n/{new}", new)
    theirs.publish("touch version3", "v3")

    def ours(*words: str) -> str:
        output = world.program(*words).output
        theirs.take_reflog()
        return output

    def hierarchy() -> list[str]:
        """As the reference tells it, without the first revisions; ours tells the same."""
        lines = [line.rpartition(" @")[0] for line in theirs("tag", "-b", "-x", FQRN).output.splitlines()]
        told = [line.split("  @")[0] for line in ours("tag", "branches", FQRN).splitlines()]
        assert [(line.split()[1], int(line[1])) for line in lines] == [
            (line.strip(), (len(line) - len(line.lstrip())) // 2) for line in told
        ]
        return [line.strip() for line in told]

    def branches_of_tags() -> dict[str, str]:
        tags = json.loads(ours("tag", "list", "--json", FQRN))
        return {tag["name"]: tag["branch"] for tag in tags}

    def whole() -> None:
        assert "no problems found" in ours("check", "-i", "-a", FQRN)
        assert "no problems found" in theirs("check", "-i", FQRN).output

    theirs.adopt()
    world.stop()
    world.serve()
    known = ["(default)", "fix", "deeper"]
    assert hierarchy() == known
    on = branches_of_tags()
    assert {name: on[name] for name in ("v1", "v1-fix", "v1-deeper", "v3", "trunk")} == {
        "v1": "", "v1-fix": "fix", "v1-deeper": "deeper", "v3": "", "trunk": "",
    }  # fmt: skip
    whole()
    # the default branch goes on through our gateway; what is on the others is read
    publisher = world.publisher("alpha", theirs.repository)

    def change(top: Path) -> None:
        content.put(top / "version4", "4")

    publisher.publish(change, "", "-a", "v4")
    theirs.share()
    theirs.take_reflog()
    whole()
    listed = world.program("ls", f"{theirs.repository.web}@v1-deeper", "/n").output.split()
    assert {"v1-fix", "v1-deeper"} <= {Path(name).name for name in listed}
    assert "two" not in {Path(name).name for name in listed}
    assert "v1-fix" in ours("diff", FQRN, "v1", "v1-fix")
    # tags come, move and go; one that moves stays on its branch
    ours("tag", "add", FQRN, "mine", "v1-fix")
    ours("tag", "move", FQRN, "v1-fix", "v1-deeper")
    assert branches_of_tags() | {"mine": "", "v1-fix": "fix"} == branches_of_tags()
    whole()
    ours("tag", "move", FQRN, "v1-fix", "mine")
    ours("tag", "remove", FQRN, "mine")
    # nothing that is on a branch is garbage, and a rollback of the default one leaves it alone
    ours("rollback", FQRN, "-t", "v2")
    assert branches_of_tags().keys() == {"v1", "v2", "v1-fix", "v1-deeper", "trunk"}
    theirs.share()
    ours("gc", "-r", "0", FQRN)
    whole()
    assert hierarchy() == known
    refused = world.program("rollback", FQRN, "-t", "v1-fix", expect=None)
    assert refused.code
    assert "branch" in refused.output
    # a copy has them, and so has who takes it over
    copy, other = str(world.root / "copy"), str(world.root / "other")
    ours("export", FQRN, copy)
    world.program("--root", other, "import", FQRN, "--from", copy, "-k", str(theirs.keys))
    assert "no problems found" in world.program("--root", other, "check", "-i", "-a", FQRN).output
    assert world.program("--root", other, "tag", "branches", FQRN).output == ours("tag", "branches", FQRN)
    # back to the reference, which goes on where it was; removing the last tag of one removes it
    theirs("checkout", "-b", "deeper", FQRN)
    theirs.publish("echo more > n/more", "v1-deeper-2")
    theirs.share()
    whole()
    ours("tag", "remove", FQRN, "v1-fix")
    assert hierarchy() == ["(default)", "deeper"]
    whole()
    theirs("tag", "-f", "-r", "v1-deeper v1-deeper-2", FQRN)
    theirs.share()
    assert hierarchy() == ["(default)"]
    whole()
    theirs.close()
