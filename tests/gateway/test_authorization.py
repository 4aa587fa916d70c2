from __future__ import annotations

import base64

import pytest

from cvmfs_gw.gateway.authorization import Key, mac, parse_header, sign, verify

KEY = Key("id", b"big_secret")


def test_the_header_holds_hex_text() -> None:
    text = mac(b"big_secret", b"hello")
    assert len(text) == 40
    assert text == text.lower()
    assert sign(KEY, b"hello") == f"id {base64.b64encode(text).decode()}"


def test_rfc_2202() -> None:
    assert mac(b"Jefe", b"what do ya want for nothing?") == b"effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"


def test_sign_and_verify() -> None:
    parsed = parse_header(sign(KEY, b"message"))
    assert parsed is not None
    key_id, claimed = parsed
    assert key_id == "id"
    assert verify(KEY, claimed, b"message")
    assert not verify(KEY, claimed, b"massage")
    assert not verify(Key("id", b"other"), claimed, b"message")
    assert not verify(None, claimed, b"message")


def test_an_unknown_key_is_never_right() -> None:
    assert not verify(None, mac(b"a secret that nobody has", b""), b"")


@pytest.mark.parametrize(
    "header", [None, "", " ", "id", "id a b", "id ???", "id YQ", "id \xe9\xe9\xe9\xe9", "x" * 5000]
)
def test_no_headers(header: str | None) -> None:
    assert parse_header(header) is None


def test_the_secret_does_not_show() -> None:
    assert "big_secret" not in repr(KEY)
