"""What the layers of an image, one over the other, amount to.

Source: "Layer Filesystem Changeset" of the OCI image specification: whiteouts count for lower layers alone, wherever in
their layer they stand. Where a directory on the way to a member is a symbolic link, it leads to where it does in the
image, as runtimes have it; what is not in the image cannot be reached.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from typing import Final

from cvmfs_gw.ingest.errors import BadImage
from cvmfs_gw.ingest.items import Item, Whiteout

_MAX_LINKS: Final = 40
"""Symbolic links that may be on the way to one member."""

_Origin = tuple[int, int]
"""Which member of which layer."""


class _Node:
    """One path of the image. A directory has *children*, and no *item* if nothing is said of it."""

    __slots__ = ("children", "item", "origin")

    def __init__(self, item: Item | None, origin: _Origin, children: dict[str, _Node] | None) -> None:
        self.item, self.origin, self.children = item, origin, children


class Layers:
    """The tree of an image. Members are remembered without their contents."""

    def __init__(self) -> None:
        self._root = _Node(None, (-1, -1), {})
        self._number = 0
        self._paths: dict[_Origin, list[str]] | None = None

    def apply(self, items: Iterable[Item | Whiteout]) -> None:
        """Put the next layer over those so far. Raises :exc:`BadImage`."""
        members: list[tuple[int, Item]] = []
        for ordinal, item in enumerate(items):
            if isinstance(item, Whiteout):
                self._hide(item)
            else:
                members.append((ordinal, item._replace(content=None)))
        for ordinal, item in members:
            self._put(item, (self._number, ordinal))
        self._number += 1

    def _hide(self, item: Whiteout) -> None:
        if item.opaque:
            node = self._find(item.path)
            if node is not None and node.children is not None:
                node.children.clear()
            return
        parent, _, name = item.path.rpartition("/")
        node = self._find(parent)
        if node is not None and node.children is not None:
            node.children.pop(name, None)

    def _put(self, item: Item, origin: _Origin) -> None:
        if not item.path:
            if not item.is_directory:
                raise BadImage("the top of a layer is not a directory")
            self._root.item = item
            return
        parent, _, name = item.path.rpartition("/")
        siblings = self._directory(parent)
        old = siblings.get(name)
        if item.is_directory:
            if old is not None and old.children is not None:
                old.item, old.origin = item, origin
            else:
                siblings[name] = _Node(item, origin, {})
        elif item.link is not None:
            target = self._find(item.link)
            if target is None or target.children is not None:
                raise BadImage(f"{item.path} is a hard link to {item.link}, which is not a file of the image")
            siblings[name] = _Node(target.item, target.origin, None)
        else:
            siblings[name] = _Node(item, origin, None)

    # -- the way to a path

    def _directory(self, path: str) -> dict[str, _Node]:
        """What is in the directory at *path*, which is made if it is not there."""
        node = self._walk(path, make=True)
        if node is None or node.children is None:
            raise BadImage(f"{path} is not a directory, so nothing can be in it")
        return node.children

    def _find(self, path: str) -> _Node | None:
        """What is at *path*; symbolic links on the way, but not at its end, are followed."""
        parent, _, name = path.rpartition("/")
        if not name:
            return self._root
        node = self._walk(parent, make=False)
        return None if node is None or node.children is None else node.children.get(name)

    def _walk(self, path: str, *, make: bool) -> _Node | None:
        ahead = [part for part in reversed(path.split("/")) if part]
        way = [self._root]
        links = 0
        while ahead:
            part = ahead.pop()
            if part == ".":
                continue
            if part == "..":
                if len(way) > 1:
                    way.pop()
                continue
            children = way[-1].children
            if children is None:
                return None
            node = children.get(part)
            if node is None:
                if not make:
                    return None
                node = children[part] = _Node(None, (-1, -1), {})
            if node.item is not None and stat.S_ISLNK(node.item.mode):
                links += 1
                if links > _MAX_LINKS:
                    raise BadImage(f"too many symbolic links on the way to {path}")
                target = node.item.symlink
                if target.startswith("/"):
                    way = [self._root]
                ahead += [part for part in reversed(target.split("/")) if part]
                continue
            way.append(node)
        return way[-1]

    # -- the result

    def _seen(self) -> dict[_Origin, list[str]]:
        """The paths at which each member is seen, in the end."""
        if self._paths is None:
            self._paths = {}
            for path, node in self._all():
                if node.children is None:
                    self._paths.setdefault(node.origin, []).append(path)
        return self._paths

    def _all(self) -> Iterator[tuple[str, _Node]]:
        pending = [("", self._root)]
        while pending:
            path, node = pending.pop()
            yield path, node
            pending += [(f"{path}/{name}", child) for name, child in (node.children or {}).items()]

    def directories(self) -> Iterator[Item]:
        """The directories of which something is said."""
        for path, node in self._all():
            if node.children is not None and node.item is not None:
                yield node.item._replace(path=path)

    def has_files(self, number: int) -> bool:
        """Whether anything of that layer, from 0, is seen but directories."""
        return any(layer == number for layer, _ in self._seen())

    def files(self, number: int, items: Iterable[Item | Whiteout]) -> Iterator[Item]:
        """What is seen of that layer but directories, read once more from *items*."""
        seen = self._seen()
        for ordinal, item in enumerate(items):
            paths = seen.get((number, ordinal))
            if paths and isinstance(item, Item):
                yield item._replace(path=paths[0], link=None)
                for path in paths[1:]:
                    yield item._replace(path=path, link=paths[0], content=None)
