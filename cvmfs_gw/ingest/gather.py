"""A source read to its end: its tree in memory, the contents of its files stored."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from cvmfs_gw.ingest.contents import Contents, StoredContent
from cvmfs_gw.ingest.directories import Directories, check_name
from cvmfs_gw.ingest.directory import DirectorySource
from cvmfs_gw.ingest.errors import BadSource, SourceTooLarge
from cvmfs_gw.ingest.items import Item, Listing, Source, Unchanged, Whiteout
from cvmfs_gw.ingest.nodes import Node, Rest
from cvmfs_objstore.formats.entry import STORAGE_FLAGS, Chunks, Entry, Kind


class Devices(Enum):
    """What becomes of device files. FIFOs are none."""

    KEEP = "keep"
    SKIP = "skip"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class GatherOptions:
    """What a source may hold; sizes in bytes."""

    devices: Devices = Devices.KEEP
    max_file_size: int = 1 << 40
    max_entries: int = 100_000_000
    at_hand: int = 1 << 16
    """Files of which all is in memory; those of directories that are done go to a file."""
    spill_folder: str | None = None
    """Where that is; None: the system's folder for temporary files."""


class Existing(Protocol):
    """What is now where a source is to go, by the source's paths."""

    def ready(self) -> bool:
        """Whether the following can be answered at once."""

    def get(self, path: str) -> Entry | None:
        """The entry at *path*."""

    def chunks(self, path: str) -> Chunks:
        """The chunks of the file at *path*."""

    def listing(self, directory: str) -> Listing | None:
        """What is in *directory* and no directory itself; None for nothing."""

    def kept(self, directory: str) -> Rest:
        """The files of a *directory* in which nothing has changed."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """A source's tree. *files* and *bytes* count what was read of it, *unchanged* the files that were not read."""

    root: Node
    entries: int
    files: int
    unchanged: int
    bytes: int


def gather(
    source: Source,
    contents: Contents,
    options: GatherOptions | None = None,
    *,
    existing: Existing | None = None,
    progress: Callable[[str, int], None] = lambda path, size: None,
) -> Gathered:
    """Read *source* and store its contents.

    With *existing*, files that have not changed are not read (if the source says that their times can be trusted), and
    objects that are there are not stored again. *progress* is told path and size of each file that is read. Raises
    :exc:`IngestError` and ``OSError``; what was stored then stays where it is.
    """
    reader = _Reader(source.trust_times, contents, options or GatherOptions(), existing, progress)
    if existing is not None and isinstance(source, DirectorySource):
        for found in source.changed(existing.listing, reader.largest, existing.ready):
            if isinstance(found, Unchanged):
                reader.keep(found, existing.kept(found.path))
            else:
                reader.take(found)
    else:
        for item in source.items():
            reader.take(item)
    contents.finish()
    return reader.result()


