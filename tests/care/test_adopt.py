"""Repositories that were made elsewhere are taken over: linked, in place, with their settings."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_gw.care.adopt import Adopted, Adoption, Way, adopt
from cvmfs_gw.care.check import CheckOptions, check_repository
from cvmfs_gw.care.resign import resign_whitelist
from cvmfs_gw.care.settings import DECIDED, MEANINGLESS, TAKEN, Fate, read_settings
from cvmfs_gw.care.snapshot import export
from cvmfs_gw.care.targets import FolderTarget
from cvmfs_gw.engine.errors import ConfigurationError, Conflict, MissingObject, SigningError
from cvmfs_gw.engine.repository import MANIFEST_PATH, Repository
from cvmfs_gw.gateway.access import Access
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.serverconf import ServerConf
from cvmfs_objstore.compression import deflate
from cvmfs_objstore.hashes import ContentHash
from tests.care.collecting import IGNORED, Past, content_of
from tests.engine.repositories import FQRN, files


@pytest.fixture
def past(tmp_path: Path, keys: str) -> Past:
    made = Past(str(tmp_path / "root"), keys)
    made.commit({"/n": b"/", "/n/big": b"one\ntwo", "/f": b"2"}, "tagged", nest=("/n",))
    made.commit({"/f": b"3", "/n/big": b"one\nthree"})
    resign_whitelist(made.repository(), made.now)
    return made


@pytest.fixture
def elsewhere(tmp_path: Path) -> SystemPaths:
    return SystemPaths(str(tmp_path / "elsewhere"))


def storage_of(past: Past) -> str:
    return past.paths.repository_storage(FQRN)


def take(past: Past, paths: SystemPaths, way: Way, **more: object) -> Adopted:
    source = Adoption(storage_of(past), past.paths.keys, way=way, **more)  # type: ignore[arg-type]
    return adopt(FQRN, paths, {}, source, past.now)


def check(paths: SystemPaths, now: float) -> Repository:
    repository = Repository(FQRN, paths, {}, durable=False)
    report = check_repository(repository, CheckOptions(every_tag=True, integrity=True), now)
    assert [str(fault) for fault in report.faults if fault.kind.code not in IGNORED] == []
    return repository


def damage(past: Past) -> None:
    name = ContentHash.of(deflate(b"3"))
    path = Path(storage_of(past), name.path)
    size = path.stat().st_size
    path.unlink()
    path.write_bytes(b"x" * size)


def test_links(past: Past, elsewhere: SystemPaths) -> None:
    before = files(storage_of(past))
    report = take(past, elsewhere, Way.LINK).copy
    assert report.copied == report.objects == len(past.objects())
    check(elsewhere, past.now)
    for name in past.objects():
        there = os.path.join(elsewhere.repository_storage(FQRN), name.path)
        assert os.path.samefile(there, os.path.join(storage_of(past), name.path))
    assert files(storage_of(past)) == before
    assert list(Access.load(elsewhere.access_config, elsewhere).config.repositories) == [FQRN], "the gateway starts"


def test_links_across_file_systems(past: Past, elsewhere: SystemPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("cvmfs_gw.care.targets.os.link", link)
    with pytest.raises(ConfigurationError, match="copy it"):
        take(past, elsewhere, Way.LINK)
    assert not os.path.exists(os.path.join(elsewhere.repository_storage(FQRN), MANIFEST_PATH))


def test_in_place_from_elsewhere(past: Past, elsewhere: SystemPaths) -> None:
    before = files(storage_of(past))
    report = take(past, elsewhere, Way.IN_PLACE, settings=past.paths.server_conf(FQRN)).copy
    assert report.size == sum(len(before[f"{storage_of(past)}/{name.path}"]) for name in past.objects()), "all is read"
    assert files(storage_of(past)) == before
    repository = check(elsewhere, past.now)
    assert repository.configuration().upstream().location == storage_of(past)
    served = os.path.join(elsewhere.repository_storage(FQRN), MANIFEST_PATH)
    assert os.path.samefile(served, os.path.join(storage_of(past), MANIFEST_PATH)), "the web server finds it"
    with pytest.raises(ConfigurationError, match="exists already"):
        take(past, elsewhere, Way.IN_PLACE)


def test_in_place_where_it_was_made(past: Past) -> None:
    """The same machine, which had no gateway: ``server.conf`` stays, a gateway key and the permission are made."""
    settings = Path(past.paths.server_conf(FQRN))
    settings.write_text(settings.read_text() + "CVMFS_AUTO_TAG_TIMESPAN='4 weeks ago'\n")
    before = settings.read_bytes()
    with pytest.raises(ConfigurationError, match="exists already"):
        take(past, past.paths, Way.IN_PLACE)
    for name in (past.paths.access_config, past.paths.key_file(FQRN, "gw")):
        os.unlink(name)
    adopted = take(past, past.paths, Way.IN_PLACE)
    assert adopted.settings == []
    assert settings.read_bytes() == before
    assert not os.path.islink(storage_of(past))
    assert list(Access.load(past.paths.access_config, past.paths).config.repositories) == [FQRN]
    past.commit({"/f": b"4"})
    assert content_of(check(past.paths, past.now), "/f") == b"4"


def test_in_place_of_another(past: Past, elsewhere: SystemPaths, tmp_path: Path) -> None:
    """What is at a place already is not overwritten."""
    os.makedirs(elsewhere.repository_storage(FQRN))
    with pytest.raises(ConfigurationError, match="is not"):
        take(past, elsewhere, Way.IN_PLACE)
    other = SystemPaths(str(tmp_path / "third"))
    os.makedirs(os.path.dirname(other.server_conf(FQRN)))
    Path(other.server_conf(FQRN)).write_text("CVMFS_UPSTREAM_STORAGE=local,/a/data/txn,/a\n")
    with pytest.raises(ConfigurationError, match="another storage"):
        take(past, other, Way.IN_PLACE)


@pytest.mark.parametrize("way", [Way.LINK, Way.IN_PLACE])
def test_damage_is_found_unless_trusted(past: Past, elsewhere: SystemPaths, tmp_path: Path, way: Way) -> None:
    damage(past)
    with pytest.raises(MissingObject):
        take(past, elsewhere, way)
    assert not os.path.exists(elsewhere.access_config), "it is not served"
    assert take(past, elsewhere, way, trust=True).copy.missing == []
    name = ContentHash.of(deflate(b"2"))
    os.unlink(os.path.join(storage_of(past), name.path))
    with pytest.raises(MissingObject, match="not there"):
        take(past, SystemPaths(str(tmp_path / "third")), way, trust=True)


def test_open_transaction(past: Past, elsewhere: SystemPaths) -> None:
    flag = Path(past.paths.repository_spool(FQRN), "in_transaction.lock")
    flag.touch()
    with pytest.raises(Conflict, match="transaction"):
        take(past, elsewhere, Way.IN_PLACE, settings=past.paths.server_conf(FQRN))
    flag.unlink()
    take(past, elsewhere, Way.IN_PLACE, settings=past.paths.server_conf(FQRN))


def test_whitelist_that_has_run_out(past: Past, elsewhere: SystemPaths, tmp_path: Path) -> None:
    past.now += 100 * 86_400
    with pytest.raises(SigningError):
        take(past, elsewhere, Way.LINK)
    keys = tmp_path / "some"
    keys.mkdir()
    for kind in ("pub", "crt", "key"):
        (keys / f"{FQRN}.{kind}").write_bytes(Path(past.paths.key_file(FQRN, kind)).read_bytes())
    source = Adoption(storage_of(past), str(keys), way=Way.LINK, resign=True)
    with pytest.raises(SigningError, match="masterkey"):
        adopt(FQRN, elsewhere, {}, source, past.now)
    take(past, elsewhere, Way.LINK, resign=True)
    check(elsewhere, past.now)


FORMER = """\
CVMFS_CREATOR_VERSION=143
CVMFS_UPSTREAM_STORAGE=local,/srv/cvmfs/x/data/txn,/srv/cvmfs/x
CVMFS_STRATUM0=http://old.example.org/cvmfs/x
CVMFS_UNION_FS_TYPE=overlayfs
CVMFS_HASH_ALGORITHM=shake128
CVMFS_COMPRESSION_ALGORITHM=none
CVMFS_AUTO_TAG=false
CVMFS_AUTO_TAG_TIMESPAN="4 weeks ago"
CVMFS_GARBAGE_COLLECTION=true
CVMFS_AUTO_GC=true
CVMFS_AUTO_GC_LAPSE='2 days ago'
CVMFS_NESTED_KCATALOG_LIMIT=300
CVMFS_ENFORCE_LIMITS=true
CVMFS_REPOSITORY_TTL=60
CVMFS_VOMS_AUTHZ="atlas:/atlas/Role=pilot"
CVMFS_SITE_NOTE="ask Jo"
CVMFS_GC_DELETION_LOG="/var/log/`id`"
"""


def test_settings_go_along(past: Past, elsewhere: SystemPaths, tmp_path: Path) -> None:
    former = tmp_path / "server.conf"
    former.write_text(FORMER)
    adopted = take(past, elsewhere, Way.COPY, settings=str(former))
    fates = {setting.key: setting.fate for setting in adopted.settings}
    assert fates["CVMFS_UNION_FS_TYPE"] is Fate.MEANINGLESS
    assert fates["CVMFS_HASH_ALGORITHM"] is fates["CVMFS_UPSTREAM_STORAGE"] is Fate.DECIDED
    assert fates["CVMFS_SITE_NOTE"] is Fate.KEPT
    assert fates["CVMFS_GC_DELETION_LOG"] is Fate.REFUSED
    configuration = Repository(FQRN, elsewhere, {}).configuration()
    assert configuration.stratum0 == "http://old.example.org/cvmfs/x"
    assert configuration.hash_algorithm.config_name == "sha1", "what the repository says counts"
    assert configuration.compression_algorithm == "none"
    assert (configuration.auto_tag, configuration.auto_tag_timespan) == (False, "4 weeks ago")
    assert (configuration.auto_gc, configuration.auto_gc_lapse) == (True, "2 days ago")
    assert configuration.garbage_collection
    assert (configuration.nested_kcatalog_limit, configuration.enforce_limits) == (300, True)
    assert configuration.ttl == 60
    assert configuration.get("CVMFS_VOMS_AUTHZ") == "atlas:/atlas/Role=pilot"
    assert configuration.get("CVMFS_SITE_NOTE") == "ask Jo"
    assert "`" not in Path(elsewhere.server_conf(FQRN)).read_text()


def test_what_was_off_stays_off(past: Past, elsewhere: SystemPaths, tmp_path: Path) -> None:
    """A new repository would be collected and tagged by itself."""
    former = tmp_path / "server.conf"
    former.write_text("CVMFS_GARBAGE_COLLECTION=true\n")
    take(past, elsewhere, Way.COPY, settings=str(former))
    configuration = Repository(FQRN, elsewhere, {}).configuration()
    assert configuration.garbage_collection
    assert not configuration.auto_gc
    assert not configuration.auto_tag


def test_settings_of_an_export(past: Past, elsewhere: SystemPaths, tmp_path: Path) -> None:
    settings = Path(past.paths.server_conf(FQRN))
    settings.write_text(settings.read_text() + "CVMFS_FILE_MBYTE_LIMIT=7\n")
    with closing(FolderTarget(str(tmp_path / "copy"))) as target:
        export(past.repository(), target)
    adopt(FQRN, elsewhere, {}, Adoption(str(tmp_path / "copy"), past.paths.keys), past.now)
    assert Repository(FQRN, elsewhere, {}).configuration().file_mbyte_limit == 7


def test_every_setting_has_one_fate() -> None:
    known = [*TAKEN, *DECIDED, *MEANINGLESS]
    assert len(known) == len(set(known))
    assert [setting.fate for setting in read_settings(ServerConf(dict.fromkeys(TAKEN, "1")))] == [Fate.TAKEN] * len(
        TAKEN
    )
    assert all(json.dumps(setting.fate) for setting in read_settings(ServerConf({"CVMFS_X": "1"})))
