"""What is known of a key before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvmfs_gw.client.errors import ClientError, GatewayRefused
from cvmfs_gw.client.gateway import GatewayClient
from cvmfs_gw.client.keys import check_key, read_key_file
from cvmfs_gw.gateway.authorization import Key
from tests.client.support import Server
from tests.engine.repositories import FQRN


class Gateway(GatewayClient):
    """One that answers *reason* to whoever gives back a lease that nobody has, and opens *keys*."""

    def __init__(self, reason: str, keys: dict[str, str] | None) -> None:
        super().__init__("http://127.0.0.1:1/api/v1", Key("id", b"secret"))
        self._reason, self._keys = reason, keys

    def release(self, token: str) -> None:
        raise GatewayRefused("release", self._reason)

    def keys(self, fqrn: str) -> dict[str, str] | None:
        return self._keys


@pytest.mark.parametrize(
    ("keys", "targets"),
    [
        (None, ["/a"]),
        ({"id": "/"}, ["", "/a"]),
        ({"id": ""}, ["", "/a"]),
        ({"other": "/b", "id": "/a"}, ["/a", "/a/b", "", "/ab"]),
        ({"id": "/a/b/"}, ["/a", "/a/b", "/a/b/c"]),
        ({"id": "a"}, ["/a"]),
    ],
)
def test_keys_that_may_be_right(keys: dict[str, str] | None, targets: list[str]) -> None:
    check_key(Gateway("invalid_lease", keys), "a.org", targets)


@pytest.mark.parametrize(
    ("reason", "keys", "targets", "expected"),
    [
        ("invalid_hmac", {"id": "/"}, ["/a"], "invalid_hmac"),
        ("invalid_lease", {}, ["/a"], "invalid_key"),
        ("invalid_lease", {"other": "/"}, ["/a"], "invalid_key"),
        ("invalid_lease", {"id": "/a"}, ["/b"], "invalid_path"),
        ("invalid_lease", {"id": "/a/b"}, ["/a/b", "/a/c"], "invalid_path"),
    ],
)
def test_keys_that_are_wrong(reason: str, keys: dict[str, str], targets: list[str], expected: str) -> None:
    with pytest.raises(GatewayRefused, match="key id: ") as info:
        check_key(Gateway(reason, keys), "a.org", targets)
    assert info.value.reason == expected


def test_gateway(server: Server) -> None:
    """Nothing is left of a question, and a repository that the gateway has not is named."""
    client = server.client()
    check_key(client, FQRN, ["", "/a"])
    assert client.acquire(f"{FQRN}/")
    check_key(client, FQRN, ["/a"])
    with pytest.raises(GatewayRefused, match="repository other") as info:
        check_key(client, "other.example.org", ["/a"])
    assert info.value.reason == "invalid_repo"
    client.close()


def test_key_files(tmp_path: Path) -> None:
    path = tmp_path / "key.gw"
    for text in ("plain_text id secret", "plain_text   id\tsecret  \n", "\tplain_text id secret\nanything"):
        path.write_text(text)
        assert read_key_file(str(path)) == Key("id", b"secret")
    for data in (b"", b"\n", b"plain_text id", b"plain_text id secret more", b"rsa id secret", b"\xff\xff \xff"):
        path.write_bytes(data)
        with pytest.raises(ClientError):
            read_key_file(str(path))
    with pytest.raises(ClientError):
        read_key_file(str(tmp_path / "missing.gw"))
