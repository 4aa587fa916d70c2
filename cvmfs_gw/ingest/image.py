"""A container image in an archive as a source: the file tree that its layers amount to.

Two layouts are read, that of ``docker save`` (``manifest.json``) and that of OCI (``index.json``), or both in one
archive. Layers are applied in order; whiteouts and opaque directories take away what lower layers have.

Every layer is read twice. First its headers: that says which member is seen in the end at each path, and verifies the
digests before anything is stored. Then the contents of those members alone.

Source: "Image Layout", "Image Manifest" and "Layer Filesystem Changeset" of the OCI image specification 1.1; the
archive format of Docker images 1.2.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO, Final, TypeVar, cast

import msgspec

from cvmfs_gw.ingest.archive import ArchiveSource, normalized
from cvmfs_gw.ingest.errors import BadArchive, BadImage, SourceTooLarge
from cvmfs_gw.ingest.inputs import BUFFER, Input, Readable, Rewound, SeekableInput, plain
from cvmfs_gw.ingest.items import XATTR_PREFIXES, Item, Whiteout
from cvmfs_gw.ingest.layers import Layers
from cvmfs_gw.ingest.tarfields import BLOCK
from cvmfs_gw.ingest.tarheader import members

MAX_DOCUMENT: Final = 8 << 20
"""Most bytes of a manifest, index or configuration."""
MAX_LAYERS: Final = 1000
_MAX_MEMBERS: Final = 100_000  # of the outer archive
_T = TypeVar("_T")
_DIGESTS: Final = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}


class _Platform(msgspec.Struct):
    os: str = ""
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class _Descriptor(msgspec.Struct, rename="camel"):
    digest: str
    media_type: str = ""
    size: int = -1
    platform: _Platform | None = None
    annotations: dict[str, str] = {}


class _Document(msgspec.Struct, rename="camel"):
    """An index (with manifests) or a manifest (with layers and a configuration)."""

    manifests: list[_Descriptor] = []
    layers: list[_Descriptor] = []
    config: _Descriptor | None = None


class _Saved(msgspec.Struct, rename="pascal"):
    """One image of ``docker save``."""

    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


class _RootFs(msgspec.Struct):
    diff_ids: list[str] = []


class _Configuration(msgspec.Struct):
    rootfs: _RootFs


@dataclass(frozen=True, slots=True)
class _Blob:
    """A file within the outer archive: where it begins and how long it is, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class _Layer:
    """*digest* is that of the layer as it is there, *diff_id* that of the archive in it; None: not known."""

    name: str
    blob: _Blob
    digest: str | None
    diff_id: str | None


class ImageSource:
    """The image in *file*. Use once. What is no plain archive in a file that can be read from anywhere, so a compressed
    one or a pipe, is first copied to a temporary file.

    *platform* (``linux/amd64``) chooses where there are images for several, *tag* (``name:tag``) where there are
    several images; an archive that leaves a choice is refused.
    """

    trust_times = False

    def __init__(
        self,
        file: Readable,
        *,
        platform: str | None = None,
        tag: str | None = None,
        xattrs: tuple[str, ...] = XATTR_PREFIXES,
    ) -> None:
        self._file, self._platform, self._tag, self._xattrs = file, platform, tag, xattrs

    def items(self) -> Iterator[Item | Whiteout]:
        """What the image holds. Raises :exc:`BadImage`, :exc:`BadArchive` and :exc:`SourceTooLarge`."""
        with ExitStack() as stack:
            file = _seekable(self._file, stack)
            layers = _Finder(file, self._platform, self._tag).layers()
            seen = Layers()
            for layer in layers:
                opened = _OpenLayer(layer, file, self._xattrs)
                seen.apply(opened.items())
                opened.verify()
            yield from seen.directories()
            for number, layer in enumerate(layers):
                if seen.has_files(number):
                    yield from seen.files(number, _OpenLayer(layer, file, self._xattrs).items())


