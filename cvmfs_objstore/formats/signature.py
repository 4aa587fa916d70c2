"""Letters: signed text, the envelope of manifests and whitelists.

::

    letter = text "--" LF hash LF signature
    text   = 1*(line LF)
    hash   = 40HEXDIG [ "-" algorithm ]     ; of text, including its last LF, without the "--"
    signature = *OCTET                      ; of the hash's text as written here, up to the end of the file

The text ends at the first line ``--``. The hash may be of any algorithm; a repository uses its own for manifests and
whitelists alike. The keys and signature schemes are in :mod:`cvmfs_objstore.formats.keychain`.

Source: ``.cvmfspublished`` and ``.cvmfswhitelist``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from cvmfs_objstore.errors import FormatError, InvalidHash, SignatureError
from cvmfs_objstore.hashes import Algorithm, ContentHash

_MARK: Final = b"\n--\n"
_MAX_HASH_LINE: Final = 60


class Signer(Protocol):
    """A private key: ``keychain.MasterKey`` or ``keychain.RepositoryKey``."""

    def sign(self, text: bytes) -> bytes: ...


class Verifier(Protocol):
    """The public half of a key pair: ``keychain.PublicKey`` or ``keychain.Certificate``."""

    def verify(self, text: bytes, signature: bytes) -> bool: ...


@dataclass(frozen=True, slots=True)
class Letter:
    """A signed text. Parsing it verifies nothing."""

    text: bytes
    hash: ContentHash
    signature: bytes

    @classmethod
    def parse(cls, data: bytes) -> Letter:
        """Take the envelope apart; raises :exc:`FormatError`."""
        end = data.find(_MARK)
        if end < 0:
            raise FormatError("no line -- and so no signature")
        text, rest = data[: end + 1], data[end + len(_MARK) :]
        line, newline, signature = rest[: _MAX_HASH_LINE + 1].partition(b"\n")
        if not newline:
            raise FormatError("no hash behind the line --")
        signature = rest[len(line) + 1 :]
        try:
            return cls(text, ContentHash.parse(line.decode("ascii")), signature)
        except (InvalidHash, UnicodeDecodeError):
            raise FormatError(f"no hash behind the line --, but {line!r}") from None

    def serialize(self) -> bytes:
        return b"".join((self.text, b"--\n", self._signed_text, b"\n", self.signature))

    @classmethod
    def seal(cls, text: bytes, algorithm: Algorithm, key: Signer) -> Letter:
        """Sign *text*, which ends with a newline; raises :exc:`FormatError` if it could not be read back."""
        if not text.endswith(b"\n") or text == b"\n" or _MARK in b"\n" + text:
            raise FormatError("a text that no letter can hold")
        digest = ContentHash.of(text, algorithm)
        return cls(text, digest, key.sign(digest.bare.encode("ascii")))

    def check_hash(self) -> None:
        """Raises :exc:`SignatureError` if the hash does not match the text."""
        if ContentHash.of(self.text, self.hash.algorithm) != self.hash:
            raise SignatureError("the text does not have the hash that is signed")

    def verify(self, keys: Iterable[Verifier]) -> None:
        """Raises :exc:`SignatureError` unless the hash matches the text and was signed by one of *keys*."""
        self.check_hash()
        text = self._signed_text
        if not any(key.verify(text, self.signature) for key in keys):
            raise SignatureError("the signature is by none of the keys that count")

    @property
    def _signed_text(self) -> bytes:
        return self.hash.bare.encode("ascii")
