"""Which leases a path collides with: a tree of path components for each repository.

Finding collisions costs as many steps as the path has components, however many leases there are, plus one for each
lease found.
"""

from __future__ import annotations

from collections.abc import Iterator

from cvmfs_gw.gateway.leasepath import LeasePath


class _Node:
    __slots__ = ("below", "token")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.token: str | None = None


class LeaseIndex:
    """Tokens by lease path. A path has at most one token. Not thread-safe."""

    __slots__ = ("_roots",)

    def __init__(self) -> None:
        self._roots: dict[str, _Node] = {}

    def add(self, path: LeasePath, token: str) -> None:
        """Put *token* at *path*, which must be free."""
        node = self._roots.setdefault(path.fqrn, _Node())
        for name in path.components:
            node = node.below.setdefault(name, _Node())
        node.token = token

    def remove(self, path: LeasePath) -> None:
        """Free *path* itself; nothing happens if it is free."""
        trail: list[tuple[dict[str, _Node], str]] = []
        below, name = self._roots, path.fqrn
        for component in path.components:
            if name not in below:
                return
            trail.append((below, name))
            below, name = below[name].below, component
        node = below.get(name)
        if node is None:
            return
        node.token = None
        trail.append((below, name))
        for siblings, child in reversed(trail):
            if siblings[child].below or siblings[child].token is not None:
                break
            del siblings[child]

    def overlapping(self, path: LeasePath) -> list[str]:
        """The tokens at *path*, above it and below it."""
        node = self._roots.get(path.fqrn)
        found: list[str] = []
        for name in path.components:
            if node is None:
                return found
            if node.token is not None:
                found.append(node.token)
            node = node.below.get(name)
        if node is not None:
            found.extend(_tokens(node))
        return found

    def within(self, path: LeasePath) -> list[str]:
        """The tokens at *path* and below it."""
        node = self._roots.get(path.fqrn)
        for name in path.components:
            if node is None:
                break
            node = node.below.get(name)
        return [] if node is None else list(_tokens(node))


def _tokens(node: _Node) -> Iterator[str]:
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node.token is not None:
            yield node.token
        waiting.extend(node.below.values())
