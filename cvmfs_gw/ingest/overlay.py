"""What several operations on a repository amount to: one tree that lies over the repository's.

It is made by copying what is changed, so that what was gathered stays what it was and can be planned again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from cvmfs_gw.ingest.errors import BadTarget
from cvmfs_gw.ingest.gather import Gathered
from cvmfs_gw.ingest.nodes import Node


@dataclass(frozen=True, slots=True)
class Replace:
    """The directory at *target* is to be what was gathered, and nothing else."""

    source: Gathered
    target: str


@dataclass(frozen=True, slots=True)
class Add:
    """What was gathered is put into the directory at *target*, over what is there; whiteouts remove.

    A directory that is there already keeps its attributes if it is the target, else it gets the source's.
    """

    source: Gathered
    target: str


@dataclass(frozen=True, slots=True)
class Delete:
    """There is to be nothing at *target*."""

    target: str


Operation = Replace | Add | Delete


def overlay(operations: Sequence[Operation]) -> Node:
    """The tree that *operations*, one after the other, lay over the repository's. Raises :exc:`BadTarget`."""
    root = Node(children={})
    for operation in operations:
        parts = _parts(operation.target)
        if isinstance(operation, Delete) and not parts:
            raise BadTarget("the root cannot be deleted")
        change = _nothing if isinstance(operation, Delete) else partial(_apply, operation)
        root = _edit(root, parts, operation.target, change)
    return root


def _nothing(below: Node | None) -> Node:
    return Node()


def _apply(operation: Replace | Add, below: Node | None) -> Node:
    top = operation.source.root.copy()
    if isinstance(operation, Replace):
        top.opaque = True
        return top
    top.is_default = True
    return merged(below, top)


def put_below(root: Node, path: str, node: Node) -> Node:
    """*root* with *node* at *path*. Raises :exc:`BadTarget`."""
    return _edit(root, _parts(path), path, lambda below: node)


def merged(lower: Node | None, upper: Node) -> Node:
    """What is seen where *upper* lies over *lower*."""
    seen: dict[str, Node] = {}
    # what is to be seen: as which child of whom; not recursive, as a path may have two thousand directories
    pending = [(seen, "", lower, upper)]
    while pending:
        siblings, name, lower, upper = pending.pop()
        node = siblings[name] = _seen(lower, upper)
        if upper.is_directory and lower is not None and lower.is_directory:
            assert node.children is not None
            assert upper.children is not None
            pending += [(node.children, name, node.children.get(name), child) for name, child in upper.children.items()]
    return seen[""]


def _seen(lower: Node | None, upper: Node) -> Node:
    """The same but, of two directories, without what is in the upper one."""
    if lower is None:
        return upper
    if not upper.is_directory or not lower.is_directory:
        if upper.is_directory:
            if not upper.is_needed:
                return lower  # nothing but whiteouts
            upper = upper.copy()
            upper.opaque = True  # whatever was in the way is gone, and what was behind it must not come back
        return upper
    result = lower.copy()
    if upper.item is not None and (lower.item is None or not upper.is_default):
        result.item, result.is_default = upper.item, upper.is_default
    if upper.opaque:
        result = Node(result.item, None, {}, True, result.is_default)
    return result


def _parts(target: str) -> list[str]:
    if not target:
        return []
    parts = target.split("/")[1:]
    if not target.startswith("/") or not {"", ".", ".."}.isdisjoint(parts) or "\0" in target:
        raise BadTarget(f"not a path in a repository: {target[:200]!r}")
    return parts


def _edit(root: Node | None, parts: list[str], path: str, change: Callable[[Node | None], Node]) -> Node:
    """A copy of *root* in which what is below it at *parts* has been changed."""
    top: dict[str, Node] = {} if root is None else {"": root}
    siblings = top
    *above, last = ["", *parts]
    for name in above:
        node = siblings.get(name)
        if node is None:
            copy = Node(children={})
        elif node.is_gone:
            if change is _nothing:
                return top[""]
            copy = Node(children={}, opaque=True)
        elif not node.is_directory:
            raise BadTarget(f"{path} lies below what becomes a file")
        else:
            copy = node.copy()
        assert copy.children is not None
        siblings[name], siblings = copy, copy.children
    siblings[last] = change(siblings.get(last))
    return top[""]
