"""Where the layers of an image lie in its archive, from the documents that say so.

Source: "Image Layout", "Image Index" and "Image Manifest" of the OCI image specification 1.1; the archive format of
Docker images 1.2.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from typing import BinaryIO, Final, TypeVar

import msgspec

from cvmfs_gw.ingest.archive import normalized
from cvmfs_gw.ingest.errors import BadArchive, BadImage, SourceTooLarge
from cvmfs_gw.ingest.inputs import SeekableInput
from cvmfs_gw.ingest.tarfields import BLOCK
from cvmfs_gw.ingest.tarheader import members

MAX_DOCUMENT: Final = 8 << 20
"""Most bytes of a manifest, index or configuration."""
MAX_LAYERS: Final = 1000
_MAX_MEMBERS: Final = 100_000  # of the archive
_MAX_DEPTH: Final = 4  # of indexes that name others
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
class Blob:
    """A file within the outer archive: where it begins and how long it is, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Layer:
    """*digest* is that of the layer as it is there, *diff_id* that of the archive in it; None: not known."""

    name: str
    blob: Blob
    digest: str | None
    diff_id: str | None


def find_layers(file: BinaryIO, platform: str | None = None, tag: str | None = None) -> list[Layer]:
    """The layers, lowest first, of the image in the archive *file*.

    *platform* and *tag* choose where there are several. Raises :exc:`BadImage` and :exc:`SourceTooLarge`.
    """
    return _Finder(file, platform, tag).layers()


class _Finder:
    def __init__(self, file: BinaryIO, platform: str | None, tag: str | None) -> None:
        self._file, self._platform, self._tag = file, platform, tag

    def layers(self) -> list[Layer]:
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

    def _index(self) -> dict[str, Blob]:
        """The files of the outer archive."""
        self._file.seek(0)
        found: dict[str, Blob] = {}
        links: dict[str, str] = {}
        source = SeekableInput(self._file)
        try:
            for member in members(source):
                path = normalized(member.name)
                if stat.S_ISREG(member.mode) and not member.is_link and member.segments is None:
                    found[path] = Blob(source.offset, member.size)
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

    def _oci_layers(self, blobs: dict[str, Blob]) -> list[Layer]:
        document = self._parse(blobs, "/index.json", _Document)
        for _ in range(_MAX_DEPTH):
            if document.config is not None:
                break
            chosen = self._choose(document.manifests)
            document = self._parse(blobs, _path_of(chosen.digest), _Document, chosen.digest)
        if document.config is None:
            raise BadImage("the image's index leads to no manifest")
        configuration = self._parse(blobs, _path_of(document.config.digest), _Configuration, document.config.digest)
        diff_ids = _diff_ids(configuration, len(document.layers))
        return [
            Layer(layer.digest, _blob(blobs, _path_of(layer.digest)), layer.digest, diff_id)
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

    def _saved_layers(self, blobs: dict[str, Blob]) -> list[Layer]:
        saved = self._parse(blobs, "/manifest.json", list[_Saved])
        if self._tag is not None:
            saved = [image for image in saved if self._tag in (image.repo_tags or [])]
        if len(saved) != 1:
            raise BadImage(f"{len(saved) or 'no'} images to choose from in the archive")
        image = saved[0]
        configuration = self._parse(blobs, normalized(image.config), _Configuration, _digest_in(image.config))
        diff_ids = _diff_ids(configuration, len(image.layers))
        return [
            Layer(name, _blob(blobs, normalized(name)), None, diff_id)
            for name, diff_id in zip(image.layers, diff_ids, strict=True)
        ]

    def _parse(self, blobs: dict[str, Blob], path: str, kind: type[_T], digest: str | None = None) -> _T:
        blob = _blob(blobs, path)
        if blob.size > MAX_DOCUMENT:
            raise SourceTooLarge(f"{path} of the image has {blob.size} bytes")
        self._file.seek(blob.offset)
        raw = self._file.read(blob.size)
        if digest is not None and hasher_of(digest, raw).hexdigest() != hex_of(digest):
            raise BadImage(f"{path} of the image does not have its digest")
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.DecodeError as error:
            raise BadImage(f"{path} of the image cannot be read: {error}") from error


def hasher_of(digest: str, data: bytes = b"") -> hashlib._Hash:
    """A hasher of the kind that *digest* (``sha256:...``) is of, fed with *data*. Raises :exc:`BadImage`."""
    make = _DIGESTS.get(digest.partition(":")[0])
    if make is None:
        raise BadImage(f"a digest of an unknown kind: {digest[:100]!r}")
    return make(data)


def hex_of(digest: str) -> str:
    """The digits of *digest*."""
    return digest.partition(":")[2]


def _path_of(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return normalized(f"blobs/{algorithm}/{value}")


def _digest_in(name: str) -> str | None:
    """The digest that the name of a configuration is."""
    value = name.rpartition("/")[2].removesuffix(".json")
    return f"sha256:{value}" if re.fullmatch("[0-9a-f]{64}", value) else None


def _blob(blobs: dict[str, Blob], path: str) -> Blob:
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
