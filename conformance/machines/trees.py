"""Trees as plain dictionaries: what is inside what, and what a merge of them is to come to.

A tree is path -> what is there (:data:`conformance.machines.snapshot.Tree`): the model that histories are held against.
"""

from __future__ import annotations

import stat
from typing import Final

from conformance.machines.snapshot import Node, Tree

MARKER: Final = ".cvmfscatalog"


def parent(path: str) -> str:
    """The directory that *path* is in."""
    return path.rpartition("/")[0]


def inside(path: str, scope: str) -> bool:
    """Whether *path* is at or below *scope*."""
    return not scope or path == scope or path.startswith(f"{scope}/")


def below(tree: Tree, top: str) -> list[str]:
    """What *tree* has below *top*, without it."""
    return [path for path in tree if path != top and inside(path, top)]


def folders(tree: Tree, scope: str = "") -> list[str]:
    """The directories at and below *scope*."""
    return [path for path, node in tree.items() if node.is_directory and inside(path, scope)]


def marked(tree: Tree) -> set[str]:
    """The directories that are to be nested catalogs."""
    return {parent(path) for path in tree if "/" in path and path.rpartition("/")[2] == MARKER}


def empty() -> Tree:
    """A tree with nothing in it. Of the root itself the kind alone counts."""
    return {"": Node(stat.S_IFDIR | 0o755, None, None, None)}


def merged(base: Tree, result: Tree, present: Tree, scope: str) -> Tree:
    """What *present* becomes by what was changed from *base* to *result* at or below *scope*."""
    out = dict(present)

    def put(path: str, node: Node) -> None:
        if path:
            above = parent(path)
            if above not in out or not out[above].is_directory:
                put(above, result[above])
        if not node.is_directory:
            for gone in below(out, path):
                del out[gone]
        out[path] = node

    gone = [path for path in base if path not in result and inside(path, scope)]
    for path in sorted(gone, reverse=True):
        if path in out and not below(out, path):
            del out[path]
    changed = [path for path in result if inside(path, scope) and base.get(path) != result[path]]
    for path in sorted(changed, key=lambda path: (not result[path].is_directory, path)):
        put(path, result[path])
    return out
