"""Keys, certificates, fingerprints, and the two ways of signing, checked against OpenSSL where it is installed."""

from __future__ import annotations

import hashlib
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from cvmfs_objstore.compression import deflate
from cvmfs_objstore.errors import KeyFileError
from cvmfs_objstore.formats.keychain import (
    PUBLIC_MODE,
    Certificate,
    MasterKey,
    PublicKey,
    RepositoryKey,
    format_fingerprint,
    parse_fingerprint,
    write_key_file,
)
from cvmfs_objstore.formats.manifest import SignedManifest
from cvmfs_objstore.hashes import Algorithm, ContentHash
from tests.objstore import reference
from tests.objstore.conftest import NOW

TEXT = b"0fb2aac284b9736e440693fb49f569f3e3d77126"
REFERENCE_FINGERPRINT = "F4:1E:3C:5A:6E:C8:BA:BC:09:17:B3:A7:40:B3:F8:1A:FA:11:1D:72"

openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program")


def run_openssl(*arguments: object) -> bytes:
    command = ["openssl", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, timeout=30).stdout


def test_master_key_signs_the_text_itself(master_key: MasterKey) -> None:
    signature = master_key.sign(TEXT)
    (public,) = PublicKey.parse_all(master_key.public_pem)
    assert public.verify(TEXT, signature)
    assert not public.verify(TEXT[:-1], signature)
    assert not public.verify(TEXT, signature[:-1])
    assert not public.verify(TEXT, bytes([signature[0] ^ 1]) + signature[1:])
    assert not public.verify(TEXT, b"")
    assert not public.verify(TEXT, signature * 2)


def test_repository_key_signs_the_hash_of_the_text(repository_key: RepositoryKey, certificate: Certificate) -> None:
    signature = repository_key.sign(TEXT)
    assert certificate.verify(TEXT, signature)
    assert not certificate.verify(TEXT + b"\n", signature)
    assert not certificate.verify(TEXT, signature[:-1])
    assert not certificate.verify(TEXT, b"")


def test_the_two_ways_are_not_exchangeable(
    master_key: MasterKey, repository_key: RepositoryKey, certificate: Certificate
) -> None:
    assert not repository_key.public.verify(TEXT, repository_key.sign(TEXT))
    assert not certificate.verify(TEXT, MasterKey.parse(repository_key.pem).sign(TEXT))
    assert not master_key.public.verify(TEXT, RepositoryKey.parse(master_key.pem).sign(TEXT))


@openssl
def test_openssl_signs_the_same(tmp_path: Path, master_key: MasterKey, repository_key: RepositoryKey) -> None:
    text, master, key = tmp_path / "text", tmp_path / "masterkey", tmp_path / "key"
    text.write_bytes(TEXT)
    master.write_bytes(master_key.pem)
    key.write_bytes(repository_key.pem)
    assert run_openssl("pkeyutl", "-inkey", master, "-sign", "-in", text) == master_key.sign(TEXT)
    assert run_openssl("dgst", "-sha1", "-sign", key, text) == repository_key.sign(TEXT)


@openssl
def test_openssl_makes_keys_that_load(tmp_path: Path) -> None:
    key, public = tmp_path / "key", tmp_path / "pub"
    run_openssl("genrsa", "-out", key, 2048)
    run_openssl("rsa", "-in", key, "-pubout", "-out", public)
    assert PublicKey.load_all(str(public)) == (MasterKey.load(str(key)).public,)


@openssl
def test_openssl_reads_a_certificate_of_ours(tmp_path: Path, certificate: Certificate) -> None:
    path = tmp_path / "crt"
    path.write_bytes(certificate.pem)
    shown = run_openssl("x509", "-in", path, "-noout", "-fingerprint", "-sha1", "-subject", "-startdate", "-enddate")
    assert certificate.fingerprint in shown.decode()
    assert "test.example.org CernVM-FS Release Managers" in shown.decode()
    assert "Nov 20 09:30:00 2026 GMT" in shown.decode()
    assert "Nov 20 09:30:00 2027 GMT" in shown.decode()


def test_reference_certificate() -> None:
    certificate = Certificate.parse(reference.CERTIFICATE)
    assert certificate.fingerprint == REFERENCE_FINGERPRINT
    assert certificate.common_name == "ref.example.org CernVM-FS Release Managers"
    assert certificate.pem == reference.CERTIFICATE
    manifest = SignedManifest.parse(reference.MANIFEST).manifest
    assert manifest.certificate is not None
    assert ContentHash.of(deflate(certificate.pem)).digest == manifest.certificate.digest


def test_self_signed(certificate: Certificate, repository_key: RepositoryKey, other_key: RepositoryKey) -> None:
    assert certificate.common_name == "test.example.org CernVM-FS Release Managers"
    assert certificate.matches(repository_key)
    assert not certificate.matches(other_key)
    assert Certificate.parse(certificate.pem).fingerprint == certificate.fingerprint


