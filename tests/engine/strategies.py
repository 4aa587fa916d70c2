"""Hypothesis strategies for trees, edits of trees, and the plain model of a three-way merge."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from cvmfs_objstore.formats.entry import Kind, is_below, parent_path
from tests.engine.trees import Item, Model

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
def edits(draw: st.DrawFn, tree: Tree, scope: str = "", most: int = 8) -> Tree:
    """*tree* after a few changes at or below *scope*."""
    model, mountpoints = dict(tree.model), set(tree.mountpoints)
    for _ in range(draw(st.integers(0, most))):
        inside = [path for path in directories(model) if is_below(path, scope)]
        known = [path for path in model if path and is_below(path, scope)]
        action = draw(st.sampled_from(("put", "put", "mkdir", "remove", "touch", "nest", "nest")))
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
            model[path] = replace(model[path], seed=draw(seeds))
        elif action == "nest" and inside:
            path = draw(st.sampled_from(inside))
            if path:
                mountpoints ^= {path}
        mountpoints = {path for path in mountpoints if path in model and model[path].kind is Kind.DIRECTORY}
    return Tree(model, frozenset(mountpoints))


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """A tree of some depth, cut into nested catalogs at random."""
    start = Tree({"": Item(Kind.DIRECTORY, 1)}, frozenset())
    model = dict(start.model)
    for _ in range(draw(st.integers(0, 6))):
        path = f"{draw(st.sampled_from(directories(model)))}/{draw(st.sampled_from(NAMES))}"
        model[path] = Item(Kind.DIRECTORY, draw(seeds))
    return draw(edits(Tree(model, frozenset()), most=14))


def merge(base: Tree, result: Tree, present: Tree, scope: str) -> Tree:
    """What a three-way merge must give, on plain dicts."""
    out = dict(present.model)

    def put(path: str, item: Item) -> None:
        if path:
            ensure(parent_path(path))
        if item.kind is not Kind.DIRECTORY:
            for gone in below(out, path):
                del out[gone]
        out[path] = item

    def ensure(path: str) -> None:
        if path not in out or out[path].kind is not Kind.DIRECTORY:
            put(path, result.model[path])

    removed = [path for path in base.model if path not in result.model and is_below(path, scope)]
    for path in sorted(removed, reverse=True):
        if path in out and not below(out, path):
            del out[path]
    changed = [path for path, item in result.model.items() if is_below(path, scope) and base.model.get(path) != item]
    for path in sorted(changed, key=lambda path: (result.model[path].kind is not Kind.DIRECTORY, path)):
        put(path, result.model[path])
    nested = {path for path in result.mountpoints - base.mountpoints if is_below(path, scope)}
    dissolved = {path for path in base.mountpoints - result.mountpoints if is_below(path, scope)}
    for path in sorted(nested):
        ensure(path)
    mountpoints = present.mountpoints - {path for path in dissolved if _is_directory(result, path)} | nested
    kept = {path for path in mountpoints if path in out and out[path].kind is Kind.DIRECTORY}
    return Tree(out, frozenset(kept))


def _is_directory(tree: Tree, path: str) -> bool:
    return path in tree.model and tree.model[path].kind is Kind.DIRECTORY
