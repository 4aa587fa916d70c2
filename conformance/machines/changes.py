"""Random changes of a tree.

They are made on the model first, and carried out in a publisher's directory afterwards (:mod:`.carrying`), so that
nothing in the model is owed to what is tried.
"""

from __future__ import annotations

import hashlib
import os
import random
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from conformance.machines import content
from conformance.machines.snapshot import Node, Tree
from conformance.machines.trees import MARKER, below, folders, inside, parent

NAMES: Final = ("a", "b", "c", "d", "a-b", "a.b", "with space", "ä", "\udcff\udcfe", ".hidden", "'quoted\"")
LEASED_NAMES: Final = ("a", "b", "c", "d", "a-b", "a.b")
"""What a lease may be taken on: names that the publishers' own shell code and the gateway's API can carry."""
MOST: Final = 160
"""How many entries a tree may have before more goes than comes."""
DEEPEST: Final = 6
CHUNKED_FROM: Final = 40_000
"""Files larger than this are long enough for several chunks, with the settings below."""
SETTINGS: Final = (
    "CVMFS_ENABLE_MTIME_NS=true\n"
    "CVMFS_USE_FILE_CHUNKING=true\n"
    "CVMFS_MIN_CHUNK_SIZE=8000\nCVMFS_AVG_CHUNK_SIZE=16000\nCVMFS_MAX_CHUNK_SIZE=32000\n"
)


