"""The suite's own implementation of the formats, against bytes that others made or that stand in the specification."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conformance.catalog import path_key
from conformance.objects import hash_name, object_path, raw_object
from conformance.outcomes import Failed
from conformance.pack import Pack
from conformance.session import SHIPPED, Session
from conformance.trust import Letter, Manifest, Whitelist, renewed
from conformance.websocket import BINARY, TEXT, take_frame
from conformance.wire import Key, Url, parse_head


def test_signature() -> None:
    key = Key("key1", b"secret1")
    # printf '{}' | openssl dgst -sha1 -hmac secret1 | base64
    name, text = key.authorization(b"{}").split()
    assert name == "key1"
    assert len(text) == 56


def test_pack() -> None:
    pack = Pack.of([raw_object(b"abc"), raw_object(b"", suffix="C")])
    assert pack.header == (
        b"V2\nS3\nN2\n--\nC a9993e364706816aba3e25717850c26c9cd0d89d 3\nC da39a3ee5e6b4b0d3255bfef95601890afd80709C 0\n"
    )
    assert pack.data == b"abc"
    assert pack.header_size == str(len(pack.header))


def test_names() -> None:
    assert object_path("a9993e364706816aba3e25717850c26c9cd0d89d", "C") == (
        "data/a9/993e364706816aba3e25717850c26c9cd0d89dC"
    )
    assert hash_name(b"", "-shake128") == "7f9c2ba4e88f827d616045507605853ed73b8093-shake128"


def test_path_keys() -> None:
    assert path_key("") == (338333539836370388, 9098107892288553193)
    assert path_key("/a") == (-2906336618250618618, -744252105585281751)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.zip")), ids=lambda path: path.stem)
def test_recorded_repositories(path: Path, tmp_path: Path) -> None:
    session = Session.load(path)
    store = f"srv/cvmfs/{session.fqrn}"
    manifest = Manifest.parse(session.initial[f"{store}/.cvmfspublished"])
    assert manifest.fields["N"] == session.fqrn
    Whitelist.parse(session.initial[f"{store}/.cvmfswhitelist"]).check_signature(
        session.initial[f"etc/cvmfs/keys/{session.fqrn}.pub"]
    )
    session.save(tmp_path / "again.zip")
    assert Session.load(tmp_path / "again.zip") == session


def test_a_whitelist_is_renewed() -> None:
    session = Session.load(SHIPPED / "aborted.zip")
    old = session.initial[f"srv/cvmfs/{session.fqrn}/.cvmfswhitelist"]
    moment = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    new = Whitelist.parse(renewed(old, session.initial[f"etc/cvmfs/keys/{session.fqrn}.masterkey"], moment))
    new.check_signature(session.initial[f"etc/cvmfs/keys/{session.fqrn}.pub"])
    assert (new.issued, new.expires) == (moment, moment + timedelta(days=30))
    assert (new.fqrn, new.fingerprints) == (session.fqrn, Whitelist.parse(old).fingerprints)


def test_frames() -> None:
    # Section 5.7 of RFC 6455: "Hello", not masked and masked.
    assert take_frame(bytes.fromhex("810548656c6c6f") + b"rest") == (TEXT, b"Hello", b"rest")
    assert take_frame(bytes.fromhex("818537fa213d7f9f4d5158")) == (TEXT, b"Hello", b"")
    assert take_frame(bytes.fromhex("827e0100") + bytes(256)) == (BINARY, bytes(256), b"")
    assert take_frame(bytes.fromhex("810548656c")) is None
    assert take_frame(b"\x82") is None


def test_forged_letters() -> None:
    session = Session.load(SHIPPED / "aborted.zip")
    raw = session.initial[f"srv/cvmfs/{session.fqrn}/.cvmfspublished"]
    with pytest.raises(Failed, match="hash"):
        Letter.parse(raw.replace(b"S", b"s", 1))
    with pytest.raises(Failed, match="no signed letter"):
        Letter.parse(b"rubbish")
    whitelist = session.initial[f"srv/cvmfs/{session.fqrn}/.cvmfswhitelist"]
    with pytest.raises(Failed, match="not signed"):
        Whitelist.parse(whitelist).check_signature(b"")


def test_urls() -> None:
    url = Url("https://host.example.org/prefix/")
    assert (url.host, url.port, url.path, url.secure) == ("host.example.org", 443, "/prefix", True)
    with pytest.raises(ValueError, match="no HTTP URL"):
        Url("host:4929")


def test_heads() -> None:
    assert parse_head(b"HTTP/1.1 200 OK\r\nA: b\r\nC:d\r\n\r\nrest") == (200, {"a": "b", "c": "d"}, b"rest")
    with pytest.raises(Failed):
        parse_head(b"nonsense\r\n\r\n")
