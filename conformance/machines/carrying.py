"""Changes of a model, carried out on disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from conformance.machines import content
from conformance.machines.snapshot import Node, Tree
from conformance.machines.trees import parent


def carry_out(top: Path, base: Tree, result: Tree, contents: Mapping[str, bytes]) -> None:
    """Make the directory *top*, which holds *base*, hold *result*; *contents* are those of files, by SHA-1."""
    touched: set[str] = set()
    for path in sorted(base, reverse=True):
        new = result.get(path)
        if new is None or stat.S_IFMT(new.mode) != stat.S_IFMT(base[path].mode):
            content.remove(top / path)
            touched.add(parent(path))
    linked: dict[tuple[str, Node], Path] = {}
    for path in sorted(result):
        old, node = base.get(path), result[path]
        if old == node:
            continue
        place = top / path
        if old is None or stat.S_IFMT(old.mode) != stat.S_IFMT(node.mode):
            touched.add(parent(path))
            if node.is_directory:
                place.mkdir()
                touched.add(path)
                continue
            first = linked.setdefault((parent(path), node), place)
            if first != place:
                os.link(first, place)
                continue
            _make(place, node, contents)
        elif node.is_directory:
            touched.add(path)
            continue
        elif (old.sha1, old.target, old.device) != (node.sha1, node.target, node.device):
            if node.sha1 is None:
                place.unlink()
                touched.add(parent(path))
            _make(place, node, contents)
        _dress(place, node)
    for path in sorted(touched & set(result) - {""}, reverse=True):
        _dress(top / path, result[path])


def _make(place: Path, node: Node, contents: Mapping[str, bytes]) -> None:
    if node.sha1 is not None:
        place.write_bytes(contents[node.sha1])
    elif node.target is not None:
        place.symlink_to(node.target)
    else:
        os.mknod(place, node.mode, node.device or 0)


def _dress(place: Path, node: Node) -> None:
    """Give an entry its attributes."""
    assert node.uid is not None
    assert node.gid is not None
    assert node.mtime is not None
    os.chown(place, node.uid, node.gid, follow_symlinks=False)
    if node.target is None:
        place.chmod(stat.S_IMODE(node.mode))
    if node.is_directory or node.sha1 is not None:
        there = {name for name in os.listxattr(place) if name.startswith("user.")}
        for name in there - {name for name, _ in node.xattrs}:
            os.removexattr(place, name)
        for name, value in node.xattrs:
            os.setxattr(place, name, value)
    os.utime(place, ns=(node.mtime, node.mtime), follow_symlinks=False)
