"""What a source holds: items, and how the content of a file is read.

Paths are those within the source: ``""`` is its top and everything else ``/a/b``, so that a path in the repository is
the target's path and an item's put together. Bytes that are not UTF-8 are surrogates, as elsewhere.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

XATTR_PREFIXES: Final = ("user.", "security.capability")
"""How the names of extended attributes begin that are published by default."""
MAX_XATTR: Final = 255
"""Most bytes of an extended attribute's name or value; longer ones cannot be stored and are left out."""
MAX_XATTRS: Final = 255
"""Most extended attributes of one entry."""


class LocalFile(NamedTuple):
    """Content that lies at *path* of the local disk and stays there: it may be read later, and in any thread."""

    path: str


class Stream(Protocol):
    """Content that passes by: it can be read once, and before the source is asked for its next item."""

    def read(self, size: int, /) -> bytes:
        """At most *size* bytes; none only at the end."""


Content = bytes | LocalFile | Stream


class Item(NamedTuple):
    """One file, directory, symbolic link or special file.

    *mode* is that of stat(2), type included; *mtime* in nanoseconds since the epoch; *size* in bytes, for files only,
    and -1 for a stream of unknown length; *xattrs* the packed attributes of
    :func:`cvmfs_objstore.formats.entry.pack_xattrs`. An item with *link* is another name of what is at that path of the
    same source, attributes and content included.
    """

    path: str
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    content: Content | None = None
    symlink: str = ""
    rdev: int = 0
    xattrs: bytes | None = None
    link: str | None = None

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)


class Whiteout(NamedTuple):
    """What is at *path* where the source is added goes; or, *opaque*, everything in the directory *path*."""

    path: str
    opaque: bool = False


Status = tuple[bytes, int, int, int, int, int, bytes, "bytes | None"]
"""What stat(2) says of a file or symbolic link, as a row: name, mode, user, group, time in nanoseconds, size (of a
link: its target's length), the link's target, packed extended attributes."""


class Listing(Protocol):
    """What is in a directory already, but for directories."""

    def holds(self, found: Sequence[Status], /) -> bool:
        """Whether it is just what was *found*, so that nothing has to be read or changed."""


class Unchanged(NamedTuple):
    """All that is in the directory *path* and no directory is what is there already: *entries*, and *files* of them."""

    path: str
    entries: int
    files: int


class Source(Protocol):
    """Something that holds files. Use once."""

    trust_times: bool
    """Whether a file of the same size and time as the repository's may be taken for the same, unread."""

    def items(self) -> Iterator[Item | Whiteout]:
        """What the source holds, in any order; of a path that comes twice the later one counts.

        Directories that are not given but have something in them are made. Raises :exc:`IngestError` and ``OSError``.
        """
