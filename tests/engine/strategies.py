"""Hypothesis strategies for trees, edits of trees, and the plain model of a three-way merge."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from cvmfs_objstore.formats.entry import Kind, is_below, parent_path
from tests.engine.trees import Item, Model, group_sizes

NAMES = ("a", "b", "c", "a-b", "\udcff\udcfe", "ä")


@dataclass(frozen=True)
class Tree:
    """A model with the directories that are nested catalogs."""

    model: Model
    mountpoints: frozenset[str]


def below(model: Model, top: str) -> list[str]:
    """Paths below *top* (without it)."""
    return [path for path in model if path != top and is_below(path, top)]


def directories(model: Model) -> list[str]:
    """Paths of directories, the root first."""
    return sorted(path for path, item in model.items() if item.kind is Kind.DIRECTORY)


seeds = st.integers(0, 30)
files = st.builds(Item, st.just(Kind.FILE), seeds, st.integers(0, 2))
others = st.builds(Item, st.sampled_from((Kind.SYMLINK, Kind.SPECIAL)), seeds)
leaves = files | others


@st.composite
def edits(draw: st.DrawFn, tree: Tree, scope: str = "", most: int = 8, links: bool = False) -> Tree:
    """*tree* after a few changes at or below *scope*; with *links* also to hard link groups."""
    model, mountpoints = dict(tree.model), set(tree.mountpoints)
    actions = ("put", "put", "mkdir", "remove", "touch", "nest", "nest") + ("link",) * 5 * links
    for _ in range(draw(st.integers(0, most))):
        inside = [path for path in directories(model) if is_below(path, scope)]
        known = [path for path in model if path and is_below(path, scope)]
        action = draw(st.sampled_from(actions))
        if action in ("put", "mkdir") and inside:
            path = f"{draw(st.sampled_from(inside))}/{draw(st.sampled_from(NAMES))}"
            item = Item(Kind.DIRECTORY, draw(seeds)) if action == "mkdir" else draw(leaves)
            if item.kind is not Kind.DIRECTORY:
                for gone in below(model, path):
                    del model[gone]
            model[path] = item
        elif action == "remove" and known:
            path = draw(st.sampled_from(known))
            for gone in [*below(model, path), path]:
                del model[gone]
        elif action == "touch" and known:
            path = draw(st.sampled_from(known))
            seed = draw(seeds)
            for member in members(model, path):
                model[member] = replace(model[member], seed=seed)
        elif action == "link":
            leaf_paths = [path for path in known if model[path].kind is not Kind.DIRECTORY]
            if leaf_paths:
                link(model, draw(st.sampled_from(leaf_paths)), draw(st.sampled_from(NAMES)))
        elif action == "nest" and inside:
            path = draw(st.sampled_from(inside))
            if path:
                mountpoints ^= {path}
        mountpoints = {path for path in mountpoints if path in model and model[path].kind is Kind.DIRECTORY}
    return Tree(without_lonely_groups(model), frozenset(mountpoints))


def members(model: Model, path: str) -> list[str]:
    """The paths that are the same file as *path*: its hard link group, or itself."""
    group = model[path].group
    return [other for other, item in model.items() if item.group == group] if group else [path]


def link(model: Model, path: str, name: str) -> None:
    """Make *name* another hard link to the file at *path*, unless a directory is there."""
    target = f"{parent_path(path)}/{name}"
    if target == path or (target in model and model[target].kind is Kind.DIRECTORY):
        return
    if not model[path].group:
        model[path] = replace(model[path], group=1 + max(item.group for item in model.values()))
    model[target] = model[path]


def without_lonely_groups(model: Model) -> Model:
    """*model* with groups of one member being none."""
    sizes = group_sizes(model)
    return {
        path: replace(item, group=item.group if sizes.get((parent_path(path), item.group), 0) > 1 else 0)
        for path, item in model.items()
    }


def groups(model: Model) -> set[frozenset[str]]:
    """The paths of each hard link group."""
    found: dict[tuple[str, int], set[str]] = {}
    for path, item in model.items():
        if item.group:
            found.setdefault((parent_path(path), item.group), set()).add(path)
    return {frozenset(paths) for paths in found.values() if len(paths) > 1}


@st.composite
def trees(draw: st.DrawFn, links: bool = False) -> Tree:
    """A tree of some depth, cut into nested catalogs at random."""
    start = Tree({"": Item(Kind.DIRECTORY, 1)}, frozenset())
    model = dict(start.model)
    for _ in range(draw(st.integers(0, 6))):
        path = f"{draw(st.sampled_from(directories(model)))}/{draw(st.sampled_from(NAMES))}"
        model[path] = Item(Kind.DIRECTORY, draw(seeds))
    return draw(edits(Tree(model, frozenset()), most=14, links=links))


def merge(base: Tree, result: Tree, present: Tree, scope: str) -> Tree:
    """What a three-way merge must give, on plain dicts."""
    out = dict(present.model)

    def seen(tree: Tree, path: str) -> tuple[Item, int] | None:
        """What tells that an entry changed: what it is, and its number of links."""
        item = tree.model.get(path)
        return None if item is None else (replace(item, group=0), len(members(tree.model, path)))

    def put(path: str, item: Item) -> None:
        if path:
            ensure(parent_path(path))
        if item.kind is not Kind.DIRECTORY:
            for gone in below(out, path):
                del out[gone]
        # A group that is put is one of its own, whatever groups there are already.
        out[path] = replace(item, group=item.group + _OTHER_GROUPS) if item.group else item

    def ensure(path: str) -> None:
        if path not in out or out[path].kind is not Kind.DIRECTORY:
            put(path, result.model[path])

    removed = [path for path in base.model if path not in result.model and is_below(path, scope)]
    for path in sorted(removed, reverse=True):
        if path in out and not below(out, path):
            del out[path]
    touched = [path for path in result.model if is_below(path, scope) and seen(base, path) != seen(result, path)]
    changed = {member for path in touched for member in members(result.model, path) if is_below(member, scope)}
    for path in sorted(changed, key=lambda path: (result.model[path].kind is not Kind.DIRECTORY, path)):
        put(path, result.model[path])
    nested = {path for path in result.mountpoints - base.mountpoints if is_below(path, scope)}
    dissolved = {path for path in base.mountpoints - result.mountpoints if is_below(path, scope)}
    for path in sorted(nested):
        ensure(path)
    mountpoints = present.mountpoints - {path for path in dissolved if _is_directory(result, path)} | nested
    kept = {path for path in mountpoints if path in out and out[path].kind is Kind.DIRECTORY}
    return Tree(without_lonely_groups(out), frozenset(kept))


_OTHER_GROUPS = 1_000_000


def _is_directory(tree: Tree, path: str) -> bool:
    return path in tree.model and tree.model[path].kind is Kind.DIRECTORY
