"""The whitelist: both ways, expiry to the hour, fingerprints of any algorithm."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_objstore.errors import SignatureError, WhitelistError, WhitelistExpired
from cvmfs_objstore.formats.keychain import Certificate, MasterKey, PublicKey, RepositoryKey
from cvmfs_objstore.formats.signature import Letter
from cvmfs_objstore.formats.whitelist import SignedWhitelist, Whitelist
from cvmfs_objstore.hashes import Algorithm
from tests.objstore import reference
from tests.objstore.conftest import NOW

FIRST = "F4:1E:3C:5A:6E:C8:BA:BC:09:17:B3:A7:40:B3:F8:1A:FA:11:1D:72"
SECOND = "00:1E:3C:5A:6E:C8:BA:BC:09:17:B3:A7:40:B3:F8:1A:FA:11:1D:72-RMD160"
TEXT = f"""\
20261120093000
E20261220093000
Ntest.example.org
Wcachain
some line of the future
{FIRST} # somebody
{SECOND}
""".encode()
WHITELIST = Whitelist(
    issued=NOW,
    expires=NOW + timedelta(days=30),
    fqrn="test.example.org",
    fingerprints=(f"{FIRST} # somebody", SECOND),
    unknown=("Wcachain", "some line of the future"),
)


def test_fixture_both_ways() -> None:
    assert Whitelist.parse(TEXT) == WHITELIST
    assert WHITELIST.serialize() == TEXT


def test_reference_whitelist() -> None:
    signed = SignedWhitelist.parse(reference.WHITELIST)
    expected = Whitelist(reference.ISSUED, reference.EXPIRES, reference.FQRN, (FIRST,))
    assert signed.whitelist == expected
    assert expected.serialize() == signed.letter.text
    keys = PublicKey.parse_all(reference.PUBLIC_KEY)
    assert signed.verify(keys, reference.ISSUED) == expected
    assert expected.lists(Certificate.parse(reference.CERTIFICATE))


def test_times_of_other_zones() -> None:
    east = timezone(timedelta(hours=5))
    moved = replace(WHITELIST, issued=NOW.astimezone(east), expires=WHITELIST.expires.astimezone(east))
    assert moved.serialize() == TEXT


def test_expiry_counts_to_the_hour() -> None:
    hour = datetime(2026, 12, 20, 9, 0, 0, tzinfo=UTC)
    assert not WHITELIST.is_expired(NOW)
    assert not WHITELIST.is_expired(hour - timedelta(seconds=1))
    assert WHITELIST.is_expired(hour)
    assert WHITELIST.is_expired(hour.astimezone(timezone(timedelta(hours=-3))))


def test_contains() -> None:
    assert WHITELIST.contains(FIRST)
    assert WHITELIST.contains(FIRST.lower() + " # another comment")
    assert WHITELIST.contains(SECOND)
    assert not WHITELIST.contains(SECOND.removesuffix("-RMD160"))
    with pytest.raises(WhitelistError):
        WHITELIST.contains("F4:1E")


@pytest.mark.parametrize("algorithm", Algorithm)
def test_issue_sign_verify(
    algorithm: Algorithm, master_key: MasterKey, other_key: RepositoryKey, certificate: Certificate
) -> None:
    whitelist = Whitelist.issue("test.example.org", [certificate], NOW, algorithm=algorithm)
    assert whitelist.expires - whitelist.issued == timedelta(days=30)
    assert whitelist.lists(certificate)
    assert not whitelist.lists(Certificate.parse(reference.CERTIFICATE))
    data = whitelist.signed(master_key)
    assert Letter.parse(data).hash.algorithm is algorithm
    signed = SignedWhitelist.parse(data)
    assert signed.verify((other_key.public, master_key.public), NOW) == whitelist
    with pytest.raises(SignatureError):
        signed.verify((other_key.public,), NOW)
    with pytest.raises(SignatureError):
        SignedWhitelist.parse(data.replace(b"test.", b"rest.")).verify((master_key.public,), NOW)
    with pytest.raises(WhitelistExpired, match="2026-12-20 09:00 UTC"):
        signed.verify((master_key.public,), NOW + timedelta(days=30))


def test_the_algorithm_may_be_chosen(master_key: MasterKey) -> None:
    for whitelist in (WHITELIST, replace(WHITELIST, fingerprints=())):
        assert Letter.parse(whitelist.signed(master_key)).hash.algorithm is Algorithm.SHA1
        chosen = Letter.parse(whitelist.signed(master_key, Algorithm.SHAKE128))
        assert chosen.hash.algorithm is Algorithm.SHAKE128


def test_what_is_demanded_but_not_supported(master_key: MasterKey) -> None:
    for line in ("Vpkcs7", "Wcachain"):
        data = replace(WHITELIST, unknown=(line,)).signed(master_key)
        with pytest.raises(SignatureError, match=line):
            SignedWhitelist.parse(data).verify((master_key.public,), NOW)


def test_renewed_keeps_all_but_the_times() -> None:
    later = NOW + timedelta(days=20, microseconds=5)
    renewed = WHITELIST.renewed(later)
    assert renewed.issued == NOW + timedelta(days=20)
    assert renewed.expires == NOW + timedelta(days=50)
    assert replace(renewed, issued=WHITELIST.issued, expires=WHITELIST.expires) == WHITELIST


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"20261120093000\nE20261220093000\n",
        b"20261120093000\nE20261220093000\nNname",
        b"2026112009300\nE20261220093000\nNname\n",
        b"20261320093000\nE20261220093000\nNname\n",
        b"20261120093000\n20261220093000\nNname\n",
        b"20261120093000\nE20261220093000\nname\n",
        b"20261120093000\nE2026122009300 \nNname\n",
    ],
)
def test_what_is_no_whitelist(text: bytes) -> None:
    with pytest.raises(WhitelistError):
        Whitelist.parse(text)


def test_what_is_no_letter() -> None:
    with pytest.raises(WhitelistError):
        SignedWhitelist.parse(TEXT)


def test_values_that_cannot_be_held() -> None:
    with pytest.raises(WhitelistError, match="not a fingerprint"):
        replace(WHITELIST, fingerprints=("F4:1E",)).serialize()
    with pytest.raises(WhitelistError, match="line break"):
        replace(WHITELIST, fqrn="a\nb").serialize()


@given(st.binary(max_size=200))
def test_garbage(data: bytes) -> None:
    for parse in (Whitelist.parse, SignedWhitelist.parse):
        with pytest.raises(WhitelistError):
            parse(data)
