"""A directory of the local disk as a source."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from cvmfs_gw.ingest.items import MAX_XATTR, XATTR_PREFIXES, Item, LocalFile, Whiteout
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
        top = os.path.realpath(self._directory)
        status = os.stat(top)
        yield self._item("", top, status)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(f"{os.fsdecode(self._directory)} is no directory")
        pending = [("", top)]
        while pending:
            path, local = pending.pop()
            with os.scandir(local) as listing:
                children = sorted(listing, key=lambda child: child.name)
            for child in children:
                status = child.stat(follow_symlinks=False)
                if stat.S_ISSOCK(status.st_mode):
                    continue
                below = f"{path}/{to_str(child.name)}"
                if stat.S_ISDIR(status.st_mode):
                    pending.append((below, child.path))
                yield self._item(below, child.path, status)

    def _item(self, path: str, local: bytes, status: os.stat_result) -> Item:
        mode, link = status.st_mode, None
        if status.st_nlink > 1 and not stat.S_ISDIR(mode):
            first = self._linked.setdefault((status.st_dev, status.st_ino), path)
            link = None if first == path else first
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
