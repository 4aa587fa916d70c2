"""A container image as a source: the file tree that its layers amount to.

Two layouts are read, that of ``docker save`` (``manifest.json``) and that of OCI (``index.json``), or both together, in
an archive or as a folder. Layers are applied in order; whiteouts and opaque directories take away what lower layers
have.

Every layer is read twice. First its headers: that says which member is seen in the end at each path, and verifies the
digests before anything is stored. Then the contents of those members alone.

Source: as :mod:`cvmfs_gw.ingest.imagelayout` and :mod:`cvmfs_gw.ingest.layers` say.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, cast

from cvmfs_gw.ingest.archive import ArchiveSource
from cvmfs_gw.ingest.errors import BadArchive, BadImage
from cvmfs_gw.ingest.imagefiles import ArchivedFiles, FolderFiles, ImageFiles
from cvmfs_gw.ingest.imagelayout import Layer, find_layers, hasher_of, hex_of
from cvmfs_gw.ingest.inputs import BUFFER, Input, Readable, Rewound, plain
from cvmfs_gw.ingest.items import XATTR_PREFIXES, Item, Whiteout
from cvmfs_gw.ingest.layers import Layers


class ImageSource:
    """The image in *image*, an archive or the path of a folder. Use once. What is no plain archive in a file that can
    be read from anywhere, so a compressed one or a pipe, is first copied to a temporary file.

    *platform* (``linux/amd64``) chooses where there are images for several, *tag* (``name:tag``) where there are
    several images; where a choice is left, the image is refused.
    """

    trust_times = False

    def __init__(
        self,
        image: Readable | str,
        *,
        platform: str | None = None,
        tag: str | None = None,
        xattrs: tuple[str, ...] = XATTR_PREFIXES,
    ) -> None:
        self._image, self._platform, self._tag, self._xattrs = image, platform, tag, xattrs

    def items(self) -> Iterator[Item | Whiteout]:
        """What the image holds. Raises :exc:`BadImage`, :exc:`BadArchive` and :exc:`SourceTooLarge`."""
        with ExitStack() as stack:
            files: ImageFiles
            if isinstance(self._image, str):
                files = FolderFiles(self._image)
            else:
                files = ArchivedFiles(_seekable(self._image, stack))
            layers = find_layers(files, self._platform, self._tag)
            seen = Layers()
            for layer in layers:
                with _opened(layer, files, self._xattrs) as opened:
                    seen.apply(opened.items())
                    opened.verify()
            yield from seen.directories()
            for number, layer in enumerate(layers):
                if seen.has_files(number):
                    with _opened(layer, files, self._xattrs) as opened:
                        yield from seen.files(number, opened.items())


@contextmanager
def _opened(layer: Layer, files: ImageFiles, xattrs: tuple[str, ...]) -> Iterator[_OpenLayer]:
    with files.open(layer.path) as file:
        yield _OpenLayer(layer, file, xattrs)


class _OpenLayer:
    """One layer while it is read. *verify* is for when all of it has been."""

    def __init__(self, layer: Layer, file: Readable, xattrs: tuple[str, ...]) -> None:
        self._layer, self._xattrs = layer, xattrs
        self._blob = _Hashed(file, layer.digest)
        self._plain = _Hashed(plain(self._blob), layer.diff_id)

    def items(self) -> Iterator[Item | Whiteout]:
        source = ArchiveSource(self._plain, whiteouts=True, xattrs=self._xattrs, is_verified=True)
        try:
            yield from source.items()
        except BadArchive as error:
            raise BadImage(f"layer {self._layer.name} of the image: {error}") from error

    def verify(self) -> None:
        while self._blob.read(BUFFER):
            pass
        if not (self._blob.is_right() and self._plain.is_right()):
            raise BadImage(f"layer {self._layer.name} of the image does not have its digest")


class _Hashed:
    """Bytes that are hashed as they are read."""

    def __init__(self, file: Readable, digest: str | None) -> None:
        self._file, self._digest = file, digest
        self.hasher_of = hasher_of(digest) if digest else None

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        if self.hasher_of is not None:
            self.hasher_of.update(data)
        return data

    def is_right(self) -> bool:
        return self.hasher_of is None or self._digest is None or self.hasher_of.hexdigest() == hex_of(self._digest)


def _seekable(file: Readable, stack: ExitStack) -> BinaryIO:
    """The archive as a plain file that can be read from anywhere: itself, or a temporary copy."""
    if isinstance(file, io.IOBase) and file.seekable():
        seekable = cast(BinaryIO, file)
        start = seekable.tell()
        is_plain = isinstance(plain(seekable), Rewound)
        seekable.seek(start)
        if is_plain:
            return seekable
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - it ends with the stack
    stack.callback(copy.close)
    source = Input(plain(file))
    while not source.at_end():
        copy.write(source.some(BUFFER))
    return cast(BinaryIO, copy)
