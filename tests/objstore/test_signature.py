"""Letters: text, hash, signature."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_objstore.errors import FormatError, SignatureError
from cvmfs_objstore.formats.keychain import Certificate, MasterKey, PublicKey, RepositoryKey
from cvmfs_objstore.formats.signature import Letter
from cvmfs_objstore.hashes import Algorithm, ContentHash
from tests.objstore import reference

TEXT = b"Cabc\nNname\n"
LETTER = b"Cabc\nNname\n--\n1f8bcb94d13b02d6a5e0e1f22b48a3d1b0c3bc0b-shake128\n\x00sig\n--\nnature\xff"


def test_fixture_both_ways() -> None:
    letter = Letter.parse(LETTER)
    assert letter.text == TEXT
    assert str(letter.hash) == "1f8bcb94d13b02d6a5e0e1f22b48a3d1b0c3bc0b-shake128"
    assert letter.hash.algorithm is Algorithm.SHAKE128
    assert letter.signature == b"\x00sig\n--\nnature\xff"
    assert letter.serialize() == LETTER


@pytest.mark.parametrize("data", [reference.MANIFEST, reference.WHITELIST])
def test_reference_letters(data: bytes) -> None:
    letter = Letter.parse(data)
    letter.check_hash()
    assert len(letter.signature) == 256
    assert letter.serialize() == data


def test_reference_signatures() -> None:
    certificate = Certificate.parse(reference.CERTIFICATE)
    keys = PublicKey.parse_all(reference.PUBLIC_KEY)
    Letter.parse(reference.MANIFEST).verify((certificate,))
    Letter.parse(reference.WHITELIST).verify(keys)
    with pytest.raises(SignatureError, match="none of the keys"):
        Letter.parse(reference.MANIFEST).verify(keys)
    with pytest.raises(SignatureError, match="none of the keys"):
        Letter.parse(reference.WHITELIST).verify((certificate,))
    with pytest.raises(SignatureError, match="none of the keys"):
        Letter.parse(reference.WHITELIST).verify(())


@pytest.mark.parametrize("algorithm", Algorithm)
def test_seal_and_verify(
    algorithm: Algorithm, master_key: MasterKey, repository_key: RepositoryKey, certificate: Certificate
) -> None:
    for key, public in ((master_key, master_key.public), (repository_key, certificate)):
        letter = Letter.seal(TEXT, algorithm, key)
        again = Letter.parse(letter.serialize())
        assert again == letter
        assert again.hash == ContentHash.of(TEXT, algorithm)
        again.verify((public,))
        # the hash line is signed with its algorithm's tag
        assert public.verify(str(letter.hash).encode(), letter.signature)


def test_changed_text(repository_key: RepositoryKey, certificate: Certificate) -> None:
    data = Letter.seal(TEXT, Algorithm.SHA1, repository_key).serialize()
    with pytest.raises(SignatureError, match="does not have the hash"):
        Letter.parse(data.replace(b"Nname", b"Nfame")).verify((certificate,))


def test_exchanged_hash(repository_key: RepositoryKey, certificate: Certificate) -> None:
    ours = Letter.seal(TEXT, Algorithm.SHA1, repository_key)
    forged = Letter(b"Cevil\n", ContentHash.of(b"Cevil\n"), ours.signature)
    forged.check_hash()
    with pytest.raises(SignatureError, match="none of the keys"):
        forged.verify((certificate,))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"Cabc\n",
        b"--\n" + b"0" * 40 + b"\n",
        b"Cabc\n--",
        b"Cabc\n--\n",
        b"Cabc\n--\n" + b"0" * 40,
        b"Cabc\n--\n" + b"0" * 39 + b"\nsig",
        b"Cabc\n--\n" + b"0" * 40 + b"-md5\nsig",
        b"Cabc\n--\n" + b"A" * 40 + b"\nsig",
        b"Cabc\n--\n\xff\nsig",
        b"Cabc\n--\n" + b"0" * 1000 + b"\nsig",
    ],
)
def test_what_is_no_letter(data: bytes) -> None:
    with pytest.raises(FormatError):
        Letter.parse(data)


@pytest.mark.parametrize("text", [b"", b"no newline", b"\n", b"a\n--\nb\n", b"--\nb\n"])
def test_what_cannot_be_sealed(text: bytes, repository_key: RepositoryKey) -> None:
    with pytest.raises(FormatError):
        Letter.seal(text, Algorithm.SHA1, repository_key)


class Echo:
    def sign(self, text: bytes) -> bytes:
        return text[::-1]

    def verify(self, text: bytes, signature: bytes) -> bool:
        return signature == text[::-1]


@given(st.binary(max_size=200).map(lambda text: text + b"\n"), st.sampled_from(Algorithm))
def test_any_text_that_can_be_sealed_comes_back(text: bytes, algorithm: Algorithm) -> None:
    try:
        letter = Letter.seal(text, algorithm, Echo())
    except FormatError:
        return
    assert Letter.parse(letter.serialize()) == letter
    letter.verify((Echo(),))


@given(st.binary(max_size=300))
def test_garbage(data: bytes) -> None:
    try:
        letter = Letter.parse(data)
    except FormatError:
        return
    assert letter.serialize() == data
