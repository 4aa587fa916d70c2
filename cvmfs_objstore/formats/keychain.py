"""The keys of a repository, and the two ways of signing that CernVM-FS knows.

::

    <fqrn>.masterkey   MasterKey       signs the whitelist
    <fqrn>.pub         PublicKey       ... and is what clients have to check it
    <fqrn>.key         RepositoryKey   signs the manifest
    <fqrn>.crt         Certificate     ... holds its public half; the whitelist lists its fingerprint

All are RSA in PEM. What is signed is the hexadecimal text of a hash:

* by a :class:`RepositoryKey`: PKCS #1 v1.5 with SHA-1, that is, a DigestInfo of the SHA-1 *of that text*;
* by a :class:`MasterKey`: the text itself between PKCS #1 type 1 padding, without a DigestInfo.

Private keys appear in no ``repr`` and in no error message.

Source: ``cvmfs_server mkfs`` and ``resign``; RFC 8017, sections 8.2 and 9.2.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Self, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import NameOID

from cvmfs_objstore.errors import KeyFileError
from cvmfs_objstore.hashes import Algorithm, ContentHash

PRIVATE_MODE: Final = 0o400
PUBLIC_MODE: Final = 0o444
KEY_BITS: Final = 2048

CERTIFICATE_DAYS: Final = 365
"""Validity of a new certificate. Nobody checks it: trust is decided by the whitelist."""

_COMMON_NAME: Final = " CernVM-FS Release Managers"
_MAX_FQRN: Final = 30  # X.520 limits a common name to 64 characters

_T = TypeVar("_T")
_MAX_KEY_FILE: Final = 1 << 20
_PADDING: Final = padding.PKCS1v15()
_SHA1: Final = SHA1()  # the format's: what is signed is the text of a hash
_PEM_PUBLIC: Final = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)

# FINGERPRINT = 2HEX 19(":" 2HEX) ["-" algorithm]; then nothing, white space, or a comment
_FINGERPRINT: Final = re.compile(r"([0-9A-F]{2}(?::[0-9A-F]{2}){19})(-RMD160|-SHAKE128)?(?=$|[ \t#])", re.IGNORECASE)


class PublicKey:
    """The public half of a master key."""

    __slots__ = ("_key",)

    def __init__(self, key: rsa.RSAPublicKey) -> None:
        self._key = key

    def __repr__(self) -> str:
        return f"PublicKey({self._key.key_size} bits)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self.pem)

    @property
    def pem(self) -> bytes:
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @classmethod
    def parse_all(cls, data: bytes) -> tuple[PublicKey, ...]:
        """All keys of a PEM text; raises :exc:`KeyFileError`, also if there are none."""
        keys = []
        for block in _PEM_PUBLIC.findall(data):
            try:
                key = load_pem_public_key(block)
            except (ValueError, UnsupportedAlgorithm):
                raise KeyFileError("a public key that cannot be read") from None
            if not isinstance(key, rsa.RSAPublicKey):
                raise KeyFileError("a public key that is not RSA")
            keys.append(cls(key))
        if not keys:
            raise KeyFileError("no public key")
        return tuple(keys)

    @classmethod
    def load_all(cls, path: str) -> tuple[PublicKey, ...]:
        """All keys of a file; raises :exc:`KeyFileError`."""
        return _named(path, cls.parse_all)

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Whether *signature* is the matching :class:`MasterKey`'s signature of exactly *text*."""
        try:
            return self._key.recover_data_from_signature(signature, _PADDING, NoDigestInfo()) == text
        except (InvalidSignature, ValueError):
            return False


