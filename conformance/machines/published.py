"""A published tree as its catalogs and objects have it, to be compared with what a mount shows or a model says."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import replace

from conformance.entry import LINK, SPECIAL, Entry, xattrs
from conformance.machines.snapshot import Node, Tree
from conformance.outcomes import Failed, expect
from conformance.repository import Repository


class Published:
    """Reads what is at and below *base* (``""`` or ``/a/b``) in revisions of a repository; remembers file contents."""

    def __init__(self, repository: Repository, base: str = "") -> None:
        self._repository, self._base = repository, base
        self._hashes: dict[Entry, str] = {}

    def read(self, root: str | None = None) -> tuple[Tree, set[str]]:
        """A revision (the present one by default), and where nested catalogs begin in it; paths are below the base."""
        tree: Tree = {}
        nested: set[str] = set()
        for place, entry in self._repository.tree(root).walk(self._base):
            path = place[len(self._base) + 1 :]
            expect(path not in tree, f"{place} is in two catalogs")
            tree[path] = self._node(entry)
            if entry.is_nested_root and path:
                nested.add(path)
        if not tree:
            raise Failed(f"{self._base} is not there")
        tree[""] = Node(stat.S_IFDIR | 0o755, None, None, None)
        return tree, nested

    def previous_root(self) -> str:
        """The root catalog that the present one has taken the place of."""
        return self._repository.tree().catalog().property("previous_revision") or ""

    def _node(self, entry: Entry) -> Node:
        mtime = entry.mtime * 10**9 + max(entry.mtimens or 0, 0)
        node = Node(entry.mode, entry.uid, entry.gid, mtime)
        if entry.flags & LINK:
            return replace(node, target=entry.symlink)
        of_users = {name: value for name, value in xattrs(entry.xattr).items() if name.startswith("user.")}
        node = replace(node, xattrs=tuple(sorted(of_users.items())))
        if entry.is_directory:
            return node
        if entry.flags & SPECIAL:
            return replace(node, device=entry.size)
        return replace(node, size=entry.size, sha1=self._sha1(entry))

    def _sha1(self, entry: Entry) -> str:
        which = Entry(0, entry.size, hash=entry.hash, chunks=entry.chunks, flags=entry.flags)
        if which not in self._hashes:
            data = self._repository.content(entry)
            expect(len(data) == entry.size, f"a file of {len(data)} bytes whose size is said to be {entry.size}")
            self._hashes[which] = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        return self._hashes[which]
