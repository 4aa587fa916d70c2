"""What a directory tree holds, in values that can be compared."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

_PIECE: Final = 1 << 20


@dataclass(frozen=True)
class Node:
    """One entry. ``mtime`` is in nanoseconds; None stands for anything.

    Link counts are left out: with overlayfs, and for archives, the publishers make one file of each hard link.
    """

    mode: int
    uid: int | None
    gid: int | None
    mtime: int | None
    size: int | None = None
    sha1: str | None = None
    target: str | None = None
    device: int | None = None
    xattrs: tuple[tuple[str, bytes], ...] = ()

    def owned_by(self, uid: int, gid: int) -> Node:
        """The same with another owner."""
        return replace(self, uid=uid, gid=gid)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


Tree = dict[str, Node]
"""Entries by path: ``""`` for the top, ``a/b`` for the others."""


def snapshot(top: Path) -> Tree:
    """All that is in *top*. Symlinks are not followed.

    Of the top itself the kind alone counts: publishers leave the repository's root directory as it is.
    """
    return {"": Node(stat.S_IFDIR | 0o755, None, None, None), **dict(_walk(str(top), ""))}


def _walk(folder: str, above: str) -> Iterator[tuple[str, Node]]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        path = f"{above}{name}"
        node = inspect(f"{folder}/{name}")
        yield path, node
        if node.is_directory:
            yield from _walk(f"{folder}/{name}", f"{path}/")


def inspect(place: str) -> Node:
    """The entry at *place*."""
    status = os.lstat(place)
    node = Node(status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
    if stat.S_ISLNK(status.st_mode):
        return replace(node, target=os.readlink(place))
    names = [name for name in os.listxattr(place, follow_symlinks=False) if name.startswith("user.")]
    node = replace(
        node, xattrs=tuple(sorted((name, os.getxattr(place, name, follow_symlinks=False)) for name in names))
    )
    if stat.S_ISREG(status.st_mode):
        return replace(node, size=status.st_size, sha1=_sha1(place))
    return node if node.is_directory else replace(node, device=status.st_rdev)


def _sha1(place: str) -> str:
    hasher = hashlib.sha1(usedforsecurity=False)
    with open(place, "rb") as file:
        while piece := file.read(_PIECE):
            hasher.update(piece)
    return hasher.hexdigest()


def subtree(tree: Tree, path: str) -> Tree:
    """The entries at and below *path*."""
    return {at: node for at, node in tree.items() if not path or at == path or at.startswith(f"{path}/")}


def grafted(tree: Tree, path: str, other: Tree) -> Tree:
    """*tree* with what *other* has at and below *path* in place of its own."""
    kept = {at: node for at, node in tree.items() if at not in subtree(tree, path)}
    return kept | subtree(other, path)


def loosened(node: Node) -> Node:
    """The same with any time of change."""
    return replace(node, mtime=None)


def differences(expected: Tree, seen: Tree, *, nanoseconds: bool = False) -> list[str]:
    """What is wrong with *seen*, line by line. Without *nanoseconds*, times are compared to the second."""
    wrong = [f"missing: {path}" for path in expected if path not in seen]
    wrong += [f"not to be there: {path}" for path in seen if path not in expected]
    for path, node in expected.items():
        other = seen.get(path)
        if other is None:
            continue
        for field in fields(Node):
            want, got = getattr(node, field.name), getattr(other, field.name)
            if field.name == "mtime" and want is not None and not nanoseconds:
                want, got = want // 10**9, got // 10**9
            if want is not None and want != got:
                wrong.append(f"{path or '(top)'}: {field.name} is {got!r}, not {want!r}")
    return wrong
