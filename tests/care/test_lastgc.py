"""When a repository was collected last, in the file that ``cvmfs_server`` keeps as well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cvmfs_gw.care.gc import Policy
from cvmfs_gw.care.lastgc import STATUS_PATH, due, last_collection, record_collection
from cvmfs_gw.engine.errors import ConfigurationError
from cvmfs_gw.engine.repository import Repository
from tests.care.collecting import Past
from tests.engine.repositories import FQRN, new_repository
from tests.engine.trees import NOW

DAY = 86_400


def configured(root: Path, keys: str, *lines: str) -> Repository:
    repository = new_repository(str(root), keys, garbage_collection=True)
    with open(repository.paths.server_conf(FQRN), "a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    return repository


def test_file(tmp_path: Path, keys: str) -> None:
    repository = configured(tmp_path, keys)
    assert last_collection(repository) is None
    repository.storage.write(STATUS_PATH, b'{"last_check": "then", "last_gc": "Tue Nov 14 22:13:20 UTC 2023"}')
    assert last_collection(repository) == NOW
    record_collection(repository, NOW + DAY)
    assert json.loads(repository.storage.read(STATUS_PATH)) == {
        "last_check": "then",
        "last_gc": "Wed Nov 15 22:13:20 UTC 2023",
    }
    for data in (b"", b"[]", b"{}", b'{"last_gc": "never"}', b'{"last_gc": 7}'):
        repository.storage.write(STATUS_PATH, data)
        assert last_collection(repository) is None


def test_collection_is_recorded(tmp_path: Path, keys: str) -> None:
    past = Past(str(tmp_path), keys)
    past.collect(Policy(revisions=0), dry_run=True)
    assert last_collection(past.repository()) is None
    past.collect(Policy(revisions=0))
    assert last_collection(past.repository()) == past.now


def test_due(tmp_path: Path, keys: str) -> None:
    repository = configured(tmp_path, keys, "CVMFS_AUTO_GC=true")
    assert due(repository, NOW) == NOW - 3 * DAY
    record_collection(repository, NOW)
    assert due(repository, NOW + DAY) is None
    assert due(repository, NOW + DAY + 1) == NOW - 2 * DAY + 1


@pytest.mark.parametrize(
    ("lines", "since"),
    [
        (("CVMFS_AUTO_GC=yes",), None),
        (("CVMFS_AUTO_GC=true", "CVMFS_AUTO_GC_LAPSE='tomorrow'"), NOW - 3 * DAY),
        (("CVMFS_AUTO_GC=true", "CVMFS_AUTO_GC_LAPSE='1 hour ago'", "CVMFS_AUTO_GC_TIMESPAN=yesterday"), NOW - DAY),
        (("CVMFS_AUTO_GC=true", "CVMFS_AUTO_GC_LAPSE='2 weeks ago'"), None),
    ],
)
def test_settings(tmp_path: Path, keys: str, lines: tuple[str, ...], since: float | None) -> None:
    repository = configured(tmp_path, keys, *lines)
    record_collection(repository, NOW - 2 * DAY)
    assert due(repository, NOW) == since


def test_settings_that_make_no_sense(tmp_path: Path, keys: str) -> None:
    repository = configured(tmp_path, keys, "CVMFS_AUTO_GC=true", "CVMFS_AUTO_GC_LAPSE='some day'")
    with pytest.raises(ConfigurationError, match="CVMFS_AUTO_GC_LAPSE"):
        due(repository, NOW)
