from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cvmfs_notify.broker import Publication
from cvmfs_notify.errors import InvalidMessage, NotifyError, UntrustedManifest, WrongRepository
from cvmfs_notify.messages import Activity
from cvmfs_notify.trust import NothingKnown, check
from cvmfs_objstore.formats.whitelist import Whitelist
from tests.notify.support import FQRN, OTHER, UNKNOWN, FakeSource, Keys


def checked(activity: Activity, source: FakeSource | NothingKnown, now: datetime | None = None) -> Publication:
    return check(activity, source, now or datetime.now(UTC))


def test_a_good_one(keys: Keys, source: FakeSource) -> None:
    activity = Activity(FQRN, keys.manifest(7, published=99), "t")
    assert checked(activity, source) == Publication(FQRN, 7, 99, activity.serialize())


def test_forged(keys: Keys, source: FakeSource) -> None:
    forged = Activity(FQRN, keys.manifest(7, key=keys.forger))
    with pytest.raises(UntrustedManifest):
        checked(forged, source)
    assert checked(forged, NothingKnown()).revision == 7


def test_altered(keys: Keys) -> None:
    manifest = keys.manifest(7).replace(b"S7\n", b"S8\n")
    with pytest.raises(UntrustedManifest):
        checked(Activity(UNKNOWN, manifest), NothingKnown())


def test_of_another_repository(keys: Keys, source: FakeSource) -> None:
    with pytest.raises(WrongRepository, match=OTHER):
        checked(Activity(FQRN, keys.manifest(7, OTHER)), source)
    with pytest.raises(WrongRepository):
        checked(Activity(UNKNOWN, keys.manifest(7, "")), source)


@pytest.mark.parametrize("manifest", [b"x", b"\0" * 100, b"C\n--\n"])
def test_no_manifest(source: FakeSource, manifest: bytes) -> None:
    with pytest.raises(InvalidMessage):
        checked(Activity(FQRN, manifest), source)


def test_revisions_that_no_database_holds(keys: Keys) -> None:
    with pytest.raises(InvalidMessage):
        checked(Activity(UNKNOWN, keys.manifest(1 << 63, UNKNOWN)), NothingKnown())


def test_whitelists(keys: Keys, source: FakeSource) -> None:
    now = datetime.now(UTC)
    activity = Activity(FQRN, keys.manifest(7))
    for whitelist in (
        Whitelist.issue(OTHER, [keys.certificate], now).signed(keys.master),
        Whitelist.issue(FQRN, [], now).signed(keys.master),
        Whitelist.issue(FQRN, [keys.certificate], now - timedelta(days=31)).signed(keys.master),
        Whitelist.issue(FQRN, [keys.certificate], now).signed(keys.forger),
        b"",
    ):
        source.whitelists[FQRN] = whitelist
        with pytest.raises(UntrustedManifest):
            checked(activity, source)


def test_a_certificate_that_is_not_there(keys: Keys, source: FakeSource) -> None:
    other = Keys(keys.master, keys.forger, keys.certificate.self_signed(keys.forger, FQRN, datetime.now(UTC)), keys.key)
    with pytest.raises(NotifyError, match="untrusted_manifest: not in the storage"):
        checked(Activity(FQRN, other.manifest(7)), source)
