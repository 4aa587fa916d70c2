"""Commits of publishers whose mount lags behind, or who changed more than they had leased."""

from __future__ import annotations

from conformance.consistency import check
from conformance.entry import directory
from conformance.outcomes import NotApplicable, equal, expect
from conformance.probe import Probe
from conformance.registry import API, case, each, issue
from conformance.tree import Tree


def _plant(probe: Probe, *nested: str) -> str:
    """A directory with /a and /b in it, each with a file, of which some are nested catalogs."""
    top = probe.path()

    def act(tree: Tree) -> None:
        for name in ("a", "b"):
            tree.make_directories(f"{top}/{name}/sub")
            tree.put_file(f"{top}/{name}/file", name.encode())
        for path in nested:
            tree.nest(f"{top}{path}")

    probe.plant(top, act)
    return top


@each(
    "commits.merge",
    API,
    {
        "plain": ("two publishers with the same base, in two directories of one catalog: both are published", ()),
        "nested": ("two publishers with the same base, in two nested catalogs: both are published", ("/a", "/b")),
        "mixed": ("two publishers with the same base, one in a nested catalog: both are published", ("/b",)),
    },
)
def two_publishers(probe: Probe, nested: tuple[str, ...]) -> None:
    top = _plant(probe, *nested)
    base = probe.repository.manifest().root
    for name in ("a", "b"):
        path = f"{top}/{name}"
        probe.publish(path, lambda tree, p=path: tree.put_file(f"{p}/new", b"x"), base=base)  # type: ignore[misc]
    tree = check(probe.repository)
    for name in ("a", "b"):
        tree.need(f"{top}/{name}/new")


@case(
    "commits.merge.same.nested",
    "two publishers with the same base, in two directories of one nested catalog: both are published",
    issue(3546, 3771, 3867, 4303),
)
def same_nested(probe: Probe) -> None:
    top = probe.path()

    def plant(tree: Tree) -> None:
        for name in ("a", "b"):
            tree.make_directories(f"{top}/n/{name}")
        tree.nest(f"{top}/n")

    probe.plant(top, plant)
    base = probe.repository.manifest().root
    for name in ("a", "b"):
        path = f"{top}/n/{name}"
        probe.publish(path, lambda tree, p=path: tree.put_file(f"{p}/new", b"x"), base=base)  # type: ignore[misc]
    tree = check(probe.repository)
    for name in ("a", "b"):
        expect(tree.get(f"{top}/n/{name}/new"), f"the commit in {name} is lost")


@case(
    "commits.merge.lagging",
    "a publisher whose mount lags behind, but who names the present head as base, reverts nobody's commit",
    issue(3546, 3771, 3867, 4303),
)
def lagging(probe: Probe) -> None:
    top = _plant(probe, "/a")
    base = probe.repository.manifest().root
    probe.publish(f"{top}/a", lambda tree: tree.put_file(f"{top}/a/first", b"first"))
    built = probe.build(lambda tree: tree.put_file(f"{top}/b/second", b"second"), base)
    token = probe.acquire(top)
    probe.send(token, built)
    probe.commit(token, built, old=probe.repository.manifest().root)
    tree = check(probe.repository)
    expect(tree.get(f"{top}/a/first"), "the other publisher's file is lost")
    expect(tree.get(f"{top}/b/second"), "this publisher's file is lost")


@case("commits.merge.removed", "a removal on an old base removes, and what others added stays", API)
def removed(probe: Probe) -> None:
    top = _plant(probe)
    base = probe.repository.manifest().root
    probe.publish(f"{top}/a", lambda tree: tree.put_file(f"{top}/a/new", b"x"))
    probe.publish(f"{top}/b", lambda tree: tree.remove(f"{top}/b/file"), base=base)
    tree = check(probe.repository)
    expect(tree.get(f"{top}/a/new"), "the other publisher's file is lost")
    expect(tree.get(f"{top}/b/file") is None, "the removed file is back")


