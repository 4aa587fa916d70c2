"""The manifest, ``.cvmfspublished``: the head of a repository, which a publish replaces last and atomically.

One field per line, its first letter the key; in the signed form, hash and signature follow (see ``signature``)::

    C  root catalog            hash without its suffix
    B  its size                bytes, uncompressed
    R  MD5 of the root path    of the empty string
    D  time to live            seconds for which a client may keep the manifest
    S  revision                grows with each publish; clients ignore smaller ones
    G  garbage-collectable     yes or no
    A  alternative paths       yes or no
    L  micro catalog           hash            }
    N  name                    the fqrn        }
    X  certificate             hash            }  omitted
    H  tag database            hash            }  when there is
    T  time of publication     Unix seconds    }  no value
    M  meta info               hash            }
    Y  reflog                  hash            }

T never decreases: clients refuse that.

Source: the reference's manifests. Lines with unknown keys are kept, in their order, after these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cvmfs_objstore.errors import FormatError, InvalidHash, ManifestError
from cvmfs_objstore.formats.signature import Letter, Signer, Verifier
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix

EMPTY_PATH_MD5: Final = "d41d8cd98f00b204e9800998ecf8427e"
"""MD5 of the empty string: the path of the root directory."""

_KEYS: Final = frozenset("CBRDSGALNXHTMY")
_REQUIRED: Final = "CRDS"
_MD5: Final = re.compile(r"[0-9a-f]{32}")
_NUMBER: Final = re.compile(r"[0-9]{1,20}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The fields of a manifest; hashes carry their suffix, sizes are in bytes, times in seconds."""

    root_hash: ContentHash
    root_size: int
    ttl: int
    revision: int
    fqrn: str = ""
    root_path_md5: str = EMPTY_PATH_MD5
    garbage_collectable: bool = False
    has_alt_catalog_path: bool = False
    micro_catalog: ContentHash | None = None
    certificate: ContentHash | None = None
    history: ContentHash | None = None
    published: int = 0
    meta_info: ContentHash | None = None
    reflog_hash: ContentHash | None = None
    unknown: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: bytes) -> Manifest:
        """Read the unsigned text; raises :exc:`ManifestError`."""
        fields: dict[str, str] = {}
        unknown: list[str] = []
        for line in text.decode("utf-8", "surrogateescape").split("\n"):
            if not line:
                continue
            key = line[0]
            if line == "--":
                raise ManifestError("a signed manifest where an unsigned one belongs")
            if key not in _KEYS:
                unknown.append(line)
            elif key in fields:
                raise ManifestError(f"two lines {key}")
            else:
                fields[key] = line[1:]
        for key in _REQUIRED:
            if key not in fields:
                raise ManifestError(f"no line {key}")
        if not _MD5.fullmatch(fields["R"]):
            raise ManifestError("line R is not an MD5")
        root = _hash(fields, "C", Suffix.CATALOG)
        if root is None:
            raise ManifestError("line C is empty")
        return cls(
            root_hash=root,
            root_size=_number(fields, "B"),
            ttl=_number(fields, "D"),
            revision=_number(fields, "S"),
            fqrn=fields.get("N", ""),
            root_path_md5=fields["R"],
            garbage_collectable=fields.get("G") == "yes",
            has_alt_catalog_path=fields.get("A") == "yes",
            micro_catalog=_hash(fields, "L", Suffix.MICRO_CATALOG),
            certificate=_hash(fields, "X", Suffix.CERTIFICATE),
            history=_hash(fields, "H", Suffix.HISTORY),
            published=_number(fields, "T"),
            meta_info=_hash(fields, "M", Suffix.METAINFO),
            reflog_hash=_hash(fields, "Y", Suffix.NONE),
            unknown=tuple(unknown),
        )

    def serialize(self) -> bytes:
        """The unsigned text, in the reference's order; raises :exc:`ManifestError` if a value has a line break."""
        lines = [
            f"C{self.root_hash.bare}",
            f"B{self.root_size}",
            f"R{self.root_path_md5}",
            f"D{self.ttl}",
            f"S{self.revision}",
            f"G{_yes_no(self.garbage_collectable)}",
            f"A{_yes_no(self.has_alt_catalog_path)}",
        ]
        if self.micro_catalog is not None:
            lines.append(f"L{self.micro_catalog.bare}")
        if self.fqrn:
            lines.append(f"N{self.fqrn}")
        if self.certificate is not None:
            lines.append(f"X{self.certificate.bare}")
        if self.history is not None:
            lines.append(f"H{self.history.bare}")
        if self.published:
            lines.append(f"T{self.published}")
        if self.meta_info is not None:
            lines.append(f"M{self.meta_info.bare}")
        if self.reflog_hash is not None:
            lines.append(f"Y{self.reflog_hash.bare}")
        lines += self.unknown
        if any("\n" in line for line in lines):
            raise ManifestError("a value with a line break")
        return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")

    def signed(self, key: Signer, algorithm: Algorithm | None = None) -> bytes:
        """The signed form. *algorithm* defaults to the repository's: that of the root hash."""
        return Letter.seal(self.serialize(), algorithm or self.root_hash.algorithm, key).serialize()


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """A manifest and the letter that it came in."""

    manifest: Manifest
    letter: Letter

    @classmethod
    def parse(cls, data: bytes) -> SignedManifest:
        """Read ``.cvmfspublished``, verifying nothing; raises :exc:`ManifestError`."""
        try:
            letter = Letter.parse(data)
        except FormatError as error:
            raise ManifestError(str(error)) from None
        return cls(Manifest.parse(letter.text), letter)

    def verify(self, certificate: Verifier) -> Manifest:
        """The manifest, if *certificate*'s key signed it; raises :exc:`SignatureError`."""
        self.letter.verify((certificate,))
        return self.manifest


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _hash(fields: dict[str, str], key: str, suffix: Suffix) -> ContentHash | None:
    text = fields.get(key, "")
    if not text:
        return None
    try:
        return ContentHash.parse(text, suffix)
    except InvalidHash as error:
        raise ManifestError(f"line {key}: {error}") from None


def _number(fields: dict[str, str], key: str) -> int:
    text = fields.get(key, "0")
    if not _NUMBER.fullmatch(text):
        raise ManifestError(f"line {key} is not a number")
    return int(text)
