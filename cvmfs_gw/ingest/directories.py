"""The directories of a source that is being read, of which not all files are in memory.

What comes from a source is put into one directory after the other. When many files are at hand, those of directories
that nothing was put into for long are written to a file; they come back if anything is asked of them. So the memory
that a source takes is bounded by the number of its directories, and by its largest directory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cvmfs_gw.ingest.errors import BadSource, SourceTooLarge
from cvmfs_gw.ingest.nodes import Node, Rest
from cvmfs_gw.ingest.spill import SpillFile, can_spill, spill
from cvmfs_objstore.formats.database import to_bytes
from cvmfs_objstore.formats.entry import is_below

NAME_MAX: Final = 255
"""Most bytes of a name."""
PATH_MAX: Final = 4095
"""Most bytes of a path within a source."""


class Directories:
    """All directories below *root*, by path.

    *most* files are at hand; the others are in *folder* (None: the system's folder for temporary files). *settle* is
    called before any are written: their contents must be stored then.
    """

    def __init__(self, most: int, folder: str | None, settle: Callable[[], object]) -> None:
        self._most, self._folder, self._settle = most, folder, settle
        self._children: dict[str, dict[str, Node]] = {"": {}}
        self.root = Node(children=self._children[""])
        self._kept: dict[str, Node] = {}
        """Those in which nothing but directories is at hand, and all the rest has not changed."""
        self._written: dict[str, Node] = {}
        """Those whose files are in the file."""
        self._recent: dict[str, Node] = {}
        """Those that files were put into, in the order in which they last were."""
        self._current: tuple[str, dict[str, Node]] | None = None
        self._file: SpillFile | None = None
        self._at_hand, self._full = 0, most

    def at(self, path: str) -> Node | None:
        """What is at *path*."""
        parent, _, name = path.rpartition("/")
        children = self._children.get(parent)
        if children is None:
            return None
        if name not in children:
            self._load(parent)
        return children.get(name)

    def into(self, path: str) -> dict[str, Node]:
        """All children of the directory *path*, which files are put into; see :meth:`make`."""
        if self._current is not None and self._current[0] == path:
            return self._current[1]
        children = self._children.get(path)
        if children is None:
            children = self.make(path)
        self._load(path)
        node = self._recent.pop(path, None) or (self.at(path) if path else self.root)
        assert node is not None
        self._recent[path] = node
        self._current = path, children
        return children

    def added(self) -> None:
        """A file was put into the directory that :meth:`into` was asked for last."""
        self._at_hand += 1
        if self._at_hand > self._full:
            self._write()

    def parent_of(self, path: str) -> dict[str, Node]:
        """The children of the directory that *path* is in, as far as they matter to a directory there."""
        parent, _, name = path.rpartition("/")
        children = self._children.get(parent)
        if children is None:
            missing = [parent]  # not recursive: a path may have two thousand directories
            while (above := missing[-1].rpartition("/")[0]) not in self._children:
                missing.append(above)
            for directory in reversed(missing):
                children = self.make(directory)
            assert children is not None
        if parent in self._written and name not in children:
            self._load(parent)
        return children

    def make(self, path: str) -> dict[str, Node]:
        """The children of the directory *path*, of which nothing was said so far.

        Raises :exc:`BadSource` where it is no directory, and :exc:`SourceTooLarge`.
        """
        siblings = self.parent_of(path)
        name = path.rpartition("/")[2]
        old = siblings.get(name)
        if old is not None and not old.is_gone:
            # also for what lies behind a symbolic link: nobody but the link's owner says where that is
            raise BadSource(f"{path} is not a directory, so nothing can be in it")
        check_name(path, name)
        return self.put(path, siblings, Node(children={}, opaque=old is not None))

    def put(self, path: str, siblings: dict[str, Node], directory: Node) -> dict[str, Node]:
        """Let there be a new *directory* at *path*; returns its children."""
        children = directory.at_hand
        assert children is not None
        siblings[path.rpartition("/")[2]] = directory
        self._children[path] = children
        return children

    def keep(self, path: str, rest: Rest) -> None:
        """Take *rest* for all that is in the directory *path* and no directory."""
        node = self.at(path) if path else self.root
        assert node is not None
        node.rest = rest
        self._kept[path] = node

    def drop(self, path: str) -> None:
        """Forget a directory."""
        del self._children[path]
        for known in (self._kept, self._written, self._recent):
            known.pop(path, None)
        if self._current is not None and self._current[0] == path:
            self._current = None

    def drop_below(self, path: str) -> None:
        """Forget the directories at and below *path*."""
        for known in [known for known in self._children if is_below(known, path)]:
            self.drop(known)

    def _load(self, path: str) -> None:
        """Have all children of a directory at hand."""
        node = self._written.pop(path, None) or self._kept.pop(path, None)
        if node is not None:
            before = len(self._children[path])
            assert node.children is self._children[path]
            self._at_hand += len(self._children[path]) - before

    def _write(self) -> None:
        """Write files of directories that nothing was put into for long, until half of the room is free."""
        self._settle()
        if self._file is None:
            self._file = SpillFile(self._folder)
        for path in list(self._recent)[:-1]:
            node, children = self._recent.pop(path), self._children[path]
            files = {name: child for name, child in children.items() if can_spill(child)}
            if files:
                for name in files:
                    del children[name]
                node.rest = spill(self._file, path, files)
                self._written[path] = node
                self._at_hand -= len(files)
            if self._at_hand <= self._most // 2:
                break
        self._full = max(self._most, self._at_hand + self._most // 2)


def check_name(path: str, name: str) -> None:
    """Raises :exc:`BadSource` and :exc:`SourceTooLarge` for what can be no name, or no path."""
    if len(name) * 4 > NAME_MAX and len(to_bytes(name)) > NAME_MAX:
        raise SourceTooLarge(f"a name of more than {NAME_MAX} bytes: {path[:100]}...")
    if len(path) * 4 > PATH_MAX and len(to_bytes(path)) > PATH_MAX:
        raise SourceTooLarge(f"a path of more than {PATH_MAX} bytes: {path[:100]}...")
    if name in ("", ".", "..") or "\0" in name:
        raise BadSource(f"not a name: {path[:100]!r}")
