"""``cvmfs_publish enter`` and ``cvmfs_publish commit``: publishing from a container without a server installation."""

from __future__ import annotations

from tests.e2e import content
from tests.e2e.snapshot import loosened, snapshot
from tests.e2e.world import World

FQRN = "enter.example.org"


def test_enter_and_commit(world: World) -> None:
    repository = world.mkfs(FQRN)
    world.serve()
    alpha = world.publisher("alpha", repository)
    tree = alpha.publish(content.varied)

    stage = alpha.machine.path("/srv/stage")
    content.put(stage / "entered/file", "from the inside", moment=1)
    content.put(stage / "entered/nested/.cvmfscatalog", b"", moment=2)
    content.put(stage / "entered/nested/large", content.noise(1, 20 << 20), moment=3)
    (stage / "entered/link").symlink_to("file")
    content.stamp(stage / "entered/link", 4)
    for folder in ("entered/nested", "entered"):
        content.stamp(stage / folder, 5)
    entered = {path: node for path, node in snapshot(stage).items() if path}

    alpha.enter("cp -a /srv/stage/. .\nrm -r many/d0 empty", commit=True)
    tree = {path: node for path, node in tree.items() if path != "empty" and not f"{path}/".startswith("many/d0/")}
    tree |= entered | {"many": loosened(tree["many"])}
    world.verify(repository, tree)
    assert world.nested_catalogs(repository) == {"/entered/nested"}
    assert repository.revision == 3

    # What is not committed is not there.
    alpha.enter(f"echo never > never\ncd /\nexec cvmfs_server abort -f {FQRN}")
    world.verify(repository, tree)
    alpha.enter("rm entered/nested/.cvmfscatalog", commit=True)
    tree.pop("entered/nested/.cvmfscatalog")
    world.verify(repository, tree | {"entered/nested": loosened(tree["entered/nested"])})
    assert world.nested_catalogs(repository) == set()