class _PrivateKey:
    """Common parts of both kinds of private keys."""

    __slots__ = ("_key",)

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._key.key_size} bits)"

    @classmethod
    def generate(cls) -> Self:
        """A new key of :data:`KEY_BITS` bits. Takes a tenth of a second or so."""
        return cls(rsa.generate_private_key(65537, KEY_BITS))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The key of an unencrypted PEM text (PKCS #1 or PKCS #8); raises :exc:`KeyFileError`."""
        try:
            # Checking the key's primes takes longer than all the rest of a publish. Whoever can tamper with the key
            # file can sign manifests anyway.
            key = load_pem_private_key(data, None, unsafe_skip_rsa_key_validation=True)
        except TypeError:
            raise KeyFileError("a private key that is encrypted") from None
        except (ValueError, UnsupportedAlgorithm):
            raise KeyFileError("a private key that cannot be read") from None
        if not isinstance(key, rsa.RSAPrivateKey):
            raise KeyFileError("a private key that is not RSA")
        return cls(key)

    @classmethod
    def load(cls, path: str) -> Self:
        """The key of a file; raises :exc:`KeyFileError`."""
        return _named(path, cls.parse)

    @property
    def pem(self) -> bytes:
        """The **private** key, unencrypted, in PKCS #1, which every OpenSSL reads."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())

    @property
    def public(self) -> PublicKey:
        return PublicKey(self._key.public_key())

    @property
    def public_pem(self) -> bytes:
        return self.public.pem

    def write(self, path: str) -> None:
        """Write the private key to a new file that only its owner may read; raises :exc:`KeyFileError`."""
        write_key_file(path, self.pem, PRIVATE_MODE)


class MasterKey(_PrivateKey):
    """The private key that signs whitelists."""

    __slots__ = ()

    def sign(self, text: bytes) -> bytes:
        """The padded *text* itself: raw PKCS #1 type 1."""
        return self._key.sign(text, _PADDING, NoDigestInfo())


class RepositoryKey(_PrivateKey):
    """The private key that signs manifests."""

    __slots__ = ()

    def sign(self, text: bytes) -> bytes:
        """PKCS #1 v1.5 with the SHA-1 of *text*."""
        return self._key.sign(text, _PADDING, _SHA1)


class Certificate:
    """An X.509 certificate, with exactly the PEM text that it was read from."""

    __slots__ = ("_certificate", "_key", "pem")

    def __init__(self, certificate: x509.Certificate, pem: bytes) -> None:
        try:
            key = certificate.public_key()
        except (ValueError, UnsupportedAlgorithm):
            raise KeyFileError("a certificate whose key cannot be read") from None
        if not isinstance(key, rsa.RSAPublicKey):
            raise KeyFileError("a certificate whose key is not RSA")
        self._certificate = certificate
        self._key = key
        self.pem = pem

    def __repr__(self) -> str:
        return f"Certificate({self.fingerprint})"

    @classmethod
    def self_signed(cls, key: RepositoryKey, fqrn: str, now: datetime, days: int = CERTIFICATE_DAYS) -> Certificate:
        """A new certificate for *key*, as ``cvmfs_server mkfs`` makes it, valid from *now*."""
        name = fqrn if len(fqrn) <= _MAX_FQRN else f"{fqrn[:_MAX_FQRN]}[...]"
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name + _COMMON_NAME)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now.astimezone(UTC))
            .not_valid_after(now.astimezone(UTC) + timedelta(days=days))
            .sign(key._key, SHA256())
        )
        return cls(certificate, certificate.public_bytes(Encoding.PEM))

    @classmethod
    def parse(cls, data: bytes) -> Certificate:
        """The first certificate of a PEM text; raises :exc:`KeyFileError`."""
        try:
            return cls(x509.load_pem_x509_certificate(data), data)
        except ValueError:
            raise KeyFileError("a certificate that cannot be read") from None

    @classmethod
    def load(cls, path: str) -> Certificate:
        """The certificate of a file; raises :exc:`KeyFileError`."""
        return _named(path, cls.parse)

    @property
    def common_name(self) -> str:
        names = self._certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if names else ""

    @property
    def fingerprint(self) -> str:
        """``AB:CD:...``, the SHA-1 of the certificate in DER, as OpenSSL prints it."""
        return self.fingerprint_by(Algorithm.SHA1)

    def fingerprint_by(self, algorithm: Algorithm) -> str:
        """The fingerprint by another algorithm, whose name is appended: ``AB:...:CD-RMD160``."""
        return format_fingerprint(ContentHash.of(self._certificate.public_bytes(Encoding.DER), algorithm))

    def matches(self, key: RepositoryKey) -> bool:
        """Whether *key* is the private key of this certificate."""
        return self._key.public_numbers() == key._key.public_key().public_numbers()

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Whether *signature* is the matching :class:`RepositoryKey`'s signature of exactly *text*."""
        try:
            self._key.verify(signature, text, _PADDING, _SHA1)
        except InvalidSignature:
            return False
        return True


def format_fingerprint(digest: ContentHash) -> str:
    """``AB:CD:...``, with the algorithm's tag if it is not SHA-1."""
    return digest.digest.hex(":").upper() + digest.algorithm.tag.upper()


def parse_fingerprint(line: str) -> ContentHash | None:
    """The fingerprint that *line* begins with, whatever follows it; None if it begins with none."""
    match = _FINGERPRINT.match(line)
    if match is None:
        return None
    return ContentHash.parse(match[1].replace(":", "").lower() + (match[2] or "").lower())


def write_key_file(path: str, data: bytes, mode: int) -> None:
    """Create a key file with exactly this mode; raises :exc:`KeyFileError`, also if one exists: none is replaced."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_MODE)
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
    except OSError as error:
        raise KeyFileError(f"cannot write {path}: {error.strerror}") from None


def _named(path: str, parse: Callable[[bytes], _T]) -> _T:
    """Parse the file with *parse*, adding the file's name to its error messages."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_KEY_FILE)
    except OSError as error:
        raise KeyFileError(f"cannot read {path}: {error.strerror}") from None
    try:
        return parse(data)
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error}") from None