class _Reader:
    def __init__(
        self,
        trust_times: bool,
        contents: Contents,
        options: GatherOptions,
        existing: Existing | None,
        progress: Callable[[str, int], None],
    ) -> None:
        self._trust_times, self._contents, self._options = trust_times, contents, options
        self._existing, self._progress = existing, progress
        self.largest = options.max_file_size
        self._directories = Directories(options.at_hand, options.spill_folder, contents.finish)
        self._late: list[tuple[Node, Item]] = []
        self._waiting: set[int] = set()
        self._entries = self._files = self._unchanged = self._bytes = 0

    def take(self, item: Item | Whiteout) -> None:
        path = item.path
        if isinstance(item, Whiteout):
            self._white_out(item)
            return
        self._count(1)
        mode = item.mode
        if stat.S_ISDIR(mode):
            self._directory(item)
            return
        if not path:
            raise BadSource("the top of a source is a directory")
        if not stat.S_ISREG(mode) and not self._wants(item):
            return
        parent, _, name = path.rpartition("/")
        siblings = self._directories.into(parent)
        old = siblings.get(name)
        if old is None:
            check_name(path, name)
            self._directories.added()
        elif old.is_directory:
            if old.look():
                raise BadSource(f"{path} is a directory that is not empty, and then something else")
            self._directories.drop(path)
        if item.link is not None:
            node = siblings[name] = Node(item)
            self._link(node, item)
            return
        if stat.S_ISREG(mode):
            stored = self._content(item)
            siblings[name] = Node(item._replace(content=None), stored)
        else:
            siblings[name] = Node(item)

    def keep(self, found: Unchanged, rest: Rest) -> None:
        """Take what has not changed as it is: *rest*. Nothing but directories may follow in the same place."""
        self._count(found.entries)
        self._unchanged += found.files
        self._directories.keep(found.path, rest)

    def _count(self, entries: int) -> None:
        self._entries += entries
        if self._entries > self._options.max_entries:
            raise SourceTooLarge(f"more than {self._options.max_entries} entries")

    def _wants(self, item: Item) -> bool:
        mode = item.mode
        if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) or self._options.devices is Devices.KEEP:
            return True
        if self._options.devices is Devices.REFUSE:
            raise BadSource(f"{item.path} is a device")
        return False

    # -- directories

    def _directory(self, item: Item) -> None:
        path = item.path
        if not path:
            self._directories.root.item = item
            return
        siblings = self._directories.parent_of(path)
        name = path.rpartition("/")[2]
        old = siblings.get(name)
        if old is not None and old.is_directory:
            old.item = item
            return
        check_name(path, name)
        # what took the place of something else must not show what was behind that
        self._directories.put(path, siblings, Node(item, children={}, opaque=old is not None))

    # -- whiteouts, which hide what is below the source, and nothing of the source itself

    def _white_out(self, item: Whiteout) -> None:
        path = item.path
        directories = self._directories
        if not path:
            directories.root.opaque |= item.opaque
            return
        if self._is_hidden(path):
            return
        node = directories.at(path)
        if node is None and item.opaque:
            directories.make(path)
            node = directories.at(path)
        if node is None or (not item.opaque and node.holds_nothing):
            directories.parent_of(path)[path.rpartition("/")[2]] = Node()
            directories.drop_below(path)
        elif node.is_directory:
            node.opaque = True

    def _is_hidden(self, path: str) -> bool:
        """Whether *path*, or a directory above it, is to be gone already."""
        while path:
            node = self._directories.at(path)
            if node is not None:
                return node.is_gone
            path = path.rpartition("/")[0]
        return False

    # -- files

    def _link(self, node: Node, item: Item) -> None:
        target = self._directories.at(item.link or "")
        if target is None or target is node or id(target) in self._waiting:
            self._late.append((node, item))
            self._waiting.add(id(node))
            return
        self._join(node, target, item)

    def _join(self, node: Node, target: Node, item: Item) -> None:
        if target.is_directory or target.item is None:
            raise BadSource(f"{item.path} is a hard link to {item.link}, which is not a file")
        if target.group is None:
            target.group = object()
        node.item, node.stored, node.group = target.item, target.stored, target.group

    def _content(self, item: Item) -> StoredContent:
        size, content, limit = item.size, item.content, self._options.max_file_size
        if content is None:
            raise BadSource(f"{item.path} is a file without content")
        if size > limit:
            raise SourceTooLarge(f"{item.path} has {size} bytes, more than the {limit} that are allowed")
        known: frozenset[str] = frozenset()
        old = self._existing.get(item.path) if self._existing else None
        if old is not None and old.kind is Kind.FILE and old.size == size:
            assert self._existing is not None
            chunks = self._existing.chunks(item.path) if old.is_chunked else ()
            if self._trust_times and not old.is_external and _same_time(old, item.mtime):
                self._unchanged += 1
                return StoredContent(size, old.flags & STORAGE_FLAGS, old.hash, chunks)
            known = _object_paths(old, chunks)
        if size < 0:
            # Nobody knows: one byte over the limit tells that it is over.
            stored = self._contents.add(content, limit + 1, known)
            size = stored.size
            if size > limit:
                raise SourceTooLarge(f"{item.path} has more than the {limit} bytes that are allowed")
        else:
            stored = self._contents.add(content, size, known)
        self._files += 1
        self._bytes += size
        self._progress(item.path, size)
        return stored

    def result(self) -> Gathered:
        late, waiting = self._late, self._waiting
        while late:
            # links to what came later, and links to links
            still: list[tuple[Node, Item]] = []
            for node, item in late:
                target = self._directories.at(item.link or "")
                if target is None:
                    raise BadSource(f"{item.path} is a hard link to {item.link}, which is not there")
                if id(target) in waiting:
                    still.append((node, item))
                    continue
                self._join(node, target, item)
                waiting.discard(id(node))
            if len(still) == len(late):
                raise BadSource(f"{late[0][1].path} is a hard link to itself")
            late = still
        return Gathered(self._directories.root, self._entries, self._files, self._unchanged, self._bytes)


def _same_time(old: Entry, mtime: int) -> bool:
    # Where the repository has no fractions of seconds, whole ones have to do.
    return divmod(mtime, 10**9) == (old.mtime, mtime % 10**9 if old.mtimens is None else old.mtimens)


def _object_paths(entry: Entry, chunks: Chunks) -> frozenset[str]:
    paths = {entry.chunk_hash(chunk).path for chunk in chunks}
    if entry.content_hash is not None:
        paths.add(entry.content_hash.path)
    return frozenset(paths)