class _Finder:
    """Finds the layers of the image in an archive."""

    def __init__(self, file: BinaryIO, platform: str | None, tag: str | None) -> None:
        self._file, self._platform, self._tag = file, platform, tag

    def layers(self) -> list[_Layer]:
        blobs = self._index()
        if "/index.json" in blobs:
            layers = self._oci_layers(blobs)
        elif "/manifest.json" in blobs:
            layers = self._saved_layers(blobs)
        else:
            raise BadImage("no image: neither index.json nor manifest.json is in the archive")
        if len(layers) > MAX_LAYERS:
            raise SourceTooLarge(f"an image of {len(layers)} layers")
        return layers

    def _index(self) -> dict[str, _Blob]:
        """The files of the outer archive."""
        self._file.seek(0)
        found: dict[str, _Blob] = {}
        links: dict[str, str] = {}
        source = SeekableInput(self._file)
        try:
            for member in members(source):
                path = normalized(member.name)
                if stat.S_ISREG(member.mode) and not member.is_link and member.segments is None:
                    found[path] = _Blob(source.offset, member.size)
                elif stat.S_ISLNK(member.mode):
                    # docker save makes layers that several images have links to one another's
                    links[path] = os.path.normpath(os.path.join(os.path.dirname(path), member.link))
                elif member.is_link:
                    links[path] = normalized(member.link)
                source.skip(member.data + -member.data % BLOCK)
                if len(found) + len(links) > _MAX_MEMBERS:
                    raise SourceTooLarge("too many files in the archive of an image")
        except BadArchive as error:
            raise BadImage(f"no archive of an image: {error}") from error
        for path, target in links.items():
            if target in found:
                found.setdefault(path, found[target])
        return found

    def _oci_layers(self, blobs: dict[str, _Blob]) -> list[_Layer]:
        document = self._parse(blobs, "/index.json", _Document)
        for _ in range(4):  # an index may name others
            if document.config is not None:
                break
            chosen = self._choose(document.manifests)
            document = self._parse(blobs, _path_of(chosen.digest), _Document, chosen.digest)
        if document.config is None:
            raise BadImage("the image's index leads to no manifest")
        configuration = self._parse(blobs, _path_of(document.config.digest), _Configuration, document.config.digest)
        diff_ids = _diff_ids(configuration, len(document.layers))
        return [
            _Layer(layer.digest, _blob(blobs, _path_of(layer.digest)), layer.digest, diff_id)
            for layer, diff_id in zip(document.layers, diff_ids, strict=True)
        ]

    def _choose(self, manifests: list[_Descriptor]) -> _Descriptor:
        # Attestations of builders are listed as if they were images for an unknown platform.
        images = [one for one in manifests if str(one.platform) != "unknown/unknown"]
        if self._tag is not None:
            names = ("org.opencontainers.image.ref.name", "io.containerd.image.name")
            tagged = [one for one in images if self._tag in [one.annotations.get(name) for name in names]]
            images = tagged or [one for one in images if not one.annotations]
        if self._platform is not None:
            images = [one for one in images if one.platform is None or _fits(str(one.platform), self._platform)]
        if len({one.digest for one in images}) != 1:
            offered = ", ".join(sorted({str(one.platform or one.annotations or one.digest) for one in manifests}))
            raise BadImage(f"{len(images) or 'no'} images to choose from: {offered[:500] or 'none'}")
        return images[0]

    def _saved_layers(self, blobs: dict[str, _Blob]) -> list[_Layer]:
        saved = self._parse(blobs, "/manifest.json", list[_Saved])
        if self._tag is not None:
            saved = [image for image in saved if self._tag in (image.repo_tags or [])]
        if len(saved) != 1:
            raise BadImage(f"{len(saved) or 'no'} images to choose from in the archive")
        image = saved[0]
        configuration = self._parse(blobs, normalized(image.config), _Configuration, _digest_in(image.config))
        diff_ids = _diff_ids(configuration, len(image.layers))
        return [
            _Layer(name, _blob(blobs, normalized(name)), None, diff_id)
            for name, diff_id in zip(image.layers, diff_ids, strict=True)
        ]

    def _parse(self, blobs: dict[str, _Blob], path: str, kind: type[_T], digest: str | None = None) -> _T:
        blob = _blob(blobs, path)
        if blob.size > MAX_DOCUMENT:
            raise SourceTooLarge(f"{path} of the image has {blob.size} bytes")
        self._file.seek(blob.offset)
        raw = self._file.read(blob.size)
        if digest is not None and _hasher(digest, raw).hexdigest() != _hex_of(digest):
            raise BadImage(f"{path} of the image does not have its digest")
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.DecodeError as error:
            raise BadImage(f"{path} of the image cannot be read: {error}") from error


class _OpenLayer:
    """One layer while it is read. *verify* is for when all of it has been."""

    def __init__(self, layer: _Layer, file: BinaryIO, xattrs: tuple[str, ...]) -> None:
        self._layer, self._xattrs = layer, xattrs
        self._blob = _Hashed(_Window(file, layer.blob), layer.digest)
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
        self._hasher = _hasher(digest) if digest else None

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        if self._hasher is not None:
            self._hasher.update(data)
        return data

    def is_right(self) -> bool:
        return self._hasher is None or self._digest is None or self._hasher.hexdigest() == _hex_of(self._digest)


class _Window:
    """A part of a file, which nobody else reads meanwhile."""

    def __init__(self, file: BinaryIO, blob: _Blob) -> None:
        file.seek(blob.offset)
        self._file, self._left = file, blob.size

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._left))
        if not data and self._left and size:
            raise BadImage("the archive of the image ends early")
        self._left -= len(data)
        return data


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


def _hasher(digest: str, data: bytes = b"") -> hashlib._Hash:
    make = _DIGESTS.get(digest.partition(":")[0])
    if make is None:
        raise BadImage(f"a digest of an unknown kind: {digest[:100]!r}")
    return make(data)


def _hex_of(digest: str) -> str:
    return digest.partition(":")[2]


def _path_of(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return normalized(f"blobs/{algorithm}/{value}")


def _digest_in(name: str) -> str | None:
    """The digest that the name of a configuration is."""
    value = name.rpartition("/")[2].removesuffix(".json")
    return f"sha256:{value}" if re.fullmatch("[0-9a-f]{64}", value) else None


def _blob(blobs: dict[str, _Blob], path: str) -> _Blob:
    blob = blobs.get(path)
    if blob is None:
        raise BadImage(f"{path[:200]} is not in the archive of the image")
    return blob


def _diff_ids(configuration: _Configuration, layers: int) -> list[str]:
    found = configuration.rootfs.diff_ids
    if len(found) != layers:
        raise BadImage(f"the image has {layers} layers, and its configuration {len(found)}")
    return found


def _fits(platform: str, wanted: str) -> bool:
    return platform == wanted or platform.startswith(wanted + "/")
