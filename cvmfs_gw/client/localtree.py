"""Writes the files of a local tree so that they appear under their names only when they are complete.

A file is unnamed until then, so that nothing is left of it if the process is killed. Where the file system does not
support this, and for links and special files, it has an unguessable temporary name, and while a file is written it is
accessed only by its descriptor. So no entry of a repository can interfere, whatever its name or link target.

Source: open(2), ``O_TMPFILE``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from typing import Final

from cvmfs_gw.client.errors import ClientError
from cvmfs_objstore.formats.entry import Entry, Kind, unpack_xattrs

PREFIX: Final = ".cvmfs-get-"
"""The prefix of the names of incomplete files."""
_PERMISSIONS: Final = 0o777
_UNNAMED: Final = hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd")
_NO_SUCH_FILES: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)


class NewFile:
    """A file that will be at *local*, of *size* bytes, of which several threads write parts."""

    def __init__(self, local: str, size: int) -> None:
        """Raises ``OSError``."""
        self._local = local
        self._fd, self._name = _new(os.path.dirname(local) or ".")
        os.truncate(self._fd, size)

    def at(self, offset: int) -> Writer:
        """What writes from byte *offset* on."""
        return Writer(self._fd, offset)

    def finish(self, entry: Entry, *, owners: bool) -> list[str]:
        """Show it as *entry* says, complete; see :func:`dress`."""
        lost = dress(self._fd, entry, owners=owners)
        if self._name:
            os.replace(self._name, self._local)
        else:
            with replacing(self._local) as name:
                # with a descriptor this is linkat, which follows the link to the open file
                os.link(f"/proc/self/fd/{self._fd}", name, src_dir_fd=self._fd, follow_symlinks=True)
        os.close(self._fd)
        return lost

    def discard(self) -> None:
        """Leave nothing of it."""
        os.close(self._fd)
        if self._name:
            os.unlink(self._name)


def _new(folder: str) -> tuple[int, str]:
    """A new file in *folder*, and its name, if it has one."""
    if _UNNAMED:
        try:
            return os.open(folder, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600), ""
        except OSError as error:
            if error.errno not in _NO_SUCH_FILES:
                raise
    return tempfile.mkstemp(prefix=PREFIX, dir=folder)


class Writer:
    """Writes to a file from a place on."""

    __slots__ = ("_fd", "_offset")

    def __init__(self, fd: int, offset: int) -> None:
        self._fd, self._offset = fd, offset

    def write(self, data: bytes | memoryview, /) -> int:
        """Write all of *data* behind what was written before."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, self._offset)
            self._offset += written
            view = view[written:]
        return len(data)


@contextlib.contextmanager
def replacing(local: str) -> Iterator[str]:
    """A name for something new, no directory, that then takes the place of *local*."""
    new = os.path.join(os.path.dirname(local), PREFIX + secrets.token_hex(8))
    try:
        yield new
        os.replace(new, local)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)  # after a failure; and rename(2) does nothing for two names of one file


def make_directory(local: str) -> None:
    """A directory that we may write to; what else is there under that name goes."""
    try:
        status = os.lstat(local)
    except FileNotFoundError:
        os.makedirs(local)
        return
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(local)
        os.mkdir(local)
    elif status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
        os.chmod(local, stat.S_IMODE(status.st_mode) | stat.S_IRWXU)


def finish_directory(local: str, entry: Entry, *, owners: bool) -> list[str]:
    """Give a directory of ours what its entry says; see :func:`dress`."""
    fd = os.open(local, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        return dress(fd, entry, owners=owners)
    finally:
        os.close(fd)


def is_there(local: str, entry: Entry) -> bool:
    """Whether a file of that size and time is at *local*; raises :exc:`ClientError` for a directory."""
    try:
        status = os.lstat(local)
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(status.st_mode):
        raise ClientError(f"{local} is a directory, and a file in the repository")
    return stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == (entry.size, _moment(entry))


def dress(place: int | str, entry: Entry, *, owners: bool) -> list[str]:
    """Give *place*, a descriptor or the name of a link or special file, what *entry* says besides the content.

    Owners, set-user-id bits and attributes that only root may set come with *owners*. Returns the names of attributes
    that could not be set: not every file system has them.
    """
    lost = []
    follow = isinstance(place, int)
    if owners:
        os.chown(place, entry.uid, entry.gid, follow_symlinks=follow)
    if entry.kind is not Kind.SYMLINK:
        # before the mode, which may take away the right to set them, and after the owner, whose change removes some
        for name, value in unpack_xattrs(entry.xattr).items():
            if owners or name.startswith("user."):
                try:
                    os.setxattr(place, name, value, follow_symlinks=follow)
                except OSError:
                    lost.append(name)
        os.chmod(place, stat.S_IMODE(entry.mode) & (0o7777 if owners else _PERMISSIONS))
    os.utime(place, ns=(_moment(entry), _moment(entry)), follow_symlinks=follow)
    return lost


def _moment(entry: Entry) -> int:
    """When it was changed last, in nanoseconds."""
    return entry.mtime * 10**9 + (entry.mtimens or 0)
