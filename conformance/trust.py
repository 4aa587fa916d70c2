"""Manifest and whitelist, and what their signatures are worth.

::

    letter    = text "--\\n" <hex hash of text> "\\n" <raw signature>
    manifest    signed by the certificate's key: PKCS#1 v1.5 with SHA-1 over the hex hash
    whitelist   signed by the master key: PKCS#1 v1.5 over the hex hash itself, without a DigestInfo
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo

from conformance.objects import algorithm_of, hash_name
from conformance.outcomes import Failed

_PEM: Final = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Letter:
    """Signed text."""

    text: bytes
    hash: str
    signature: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Letter:
        """Take it apart and compare the hash; raises :exc:`Failed`."""
        text, mark, rest = raw.partition(b"--\n")
        line, newline, signature = rest.partition(b"\n")
        if not mark or not newline or not signature:
            raise Failed(f"no signed letter: {raw[:100]!r}")
        stated = line.decode("ascii", "replace")
        computed = hash_name(text, algorithm_of(stated))
        if computed != stated:
            raise Failed(f"the letter says that its hash is {stated}, but it is {computed}")
        return cls(text, stated, signature)


@dataclass(frozen=True, slots=True)
class Manifest:
    """``.cvmfspublished``: its fields by letter, and its bytes."""

    fields: dict[str, str]
    letter: Letter
    raw: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Manifest:
        """Raises :exc:`Failed`."""
        letter = Letter.parse(raw)
        fields = {line[:1]: line[1:] for line in letter.text.decode("utf-8", "replace").splitlines() if line}
        for needed in "CBRDSNXT":
            if needed not in fields:
                raise Failed(f"the manifest has no field {needed}: {fields}")
        return cls(fields, letter, raw)

    @property
    def root(self) -> str:
        """The name of the root catalog."""
        return self.fields["C"]

    @property
    def revision(self) -> int:
        return int(self.fields["S"])

    def check_signature(self, certificate: bytes) -> None:
        """Raises :exc:`Failed` unless the certificate (PEM) has signed it."""
        key: Any = x509.load_pem_x509_certificate(certificate).public_key()
        try:
            key.verify(self.letter.signature, self.letter.hash.encode(), padding.PKCS1v15(), hashes.SHA1())
        except InvalidSignature:
            raise Failed("the manifest is not signed by its certificate") from None


@dataclass(frozen=True, slots=True)
class Whitelist:
    """``.cvmfswhitelist``."""

    issued: datetime
    expires: datetime
    fqrn: str
    fingerprints: tuple[str, ...]
    letter: Letter

    @classmethod
    def parse(cls, raw: bytes) -> Whitelist:
        """Raises :exc:`Failed`."""
        letter = Letter.parse(raw)
        lines = letter.text.decode("utf-8", "replace").splitlines()
        if len(lines) < 4 or not lines[1].startswith("E") or not lines[2].startswith("N"):
            raise Failed(f"a whitelist of another form: {lines[:4]}")
        issued, expires = (
            datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC) for text in (lines[0][:14], lines[1][1:15])
        )
        prints = tuple(line.partition("#")[0].strip() for line in lines[3:])
        return cls(issued, expires, lines[2][1:], prints, letter)

    def check_signature(self, public_keys: bytes) -> None:
        """Raises :exc:`Failed` unless one of the master keys (PEM) has signed it."""
        for pem in _PEM.findall(public_keys):
            key = serialization.load_pem_public_key(pem)
            if isinstance(key, rsa.RSAPublicKey) and _recover(key, self.letter.signature) == self.letter.hash.encode():
                return
        raise Failed("the whitelist is not signed by a master key")


def renewed(whitelist: bytes, master_key: bytes, now: datetime) -> bytes:
    """The same whitelist, good for 30 days from *now*, signed by the master key (PEM)."""
    old = Whitelist.parse(whitelist)
    lines = old.letter.text.decode().splitlines()[3:]
    dates = [f"{now:%Y%m%d%H%M%S}", f"E{now + timedelta(days=30):%Y%m%d%H%M%S}", f"N{old.fqrn}"]
    text = "\n".join([*dates, *lines, ""]).encode()
    name = hash_name(text, algorithm_of(old.letter.hash))
    key = serialization.load_pem_private_key(master_key, None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise Failed("a master key that is no RSA key")
    signature = key.sign(name.encode(), padding.PKCS1v15(), NoDigestInfo())
    return text + b"--\n" + name.encode() + b"\n" + signature


def fingerprint(certificate: bytes) -> str:
    """SHA-1 of a certificate (PEM), as whitelists have it."""
    digest = x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA1())
    return ":".join(f"{byte:02X}" for byte in digest)


def _recover(key: rsa.RSAPublicKey, signature: bytes) -> bytes:
    """What was signed, without its padding of type 1; empty if there is no such padding."""
    numbers = key.public_numbers()
    size = (numbers.n.bit_length() + 7) // 8
    if len(signature) != size:
        return b""
    block = pow(int.from_bytes(signature, "big"), numbers.e, numbers.n).to_bytes(size, "big")
    found = re.fullmatch(rb"\x00\x01\xff{8,}\x00(.*)", block, re.DOTALL)
    return found.group(1) if found else b""