@dataclass
class Maker:
    """Makes entries and changes at random."""

    random: random.Random
    contents: dict[str, bytes]
    """All file contents that were ever made, by SHA-1."""
    whole_seconds: bool = False
    """Times without nanoseconds, which archives do not keep."""
    plain: bool = False
    """Only what the merge of release 2.12 passes on."""

    # -- entries

    def moment(self) -> int:
        seconds = content.EPOCH + self.random.randrange(100_000_000)
        return seconds * 10**9 + (0 if self.whole_seconds else self.random.randrange(1, 10**9))

    def owner(self) -> int:
        return self.random.choice((0, 0, 0, 1234, 4_000_000))

    def xattrs(self) -> tuple[tuple[str, bytes], ...]:
        if self.random.random() < 0.8:
            return ()
        names = self.random.sample(("user.a", "user.b", "user.colour"), self.random.randint(1, 2))
        return tuple(sorted((name, self.random.randbytes(self.random.randint(1, 60))) for name in names))

    def node(self, mode: int) -> Node:
        return Node(mode, self.owner(), self.owner(), self.moment())

    def directory(self) -> Node:
        mode = stat.S_IFDIR | self.random.choice((0o755, 0o755, 0o700, 0o1777, 0o2775))
        return replace(self.node(mode), xattrs=self.xattrs())

    def file(self, size: int | None = None) -> Node:
        if size is None:
            size = self.random.choice((0, 1, 20, 300, 5000, self.random.randrange(CHUNKED_FROM, 120_000)))
        data = self.random.randbytes(size) if self.random.random() < 0.5 else bytes((self.random.randrange(4),)) * size
        sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        self.contents[sha1] = data
        mode = stat.S_IFREG | self.random.choice((0o644, 0o644, 0o755, 0o600, 0o4755))
        return replace(self.node(mode), size=size, sha1=sha1, xattrs=self.xattrs())

    def symlink(self) -> Node:
        target = self.random.choice(("a", "../b", "/etc/passwd", "no where", "ä", "\udcff", "x" * 250))
        return replace(self.node(stat.S_IFLNK | 0o777), target=target)

    def special(self) -> Node:
        kind = self.random.choice((stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK))
        device = os.makedev(self.random.randint(1, 9), self.random.randint(1, 300))
        device = device if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
        return replace(self.node(kind | self.random.choice((0o644, 0o600))), device=device)

    def leaf(self) -> Node:
        if self.plain:
            return self.random.choice((self.file, self.file, self.symlink))()
        return self.random.choice((self.file, self.file, self.file, self.symlink, self.special))()

    # -- changes

    def edited(self, tree: Tree, scope: str, most: int = 6) -> Tree:
        """*tree* after some changes at or below *scope*; always one that differs."""
        out = dict(tree)
        while out == tree or (self.plain and _replaces(tree, out)):
            out = dict(tree)
            for _ in range(self.random.randint(1, most)):
                self._edit(out, scope)
        return out

    def _edit(self, tree: Tree, scope: str) -> None:
        if scope and scope not in tree:
            self._plant(tree, scope)
            return
        known = [path for path in tree if path and inside(path, scope)]
        places = [path for path in folders(tree, scope) if path.count("/") < DEEPEST]
        actions: list[tuple[int, Callable[[], None]]] = []
        if known:
            removals = 4 if len(tree) < MOST else 40
            actions.append((removals, lambda: self._remove(tree, self.random.choice(known))))
            actions.append((4, lambda: self._touch(tree, self.random.choice(known))))
            actions.append((3, lambda: self._replace(tree, self.random.choice(known))))
        if places:
            spot = self._spot(places)
            actions.append((8, lambda: self._plant(tree, spot)))
            actions.append((4, lambda: self._mark(tree, self.random.choice(places))))
            actions.append((2, lambda: self._copy(tree, self.random.choice(known or [""]), spot)))
            if not self.plain:
                actions.append((1, lambda: self._twin(tree, spot)))
        weights = [weight for weight, _ in actions]
        self.random.choices(actions, weights)[0][1]()

    def _spot(self, places: list[str]) -> str:
        return f"{self.random.choice(places)}/{self.random.choice(NAMES)}".lstrip("/")

    def _changed(self, tree: Tree, folder: str) -> None:
        """The directory's own time may change with its content."""
        if folder and folder in tree and self.random.random() < 0.5:
            tree[folder] = replace(tree[folder], mtime=self.moment())

    def _plant(self, tree: Tree, path: str) -> None:
        """Something new at *path*, in place of what is there."""
        if self.plain and path in tree:
            self._touch(tree, path)
            return
        self._remove(tree, path)
        if self.random.random() < 0.5 or path.count("/") >= DEEPEST:
            tree[path] = self.leaf()
        else:
            tree[path] = self.directory()
            for name in self.random.sample(NAMES, self.random.randint(0, 3)):
                below = f"{path}/{name}"
                tree[below] = self.leaf() if self.random.random() < 0.7 else self.directory()
            if self.random.random() < 0.4:
                tree[f"{path}/{MARKER}"] = self.file(0)
        self._changed(tree, parent(path))

    def _replace(self, tree: Tree, path: str) -> None:
        if path.rpartition("/")[2] != MARKER:
            self._plant(tree, path)

    def _remove(self, tree: Tree, path: str) -> None:
        for gone in [*below(tree, path), path]:
            tree.pop(gone, None)
        self._changed(tree, parent(path))

    def _touch(self, tree: Tree, path: str) -> None:
        """Other attributes, or other content."""
        node = tree[path]
        what = self.random.choice((0, 1, 4)) if self.plain else self.random.randrange(5)
        if what == 0 and node.sha1 is not None and path.rpartition("/")[2] != MARKER:
            tree[path] = self.file()
        elif what == 1 and not stat.S_ISLNK(node.mode):
            tree[path] = replace(node, mode=stat.S_IFMT(node.mode) | self.random.choice((0o755, 0o640, 0o700)))
        elif what == 2:
            tree[path] = replace(node, uid=self.owner(), gid=self.owner())
        elif what == 3 and (node.is_directory or node.sha1 is not None):
            tree[path] = replace(node, xattrs=self.xattrs())
        else:
            tree[path] = replace(node, mtime=self.moment())

    def _mark(self, tree: Tree, folder: str) -> None:
        """Make the directory a nested catalog, or one no longer."""
        if not folder:
            return
        marker = f"{folder}/{MARKER}"
        if tree.pop(marker, None) is None:
            tree[marker] = self.file(0)
        self._changed(tree, folder)

    def _copy(self, tree: Tree, old: str, new: str) -> None:
        """Copy or move what is at *old*, all of it, to *new*."""
        if not old or inside(new, old) or inside(old, new) or (self.plain and new in tree):
            return
        taken = {path: tree[path] for path in [old, *below(tree, old)]}
        if max(path.count("/") for path in taken) - old.count("/") + new.count("/") > DEEPEST:
            return
        self._remove(tree, new)
        tree.update({f"{new}{path[len(old) :]}": node for path, node in taken.items()})
        if self.random.random() < 0.6:
            self._remove(tree, old)

    def _twin(self, tree: Tree, path: str) -> None:
        """Two names of one file. With overlayfs, and from archives, each becomes a file of its own."""
        twin = f"{path}-twin"
        if twin not in tree:
            self._remove(tree, path)
            tree[path] = tree[twin] = self.file()


def _replaces(old: Tree, new: Tree) -> bool:
    """Whether something becomes an entry of another kind."""
    return any(stat.S_IFMT(old[path].mode) != stat.S_IFMT(new[path].mode) for path in old.keys() & new.keys())
