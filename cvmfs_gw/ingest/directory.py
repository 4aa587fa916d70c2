"""A directory of the local disk as a source."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence

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
        for item in self._walk(lambda path: None, 0):
            assert not isinstance(item, Unchanged)
            yield item

    def changed(self, there: Callable[[str], Listing | None], largest: int) -> Iterator[Item | Whiteout | Unchanged]:
        """Likewise, but files that are *there* already are left out where that is all that is in their directory.

        Files of more than *largest* bytes never are. Raises ``OSError``.
        """
        return self._walk(there, largest)

    def _walk(self, there: Callable[[str], Listing | None], largest: int) -> Iterator[Item | Whiteout | Unchanged]:
        top = os.path.realpath(self._directory)
        status = os.stat(top)
        yield self._item("", top, status)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(f"{os.fsdecode(self._directory)} is no directory")
        pending = [("", top)]
        while pending:
            path, local = pending.pop()
            with os.scandir(local) as listing:
                children = [(child.name, child.path, child.stat(follow_symlinks=False)) for child in listing]
            children.sort()
            known = there(path)
            if known is not None:
                found = self._statuses(path, children, largest)
                if found is not None and known.holds(found):
                    yield Unchanged(path, len(found), sum(stat.S_ISREG(status[1]) for status in found))
                    children = [child for child in children if stat.S_ISDIR(child[2].st_mode)]
            for name, full, status in children:
                if stat.S_ISSOCK(status.st_mode):
                    continue
                below = f"{path}/{to_str(name)}"
                if stat.S_ISDIR(status.st_mode):
                    pending.append((below, full))
                yield self._item(below, full, status)

    def _statuses(
        self, path: str, children: Sequence[tuple[bytes, bytes, os.stat_result]], largest: int
    ) -> list[Status] | None:
        """What is in the directory *path* and no directory; None if any of it is for others to judge."""
        found: list[Status] = []
        prefixes = self._xattrs
        for name, full, status in children:
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
            xattrs = _xattrs(full, prefixes) if prefixes else None
            found.append((name, mode, status.st_uid, status.st_gid, status.st_mtime_ns, size, target, xattrs))
        return found

    def _first_name(self, path: str, status: os.stat_result) -> str | None:
        """The name that a file was found by before; None for the first time."""
        first = self._linked.setdefault((status.st_dev, status.st_ino), path)
        return None if first == path else first

    def _item(self, path: str, local: bytes, status: os.stat_result) -> Item:
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
            _xattrs(local, self._xattrs) if self._xattrs else None,
            link,
        )


def _xattrs(local: bytes, prefixes: tuple[str, ...]) -> bytes | None:
    try:
        names = os.listxattr(local, follow_symlinks=False)
    except OSError:
        return None  # the file system has none
    if not names:
        return None
    wanted = {name: os.getxattr(local, name, follow_symlinks=False) for name in names if name.startswith(prefixes)}
    return pack_xattrs({name: value for name, value in wanted.items() if max(len(name), len(value)) <= MAX_XATTR})