@each(
    "commits.outside",
    API,
    {
        "beside": ("a change beside the leased path is passed over", "/b/new", ()),
        "above": ("a change above the leased path is passed over", "/new", ()),
        "nested": ("a change in a nested catalog beside the leased path is passed over", "/b/new", ("/b",)),
        "longer": ("a change in /ab under a lease on /a is passed over", "/ab/new", ()),
    },
)
def outside(probe: Probe, path: str, nested: tuple[str, ...]) -> None:
    top = _plant(probe, *nested)
    probe.plant(f"{top}/ab")

    def trespass(tree: Tree) -> None:
        tree.put_file(f"{top}/a/rightful", b"x")
        tree.put_file(top + path, b"x")

    probe.publish(f"{top}/a", trespass)
    tree = check(probe.repository)
    tree.need(f"{top}/a/rightful")
    expect(tree.get(top + path) is None, "it was published")


@case("commits.outside.removal", "a removal beside the leased path is passed over", API)
def outside_removal(probe: Probe) -> None:
    top = _plant(probe)
    probe.publish(f"{top}/a", lambda tree: tree.remove(f"{top}/b"))
    check(probe.repository).need(f"{top}/b/file")


@each(
    "commits.leased",
    API,
    {
        "new": ("a leased path that is not there is made, and its parent's link count with it", False),
        "removed": ("the leased directory itself removed is gone, and its parent's link count goes with it", True),
    },
)
def leased_directory(probe: Probe, remove: bool) -> None:
    top = probe.path()
    probe.plant(top)
    if remove:
        probe.plant(f"{top}/leased")
        probe.publish(f"{top}/leased", lambda tree: tree.remove(f"{top}/leased"))
    else:
        probe.publish(f"{top}/leased", lambda tree: tree.put(f"{top}/leased", directory()))
    tree = check(probe.repository)
    equal(tree.get(f"{top}/leased") is None, remove, "the directory is gone")
    equal(tree.need(top).links, 2 + (not remove), "link count of its parent")


@case("commits.leased.file", "a lease on a file's own path, as ingest -d has it, removes the file", API)
def leased_file(probe: Probe) -> None:
    top = _plant(probe)
    probe.publish(f"{top}/a/file", lambda tree: tree.remove(f"{top}/a/file"))
    expect(check(probe.repository).get(f"{top}/a/file") is None, "the file is still there")


@case(
    "commits.leased.ancestors",
    "missing directories above the leased path are made at commit",
    "protocol 4, release 2.13",
)
def ancestors(probe: Probe) -> None:
    top = probe.path()
    path = f"{top}/one/two"
    built = probe.build(lambda tree: tree.make_directories(path))
    reply = probe.ask(path, api_version="4")
    if reply.json.get("status") != "ok" or reply.json["max_api_version"] < 4:
        raise NotApplicable("this gateway does not speak protocol 4")
    token = reply.json["session_token"]
    probe.send(token, built)
    probe.commit(token, built)
    check(probe.repository).need(path)


@case("commits.leased.nested", "under a lease inside a nested catalog, that one and those above are rewritten", API)
def inside_nested(probe: Probe) -> None:
    top = _plant(probe, "/a")
    before = probe.repository.tree()
    before.prefixes()
    probe.publish(f"{top}/a/sub", lambda tree: tree.put_file(f"{top}/a/sub/new", b"x"))
    tree = check(probe.repository)
    tree.need(f"{top}/a/sub/new")
    inner = tree.catalog(f"{top}/a")
    old = before.catalog(f"{top}/a")
    equal(inner.property("previous_revision"), before.name_of(f"{top}/a"), "previous_revision of the nested catalog")
    equal(
        int(inner.property("revision") or 0), int(old.property("revision") or 0) + 1, "revision of the nested catalog"
    )


@case("commits.unchanged.nested", "a nested catalog that nobody changed keeps its hash", API)
def unchanged_nested(probe: Probe) -> None:
    top = _plant(probe, "/a")
    tree = probe.repository.tree()
    tree.prefixes()
    before = tree.name_of(f"{top}/a")
    base = tree.root
    probe.publish(probe.path(), lambda tree: None)
    probe.publish(f"{top}/b", lambda tree: tree.put_file(f"{top}/b/new", b"x"), base=base)
    tree = check(probe.repository)
    equal(tree.name_of(f"{top}/a"), before, "the nested catalog")
