"""Which of its files are the layers of an image, from the documents that say so.

Source: "Image Layout", "Image Index" and "Image Manifest" of the OCI image specification 1.1; the archive format of
Docker images 1.2.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from cvmfs_gw.ingest.archive import normalized
from cvmfs_gw.ingest.errors import BadImage, SourceTooLarge
from cvmfs_gw.ingest.imagefiles import ImageFiles
from cvmfs_gw.ingest.inputs import Input

MAX_DOCUMENT: Final = 8 << 20
"""Most bytes of a manifest, index or configuration."""
MAX_LAYERS: Final = 1000
_MAX_DEPTH: Final = 4  # of indexes that name others
_T = TypeVar("_T")
_NAMES: Final = ("org.opencontainers.image.ref.name", "io.containerd.image.name")
_IMAGES: Final = frozenset(
    (
        "",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
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
    artifact_type: str = ""
    platform: _Platform | None = None
    annotations: dict[str, str] = {}

    @property
    def is_image(self) -> bool:
        """Whether it may be an image, or an index of some.

        Signatures and lists of contents are listed beside the images that they are of, and attestations of builders
        as if they were images for an unknown platform.
        """
        return not self.artifact_type and self.media_type in _IMAGES and str(self.platform) != "unknown/unknown"

    @property
    def names(self) -> list[str]:
        return [self.annotations[name] for name in _NAMES if name in self.annotations]

    def is_called(self, tag: str) -> bool:
        """Whether *tag* is its name, with or without the registry in front."""
        return any(name == tag or name.endswith(f"/{tag}") for name in self.names)

    def __str__(self) -> str:
        """What tells it from others."""
        return " ".join([*self.names[-1:], *([str(self.platform)] if self.platform else [])]) or self.digest


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
class Layer:
    """The file at *path*. *digest* is that of its bytes, *diff_id* that of the archive in it; None: not known."""

    name: str
    path: str
    digest: str | None
    diff_id: str | None


def find_layers(files: ImageFiles, platform: str | None = None, tag: str | None = None) -> list[Layer]:
    """The layers, lowest first, of the image that consists of *files*.

    *platform* and *tag* choose where there are several. Raises :exc:`BadImage` and :exc:`SourceTooLarge`.
    """
    return _Finder(files, platform, tag).layers()


class _Finder:
    def __init__(self, files: ImageFiles, platform: str | None, tag: str | None) -> None:
        self._files, self._platform, self._tag = files, platform, tag

    def layers(self) -> list[Layer]:
        if self._files.has("/index.json"):
            layers = self._oci_layers()
        elif self._files.has("/manifest.json"):
            layers = self._saved_layers()
        else:
            raise BadImage("no image: there is neither index.json nor manifest.json")
        if len(layers) > MAX_LAYERS:
            raise SourceTooLarge(f"an image of {len(layers)} layers")
        return layers

    def _oci_layers(self) -> list[Layer]:
        document = self._parse("/index.json", _Document)
        for _ in range(_MAX_DEPTH):
            if document.config is not None:
                break
            chosen = self._choose(document.manifests)
            document = self._parse(_path_of(chosen.digest), _Document, chosen.digest)
        if document.config is None:
            raise BadImage("the image's index leads to no manifest")
        configuration = self._parse(_path_of(document.config.digest), _Configuration, document.config.digest)
        diff_ids = _diff_ids(configuration, len(document.layers))
        return [
            Layer(layer.digest, _path_of(layer.digest), layer.digest, diff_id)
            for layer, diff_id in zip(document.layers, diff_ids, strict=True)
        ]

    def _choose(self, manifests: list[_Descriptor]) -> _Descriptor:
        there = images = [one for one in manifests if one.is_image]
        if self._tag is not None:
            images = [one for one in images if one.is_called(self._tag)] or [one for one in images if not one.names]
        if self._platform is not None:
            images = [one for one in images if one.platform is None or _fits(str(one.platform), self._platform)]
        if len({one.digest for one in images}) != 1:
            raise self._choice(len(images), map(str, there))
        return images[0]

    def _choice(self, fitting: int, there: Iterable[str]) -> BadImage:
        """The error for an image that is not the only one, or none of those that are *there*."""
        wanted = " ".join(part for part in (self._tag, self._platform) if part)
        offered = ", ".join(sorted(set(there)))[:500] or "none"
        return BadImage(f"{fitting or 'no'} images{f' {wanted[:200]}' if wanted else ''} to choose from: {offered}")

    def _saved_layers(self) -> list[Layer]:
        there = saved = self._parse("/manifest.json", list[_Saved])
        if self._tag is not None:
            saved = [image for image in saved if self._tag in (image.repo_tags or [])]
        if len(saved) != 1:
            raise self._choice(len(saved), (tag for image in there for tag in image.repo_tags or [image.config]))
        image = saved[0]
        configuration = self._parse(normalized(image.config), _Configuration, _digest_in(image.config))
        diff_ids = _diff_ids(configuration, len(image.layers))
        return [
            Layer(name, normalized(name), None, diff_id) for name, diff_id in zip(image.layers, diff_ids, strict=True)
        ]

    def _parse(self, path: str, kind: type[_T], digest: str | None = None) -> _T:
        size = self._files.size(path)
        if size > MAX_DOCUMENT:
            raise SourceTooLarge(f"{path} of the image has {size} bytes")
        with self._files.open(path) as file:
            raw = Input(file).exactly(size)
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


def _diff_ids(configuration: _Configuration, layers: int) -> list[str]:
    found = configuration.rootfs.diff_ids
    if len(found) != layers:
        raise BadImage(f"the image has {layers} layers, and its configuration {len(found)}")
    return found


def _fits(platform: str, wanted: str) -> bool:
    return platform == wanted or platform.startswith(wanted + "/")
