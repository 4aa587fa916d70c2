"""The manifest: every line both ways, the reference's own, signing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_objstore.errors import ManifestError, SignatureError
from cvmfs_objstore.formats.keychain import Certificate, RepositoryKey
from cvmfs_objstore.formats.manifest import Manifest, SignedManifest
from cvmfs_objstore.formats.signature import Letter
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from tests.objstore import reference

FULL_TEXT = b"""\
C600230b0ba7620426f2e898f1e1f43c5466efe59
B16384
Rd41d8cd98f00b204e9800998ecf8427e
D240
S17
Gyes
Ano
L0000000000000000000000000000000000000001
Ntest.example.org
X0000000000000000000000000000000000000002
H0000000000000000000000000000000000000003
T1795169786
M0000000000000000000000000000000000000004
Y0000000000000000000000000000000000000005
Zfirst channel
Zsecond channel
Qfuture \xff
"""


def numbered(n: int, suffix: Suffix = Suffix.NONE) -> ContentHash:
    return ContentHash(n.to_bytes(20, "big"), Algorithm.SHA1, suffix)


FULL = Manifest(
    root_hash=ContentHash.parse("600230b0ba7620426f2e898f1e1f43c5466efe59C"),
    root_size=16384,
    ttl=240,
    revision=17,
    fqrn="test.example.org",
    garbage_collectable=True,
    has_alt_catalog_path=False,
    micro_catalog=numbered(1, Suffix.MICRO_CATALOG),
    certificate=numbered(2, Suffix.CERTIFICATE),
    history=numbered(3, Suffix.HISTORY),
    published=1795169786,
    meta_info=numbered(4, Suffix.METAINFO),
    reflog_hash=numbered(5),
    unknown=("Zfirst channel", "Zsecond channel", "Qfuture \udcff"),
)

SMALL_TEXT = b"""\
C600230b0ba7620426f2e898f1e1f43c5466efe59-shake128
B0
Rd41d8cd98f00b204e9800998ecf8427e
D900
S0
Gno
Ayes
"""
SMALL = Manifest(
    root_hash=ContentHash.parse("600230b0ba7620426f2e898f1e1f43c5466efe59-shake128C"),
    root_size=0,
    ttl=900,
    revision=0,
    has_alt_catalog_path=True,
)


@pytest.mark.parametrize(("text", "manifest"), [(FULL_TEXT, FULL), (SMALL_TEXT, SMALL)])
def test_fixtures_both_ways(text: bytes, manifest: Manifest) -> None:
    assert Manifest.parse(text) == manifest
    assert manifest.serialize() == text


def test_reference_manifest() -> None:
    signed = SignedManifest.parse(reference.MANIFEST)
    assert signed.manifest.fqrn == reference.FQRN
    assert signed.manifest.revision == 1
    assert signed.manifest.unknown == ()
    assert signed.manifest.serialize() == signed.letter.text
    assert signed.verify(Certificate.parse(reference.CERTIFICATE)) is signed.manifest


@pytest.mark.parametrize("algorithm", Algorithm)
def test_signing(
    algorithm: Algorithm, repository_key: RepositoryKey, other_key: RepositoryKey, certificate: Certificate
) -> None:
    root = ContentHash(bytes(range(20)), algorithm, Suffix.CATALOG)
    manifest = replace(FULL, root_hash=root)
    data = manifest.signed(repository_key)
    signed = SignedManifest.parse(data)
    assert signed == SignedManifest.parse(data)
    assert signed.manifest == manifest
    assert signed.letter.hash.algorithm is algorithm
    assert signed.verify(certificate) == manifest
    with pytest.raises(SignatureError):
        SignedManifest.parse(manifest.signed(other_key)).verify(certificate)
    with pytest.raises(SignatureError):
        SignedManifest.parse(data.replace(b"S17", b"S18")).verify(certificate)


def test_the_algorithm_may_be_chosen(repository_key: RepositoryKey) -> None:
    letter = Letter.parse(FULL.signed(repository_key, Algorithm.RMD160))
    assert letter.hash.algorithm is Algorithm.RMD160


def test_order_and_empty_lines_do_not_matter() -> None:
    lines = FULL_TEXT.split(b"\n")
    known, unknown = lines[:14], lines[14:]
    assert Manifest.parse(b"\n".join([*reversed(known), b"", *unknown])) == FULL


def test_optional_lines() -> None:
    text = b"C600230b0ba7620426f2e898f1e1f43c5466efe59\nRd41d8cd98f00b204e9800998ecf8427e\nD1\nS2\n"
    manifest = Manifest.parse(text)
    assert (manifest.root_size, manifest.fqrn, manifest.published) == (0, "", 0)
    assert manifest.certificate is None


@pytest.mark.parametrize("key", "CRDS")
def test_required_lines(key: str) -> None:
    lines = [line for line in FULL_TEXT.split(b"\n") if not line.startswith(key.encode())]
    with pytest.raises(ManifestError, match=f"no line {key}"):
        Manifest.parse(b"\n".join(lines))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"S17", b"S-1", "line S is not a number"),
        (b"S17", b"S", "line S is not a number"),
        (b"D240", b"D4m", "line D is not a number"),
        (b"B16384", b"B1 6384", "line B is not a number"),
        (b"T1795169786", "T\u0661".encode(), "line T is not a number"),
        (b"S17", b"S" + b"9" * 30, "line S is not a number"),
        (b"Rd41d", b"Rd41", "line R is not an MD5"),
        (b"C6002", b"C60", "line C"),
        (b"C600230b0ba7620426f2e898f1e1f43c5466efe59", b"C", "line C is empty"),
        (b"X0000000000000000000000000000000000000002", b"X0000000000000000000000000000000000000002C", "line X"),
        (b"S17\n", b"S17\nS18\n", "two lines S"),
        (b"S17\n", b"S17\n--\n", "signed"),
    ],
)
def test_what_is_no_manifest(old: bytes, new: bytes, reason: str) -> None:
    assert old in FULL_TEXT
    with pytest.raises(ManifestError, match=reason):
        Manifest.parse(FULL_TEXT.replace(old, new))


def test_what_is_no_letter() -> None:
    for data in (b"", FULL_TEXT, b"\0" * 100):
        with pytest.raises(ManifestError):
            SignedManifest.parse(data)


def test_line_breaks_in_values() -> None:
    with pytest.raises(ManifestError, match="line break"):
        replace(FULL, fqrn="a\nS99").serialize()
    with pytest.raises(ManifestError, match="line break"):
        replace(FULL, unknown=("Za\nS99",)).serialize()


def hashes(suffix: Suffix) -> st.SearchStrategy[ContentHash]:
    return st.builds(ContentHash, st.binary(min_size=20, max_size=20), st.sampled_from(Algorithm), st.just(suffix))


def maybe(suffix: Suffix) -> st.SearchStrategy[ContentHash | None]:
    return st.none() | hashes(suffix)


names = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(0, 2**63)


@given(
    st.builds(
        Manifest,
        root_hash=hashes(Suffix.CATALOG),
        root_size=numbers,
        ttl=numbers,
        revision=numbers,
        fqrn=names,
        garbage_collectable=st.booleans(),
        has_alt_catalog_path=st.booleans(),
        micro_catalog=maybe(Suffix.MICRO_CATALOG),
        certificate=maybe(Suffix.CERTIFICATE),
        history=maybe(Suffix.HISTORY),
        published=numbers,
        meta_info=maybe(Suffix.METAINFO),
        reflog_hash=maybe(Suffix.NONE),
        unknown=st.lists(names.map(lambda text: "Z" + text)).map(tuple),
    )
)
def test_round_trip(manifest: Manifest) -> None:
    assert Manifest.parse(manifest.serialize()) == manifest


@given(st.binary(max_size=300))
def test_garbage(data: bytes) -> None:
    for parse in (Manifest.parse, SignedManifest.parse):
        with pytest.raises(ManifestError):
            parse(data)
