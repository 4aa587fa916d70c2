from __future__ import annotations

import zlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cvmfs_notify.config import RepositorySource
from cvmfs_notify.errors import UntrustedManifest
from cvmfs_notify.messages import Activity
from cvmfs_notify.remote import WHITELIST_KEPT_S, RemoteAnchors
from cvmfs_notify.trust import check
from cvmfs_objstore.formats.manifest import Manifest
from cvmfs_objstore.formats.whitelist import Whitelist
from cvmfs_objstore.hashes import ContentHash, Suffix
from tests.notify.support import FQRN, UNKNOWN, Keys

URL = "http://stratum0/cvmfs/test.example.org"


class Web:
    """What is on the web, and what was asked for."""

    def __init__(self, keys: Keys) -> None:
        self.stored = zlib.compress(keys.certificate.pem)
        self.certificate = ContentHash.of(self.stored, suffix=Suffix.CERTIFICATE)
        whitelist = Whitelist.issue(FQRN, [keys.certificate], datetime.now(UTC)).signed(keys.master)
        self.files = {f"{URL}/.cvmfswhitelist": whitelist, f"{URL}/{self.certificate.path}": self.stored}
        self.asked: list[str] = []
        self.now = 0.0

    def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        if url not in self.files:
            raise OSError("not there")
        return self.files[url]

    def activity(self, keys: Keys, revision: int = 1) -> Activity:
        root = ContentHash.of(b"", suffix=Suffix.CATALOG)
        return Activity(FQRN, Manifest(root, 1, 240, revision, FQRN, certificate=self.certificate).signed(keys.key))


@pytest.fixture
def web(keys: Keys) -> Web:
    return Web(keys)


@pytest.fixture
def anchors(keys: Keys, web: Web, tmp_path: Path) -> RemoteAnchors:
    public = tmp_path / "key.pub"
    public.write_bytes(keys.master.public_pem)
    return RemoteAnchors({FQRN: RepositorySource(URL, str(public))}, web.fetch, lambda: web.now)


def test_verified(keys: Keys, web: Web, anchors: RemoteAnchors) -> None:
    for revision in (1, 2):
        assert check(web.activity(keys, revision), anchors, datetime.now(UTC)).revision == revision
    assert len(web.asked) == 2
    web.now += WHITELIST_KEPT_S
    web.files.pop(f"{URL}/.cvmfswhitelist")
    assert check(web.activity(keys), anchors, datetime.now(UTC))
    assert len(web.asked) == 3


def test_an_unknown_repository(anchors: RemoteAnchors) -> None:
    assert anchors.anchors(UNKNOWN) is None


@pytest.mark.parametrize("stored", [b"x", zlib.compress(b"x")])
def test_another_certificate(keys: Keys, web: Web, anchors: RemoteAnchors, stored: bytes) -> None:
    web.files[f"{URL}/{web.certificate.path}"] = stored
    with pytest.raises(UntrustedManifest):
        check(web.activity(keys), anchors, datetime.now(UTC))


def test_nothing_can_be_fetched(keys: Keys, web: Web, anchors: RemoteAnchors) -> None:
    web.files.clear()
    with pytest.raises(UntrustedManifest, match="not there"):
        check(web.activity(keys), anchors, datetime.now(UTC))
