"""The chain of trust, link by link."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from cvmfs_objstore.errors import (
    KeyFileError,
    ManifestError,
    SignatureError,
    WhitelistError,
    WhitelistExpired,
)
from cvmfs_objstore.formats.chain import verify_chain
from cvmfs_objstore.formats.keychain import Certificate, MasterKey, PublicKey, RepositoryKey
from cvmfs_objstore.formats.manifest import Manifest
from cvmfs_objstore.formats.whitelist import Whitelist
from cvmfs_objstore.hashes import ContentHash, Suffix
from tests.objstore import reference
from tests.objstore.conftest import NOW

FQRN = "test.example.org"
MANIFEST = Manifest(ContentHash.of(b"root", suffix=Suffix.CATALOG), 4, 240, 1, FQRN)


def test_reference_chain() -> None:
    keys = PublicKey.parse_all(reference.PUBLIC_KEY)
    manifest = verify_chain(
        reference.WHITELIST, reference.CERTIFICATE, reference.MANIFEST, keys, reference.ISSUED, reference.FQRN
    )
    assert manifest.fqrn == reference.FQRN


def test_every_link(
    master_key: MasterKey, repository_key: RepositoryKey, other_key: RepositoryKey, certificate: Certificate
) -> None:
    keys = (master_key.public,)
    whitelist = Whitelist.issue(FQRN, [certificate], NOW)
    signed, manifest = whitelist.signed(master_key), MANIFEST.signed(repository_key)
    stranger = Certificate.self_signed(other_key, FQRN, NOW)
    assert verify_chain(signed, certificate.pem, manifest, keys, NOW, FQRN) == MANIFEST

    with pytest.raises(SignatureError, match="none of the keys"):
        verify_chain(signed, certificate.pem, manifest, (other_key.public,), NOW, FQRN)
    with pytest.raises(SignatureError, match="none of the keys"):
        verify_chain(signed, certificate.pem, manifest, (), NOW, FQRN)
    with pytest.raises(WhitelistExpired):
        verify_chain(signed, certificate.pem, manifest, keys, NOW + timedelta(days=31), FQRN)
    with pytest.raises(SignatureError, match="the whitelist is for"):
        verify_chain(signed, certificate.pem, manifest, keys, NOW, "other.example.org")
    with pytest.raises(SignatureError, match="not on the whitelist"):
        verify_chain(signed, stranger.pem, MANIFEST.signed(other_key), keys, NOW, FQRN)
    with pytest.raises(SignatureError, match="none of the keys"):
        verify_chain(signed, certificate.pem, MANIFEST.signed(other_key), keys, NOW, FQRN)
    moved = replace(MANIFEST, fqrn="other.example.org").signed(repository_key)
    with pytest.raises(SignatureError, match="the manifest is of"):
        verify_chain(signed, certificate.pem, moved, keys, NOW, FQRN)
    with pytest.raises(WhitelistError):
        verify_chain(b"", certificate.pem, manifest, keys, NOW, FQRN)
    with pytest.raises(KeyFileError):
        verify_chain(signed, b"", manifest, keys, NOW, FQRN)
    with pytest.raises(ManifestError):
        verify_chain(signed, certificate.pem, b"", keys, NOW, FQRN)