def test_a_long_name_is_cut_as_the_reference_does(repository_key: RepositoryKey) -> None:
    name = "a-very-long-repository-name.department.example.org"
    certificate = Certificate.self_signed(repository_key, name, NOW)
    assert certificate.common_name == "a-very-long-repository-name.de[...] CernVM-FS Release Managers"


def test_fingerprints_by_other_algorithms() -> None:
    certificate = Certificate.parse(reference.CERTIFICATE)
    der = certificate._certificate.public_bytes(Encoding.DER)
    digest = hashlib.shake_128(der).hexdigest(20).upper()
    text = certificate.fingerprint_by(Algorithm.SHAKE128)
    assert text == ":".join(digest[i : i + 2] for i in range(0, 40, 2)) + "-SHAKE128"
    for algorithm in Algorithm:
        fingerprint = parse_fingerprint(certificate.fingerprint_by(algorithm))
        assert fingerprint == ContentHash.of(der, algorithm)
        assert fingerprint is not None
        assert format_fingerprint(fingerprint) == certificate.fingerprint_by(algorithm)


@pytest.mark.parametrize("tail", ["", " ", " # a comment", "#comment", "\tcomment"])
def test_fingerprint_lines(tail: str) -> None:
    expected = ContentHash(bytes.fromhex(REFERENCE_FINGERPRINT.replace(":", "")))
    assert parse_fingerprint(REFERENCE_FINGERPRINT + tail) == expected
    assert parse_fingerprint(REFERENCE_FINGERPRINT.lower() + tail) == expected


@pytest.mark.parametrize("line", ["", "Vpkcs7", REFERENCE_FINGERPRINT[:-1], REFERENCE_FINGERPRINT + "0", " AB:CD"])
def test_not_fingerprints(line: str) -> None:
    assert parse_fingerprint(line) is None


def test_several_public_keys_in_one_file(tmp_path: Path, master_key: MasterKey, other_key: RepositoryKey) -> None:
    path = tmp_path / "pub"
    path.write_bytes(b"a comment\n" + other_key.public_pem + b"\n" + master_key.public_pem)
    keys = PublicKey.load_all(str(path))
    assert keys == (other_key.public, master_key.public)
    assert len({*keys, master_key.public}) == 2
    assert any(key.verify(TEXT, master_key.sign(TEXT)) for key in keys)


def test_files_and_modes(tmp_path: Path, master_key: MasterKey, certificate: Certificate) -> None:
    key, crt = tmp_path / "x.masterkey", tmp_path / "x.crt"
    master_key.write(str(key))
    assert stat.S_IMODE(key.stat().st_mode) == 0o400
    assert MasterKey.load(str(key)).public == master_key.public
    with pytest.raises(KeyFileError, match="exists"):
        master_key.write(str(key))
    write_key_file(str(crt), certificate.pem, PUBLIC_MODE)
    assert stat.S_IMODE(crt.stat().st_mode) == 0o444
    assert Certificate.load(str(crt)).fingerprint == certificate.fingerprint


def test_nothing_secret_is_shown(master_key: MasterKey, repository_key: RepositoryKey) -> None:
    assert repr(master_key) == "MasterKey(2048 bits)"
    assert str(repository_key) == "RepositoryKey(2048 bits)"
    assert repr(master_key.public) == "PublicKey(2048 bits)"
    assert repr(Certificate.parse(reference.CERTIFICATE)) == f"Certificate({REFERENCE_FINGERPRINT})"
    secret = repository_key.pem[:-200]
    with pytest.raises(KeyFileError) as caught:
        RepositoryKey.parse(secret)
    assert caught.value.__cause__ is None
    assert str(caught.value) == "a private key that cannot be read"


def test_what_is_no_key(tmp_path: Path, repository_key: RepositoryKey) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    curve_pem = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    curve_public = curve.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    encrypted = load_pem_private_key(repository_key.pem, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
    )
    for data, reason in ((b"", "cannot be read"), (curve_pem, "not RSA"), (encrypted, "encrypted")):
        with pytest.raises(KeyFileError, match=reason):
            RepositoryKey.parse(data)
    broken = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
    for data, reason in ((b"", "no public key"), (curve_public, "not RSA"), (broken, "cannot be read")):
        with pytest.raises(KeyFileError, match=reason):
            PublicKey.parse_all(data)
    with pytest.raises(KeyFileError, match="cannot be read"):
        Certificate.parse(b"no certificate")
    missing = str(tmp_path / "missing")
    for load in (RepositoryKey.load, MasterKey.load, PublicKey.load_all, Certificate.load):
        with pytest.raises(KeyFileError, match=f"cannot read {missing}: No such file"):
            load(missing)
    (tmp_path / "empty").touch()
    with pytest.raises(KeyFileError, match=r"empty: a private key that cannot be read"):
        RepositoryKey.load(str(tmp_path / "empty"))
