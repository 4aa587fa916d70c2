"""A directory of the local disk as a source."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cvmfs_gw.ingest.items import (
    MAX_XATTR,
    XATTR_PREFIXES,
    Item,
    Listing,
    LocalFile,
    Status,
    Unchanged,
    Whiteout,
)
from cvmfs_objstore.formats.database import to_str
from cvmfs_objstore.formats.entry import pack_xattrs

_AHEAD: Final = 1 << 15
"""Entries that are listed before they are asked for; each takes some 600 bytes of memory."""


_Child = tuple[bytes, bytes, os.stat_result, "bytes | None"]
"""What is found in a directory: name, path on the local disk, status, extended attributes."""


class DirectorySource:
    """What is in *directory*, which is followed if it is a symbolic link; nothing below it is.

    *xattrs* are the beginnings of the names of extended attributes to take along. Sockets are left out.
    """

    trust_times = True

    def __init__(self, directory: str, *, xattrs: tuple[str, ...] = XATTR_PREFIXES) -> None:
        self._directory = os.fsencode(directory)
        self._xattrs = xattrs
        self._linked: dict[tuple[int, int], str] = {}

    def items(self) -> Iterator[Item | Whiteout]:
        """The directory itself, and everything in it, directories first. Raises ``OSError``."""
        for item in self._walk(lambda path: None, 0, lambda: True):
            assert not isinstance(item, Unchanged)
            yield item

    def changed(
        self, there: Callable[[str], Listing | None], largest: int, ready: Callable[[], bool] = lambda: True
    ) -> Iterator[Item | Whiteout | Unchanged]:
        """Likewise, but files that are *there* already are left out where that is all that is in their directory.

        Files of more than *largest* bytes never are. While it would take time to ask what is *there*, as *ready* says,
        the next directories are listed. Raises ``OSError``.
        """
        return self._walk(there, largest, ready)

    def _walk(
        self, there: Callable[[str], Listing | None], largest: int, ready: Callable[[], bool]
    ) -> Iterator[Item | Whiteout | Unchanged]:
        top = os.path.realpath(self._directory)
        status = os.stat(top)
        yield self._item("", (b"", top, status, self._attributes(top)))
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(f"{os.fsdecode(self._directory)} is not a directory")
        for path, children in _ahead(self._listings(top), ready):
            known = there(path)
            if known is not None:
                found = self._statuses(path, children, largest)
                if found is not None and known.holds(found):
                    yield Unchanged(path, len(found), sum(stat.S_ISREG(status[1]) for status in found))
                    children = [child for child in children if stat.S_ISDIR(child[2].st_mode)]
            for child in children:
                if not stat.S_ISSOCK(child[2].st_mode):
                    yield self._item(f"{path}/{to_str(child[0])}", child)

    def _listings(self, top: bytes) -> Iterator[tuple[str, list[_Child]]]:
        """What is in each directory, in the order of names; a directory comes after the one that it is in."""
        pending = [("", top)]
        attributes = self._attributes
        while pending:
            path, local = pending.pop()
            with os.scandir(local) as listing:
                children = [
                    (child.name, child.path, child.stat(follow_symlinks=False), attributes(child.path))
                    for child in listing
                ]
            children.sort()  # no two names are the same
            for name, full, status, _ in children:
                if stat.S_ISDIR(status.st_mode):
                    pending.append((f"{path}/{to_str(name)}", full))
            yield path, children

    def _statuses(self, path: str, children: Sequence[_Child], largest: int) -> list[Status] | None:
        """What is in the directory *path* and no directory; None if any of it is for others to judge."""
        found: list[Status] = []
        for name, full, status, xattrs in children:
            mode, size, target = status.st_mode, status.st_size, b""
            kind = stat.S_IFMT(mode)
            if kind == stat.S_IFDIR or kind == stat.S_IFSOCK:
                continue
            if kind == stat.S_IFLNK:
                target = os.readlink(full)
                size = len(target)
            elif kind != stat.S_IFREG or size > largest:
                return None
            if status.st_nlink > 1 and self._first_name(f"{path}/{to_str(name)}", status) is not None:
                return None
            found.append((name, mode, status.st_uid, status.st_gid, status.st_mtime_ns, size, target, xattrs))
        return found

    def _first_name(self, path: str, status: os.stat_result) -> str | None:
        """The name that a file was found by before; None for the first time."""
        first = self._linked.setdefault((status.st_dev, status.st_ino), path)
        return None if first == path else first

    def _item(self, path: str, child: _Child) -> Item:
        _, local, status, xattrs = child
        mode, link = status.st_mode, None
        if status.st_nlink > 1 and not stat.S_ISDIR(mode):
            link = self._first_name(path, status)
        is_file = stat.S_ISREG(mode)
        return Item(
            path,
            mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_size if is_file else 0,
            LocalFile(os.fsdecode(local)) if is_file and link is None else None,
            to_str(os.readlink(local)) if stat.S_ISLNK(mode) else "",
            status.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0,
            xattrs,
            link,
        )

    def _attributes(self, local: bytes) -> bytes | None:
        """The extended attributes to take along."""
        if not self._xattrs:
            return None
        try:
            names = os.listxattr(local, follow_symlinks=False)
        except OSError:
            return None  # the file system has none
        if not names:
            return None
        wanted = {n: os.getxattr(local, n, follow_symlinks=False) for n in names if n.startswith(self._xattrs)}
        return pack_xattrs({name: value for name, value in wanted.items() if max(len(name), len(value)) <= MAX_XATTR})


def _ahead(
    listings: Iterator[tuple[str, list[_Child]]], ready: Callable[[], bool]
) -> Iterator[tuple[str, list[_Child]]]:
    """The same listings, some of them made before they are asked for while not all is *ready*."""
    waiting: deque[tuple[str, list[_Child]]] = deque()
    entries = 0
    while entries < _AHEAD and not ready() and (listing := next(listings, None)) is not None:
        waiting.append(listing)
        entries += len(listing[1])
    while waiting:
        yield waiting.popleft()
    yield from listings
