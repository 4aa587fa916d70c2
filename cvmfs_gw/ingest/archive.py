"""A tar archive as a source: plain or compressed, a file or a pipe.

Archives are not trusted. Leading slashes are stripped from names, as every tool does, and ``..`` is refused; entries
can only be put into directories, so not behind symbolic links either; hard links must refer to files in the same
archive. If a name occurs twice, the last one counts.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from typing import Final

from cvmfs_gw.ingest.directories import PATH_MAX
from cvmfs_gw.ingest.errors import BadArchive, SourceTooLarge
from cvmfs_gw.ingest.inputs import Input, Readable, plain
from cvmfs_gw.ingest.items import MAX_XATTR, MAX_XATTRS, XATTR_PREFIXES, Content, Item, Whiteout
from cvmfs_gw.ingest.tarfields import BLOCK
from cvmfs_gw.ingest.tarheader import Member, members
from cvmfs_objstore.formats.database import to_bytes
from cvmfs_objstore.formats.entry import pack_xattrs

AT_ONCE: Final = 1 << 20
"""Files up to this many bytes are read at once."""

WHITEOUT: Final = ".wh."
"""How the name of a file begins that stands for the absence of another, in layers of images."""
OPAQUE: Final = ".wh..wh..opq"
"""A file of this name stands for the absence of everything that lower layers have in its directory."""

_MAX_ID: Final = 0xFFFFFFFF
_MAX_TIME: Final = 1 << 62  # nanoseconds: 146 years


class ArchiveSource:
    """The archive in *file*, which is read once from where it is.

    *whiteouts*: files named ``.wh.*`` say what is to go, as in layers of images. *trust_times*: a file that has size
    and time of the repository's is taken for the same; archives are often made with one time for all, so by default it
    is not. *xattrs* are the beginnings of the names of extended attributes to take along. *is_verified*: it is known by
    other means that nothing is missing.
    """

    def __init__(
        self,
        file: Readable,
        *,
        whiteouts: bool = False,
        trust_times: bool = False,
        xattrs: tuple[str, ...] = XATTR_PREFIXES,
        is_verified: bool = False,
    ) -> None:
        self._file, self._whiteouts, self._xattrs = file, whiteouts, xattrs
        self.trust_times = trust_times
        self._is_verified = is_verified

    def items(self) -> Iterator[Item | Whiteout]:
        """What the archive holds. Raises :exc:`BadArchive` and :exc:`SourceTooLarge`."""
        source = Input(plain(self._file))
        for member in members(source, is_verified=self._is_verified):
            path = normalized(member.name)
            padding = -member.data % BLOCK
            content: Content | None = None
            data: _Data | None = None
            if not stat.S_ISREG(member.mode) or member.is_link:
                source.skip(member.data)
            elif member.segments is None and member.size <= AT_ONCE:
                content = source.exactly(member.size)
            else:
                content = data = _Data(source, member)
            name = path.rpartition("/")[2]
            if self._whiteouts and name.startswith(WHITEOUT):
                yield whiteout(path)
            else:
                yield self._item(path, member, content)
            if data is not None:
                data.drain()
            source.skip(padding)
        source.finish()

    def _item(self, path: str, member: Member, content: Content | None) -> Item:
        if not 0 <= member.uid <= _MAX_ID or not 0 <= member.gid <= _MAX_ID:
            raise BadArchive(f"{path} has the owner {member.uid}:{member.gid}")
        if abs(member.mtime) > _MAX_TIME:
            raise BadArchive(f"{path} has a time that no clock shows")
        is_symlink = stat.S_ISLNK(member.mode)
        if (is_symlink or member.is_link) and not member.link:
            raise BadArchive(f"{path} is a link to nothing")
        if is_symlink and len(to_bytes(member.link)) > PATH_MAX:
            raise SourceTooLarge(f"{path} is a link to a path of more than {PATH_MAX} bytes")
        return Item(
            path,
            member.mode | 0o777 if is_symlink else member.mode,
            member.uid,
            member.gid,
            member.mtime,
            member.size,
            content,
            member.link if is_symlink else "",
            member.rdev,
            packed(member.xattrs, self._xattrs) if member.xattrs else None,
            normalized(member.link) if member.is_link else None,
        )


def normalized(name: str) -> str:
    """The path within the source of a member's name. Raises :exc:`BadArchive` for one that climbs."""
    # Most names are as they should be but for the slash at their front.
    if name[:1] not in ("/", ".", "") and "//" not in name and "/." not in name and name[-1] != "/":
        return f"/{name}"
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadArchive(f"a name that climbs: {name[:200]!r}")
    return "".join(f"/{part}" for part in parts)


def whiteout(path: str) -> Whiteout:
    """What a file named ``.wh.*`` stands for."""
    parent, _, name = path.rpartition("/")
    if name == OPAQUE:
        return Whiteout(parent, opaque=True)
    hidden = name.removeprefix(WHITEOUT)
    if hidden in ("", ".", ".."):
        raise BadArchive(f"a whiteout of nothing: {path[:200]!r}")
    return Whiteout(f"{parent}/{hidden}")


def packed(xattrs: Mapping[str, bytes], prefixes: tuple[str, ...]) -> bytes | None:
    """The blob of those attributes whose names begin with one of *prefixes* and that are not too long."""
    wanted = {
        name: value
        for name, value in xattrs.items()
        if name.startswith(prefixes) and max(len(name.encode("utf-8", "surrogateescape")), len(value)) <= MAX_XATTR
    }
    if len(wanted) > MAX_XATTRS:
        raise BadArchive(f"a member with more than {MAX_XATTRS} extended attributes")
    return pack_xattrs(wanted)


class _Data:
    """The content of one member, the holes of a sparse file filled with zeros."""

    __slots__ = ("_at", "_left", "_parts", "_size", "_source")

    def __init__(self, source: Input, member: Member) -> None:
        self._source = source
        self._size = member.size
        self._left = member.data
        self._at = 0
        segments = ((0, member.data),) if member.segments is None else member.segments
        self._parts = [segment for segment in reversed(segments) if segment[1]]

    def read(self, size: int, /) -> bytes:
        size = min(size, self._size - self._at)
        if size <= 0:
            return b""
        offset, length = self._parts[-1] if self._parts else (self._size, 0)
        if self._at < offset:
            piece = bytes(min(size, offset - self._at))
        else:
            piece = self._source.some(min(size, length - (self._at - offset)))
            self._left -= len(piece)
            if self._at + len(piece) == offset + length:
                self._parts.pop()
        self._at += len(piece)
        return piece

    def drain(self) -> None:
        """Pass over what was not read."""
        self._source.skip(self._left)
        self._left = 0
