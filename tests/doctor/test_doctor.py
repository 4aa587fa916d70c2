"""Every finding of the doctor is brought about, found and told; and a well repository gives none."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cvmfs_gw.care.resign import resign_whitelist
from cvmfs_gw.cli import main
from cvmfs_gw.doctor.findings import FindingKind
from cvmfs_gw.engine.tags import add_tag
from cvmfs_gw.paths import SystemPaths
from tests.doctor.patients import Patient, Say
from tests.engine.repositories import FQRN, make_keys


def test_well(patient: Patient, say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    assert say() == (0, [])
    assert main(["--root", patient.paths.root, "doctor"]) == 0
    assert capsys.readouterr().out == f"looked at the gateway and {FQRN}: 0 errors, 0 warnings\n"


@contextmanager
def no_access(monkeypatch: pytest.MonkeyPatch, path: str) -> Iterator[None]:
    """Let this process be none that may write *path*; for root there is no such place."""
    real = os.access
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda name, mode: str(name) != path and real(name, mode))
        yield


def _settings(p: Patient) -> None:
    p.settings(port="many")


def _access(p: Patient) -> None:
    Path(p.paths.access_config).write_text("{")


def _no_repositories(p: Patient) -> None:
    Path(p.paths.access_config).write_text('{"version": 2, "repos": [], "keys": []}')


def _no_admin(p: Patient) -> None:
    Path(p.paths.access_config).write_text(json.dumps({"version": 2, "repos": [FQRN], "keys": []}))


def _bucket(p: Patient) -> None:
    conf = p.spool / "s3.conf"
    values = {"HOST": "127.0.0.1", "PORT": 1, "BUCKET": "b", "ACCESS_KEY": "a", "SECRET_KEY": "s", "MAX_RETRIES": 0}
    conf.write_text("".join(f"CVMFS_S3_{key}={value}\n" for key, value in values.items()))
    conf.chmod(0o600)
    p.configure(f"CVMFS_UPSTREAM_STORAGE=S3,{p.spool}/tmp,{FQRN}@{conf}")


def _misspelt_admin(p: Patient) -> None:
    path = Path(p.paths.access_config)
    path.write_text(path.read_text().replace('"admin"', '"administrator"'))


def _leases(p: Patient) -> None:
    os.makedirs(p.paths.work_dir, exist_ok=True)
    Path(p.paths.work_dir, "gw.db").write_bytes(b"no database" * 100)


def _late_clock(p: Patient) -> None:
    p.site.ahead = 600


def _other(p: Patient) -> None:
    p.site.manifest = b"nothing of the kind"


def _stale(p: Patient) -> None:
    p.site.manifest = (p.storage / ".cvmfspublished").read_bytes()
    os.rename(p.storage / ".cvmfspublished", p.storage / "old")
    text = p.site.manifest
    (p.storage / ".cvmfspublished").write_bytes(text.replace(b"\nS1\n", b"\nS2\n"))


def _cache_long(p: Patient) -> None:
    p.site.headers = {"Cache-Control": "public, max-age=3600"}


def _cache_unsaid(p: Patient) -> None:
    p.site.headers = {}


def _validators(p: Patient) -> None:
    p.site.headers["ETag"] = '"1"'


def _whitelist_soon(p: Patient) -> None:
    resign_whitelist(p.repository, time.time() - 27 * 86_400)


def _whitelist_over(p: Patient) -> None:
    resign_whitelist(p.repository, time.time() - 31 * 86_400)


def _other_key(p: Patient) -> None:
    other = SystemPaths(str(p.storage.parent / "others"))
    make_keys(FQRN, other)
    shutil.copy(other.key_file(FQRN, "key"), p.paths.key_file(FQRN, "key"))


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (_settings, FindingKind.SETTINGS.code),
        (_access, FindingKind.ACCESS.code),
        (lambda p: p.settings(max_lease_tme=3600), FindingKind.UNKNOWN_MEMBER.code),
        (_misspelt_admin, FindingKind.UNKNOWN_MEMBER.code),
        (_no_repositories, FindingKind.NO_REPOSITORIES.code),
        (_no_admin, FindingKind.NO_ADMIN_KEY.code),
        (_leases, FindingKind.LEASES.code),
        (_late_clock, FindingKind.CLOCK.code),
        (lambda p: os.unlink(p.paths.server_conf(FQRN)), FindingKind.CONFIGURATION.code),
        (lambda p: p.configure("CVMFS_HASH_ALGORITHM=md5"), FindingKind.CONFIGURATION.code),
        (lambda p: p.configure("CVMFS_AUTO_GC_LAPSE='some day'"), FindingKind.CONFIGURATION.code),
        (
            lambda p: p.configure("CVMFS_AUTO_GC=true\nCVMFS_GARBAGE_COLLECTION=false"),
            FindingKind.AUTO_GC.code,
        ),
        (lambda p: os.rmdir(p.storage / "data/00"), FindingKind.STORAGE.code),
        (_bucket, FindingKind.BUCKET.code),
        (lambda p: os.chmod(p.paths.key_file(FQRN, "key"), 0o644), FindingKind.KEY_READABLE.code),
        (lambda p: (p.spool / "in_transaction.lock").touch(), FindingKind.TRANSACTION.code),
        (lambda p: p.configure("CVMFS_STRATUM0=http://127.0.0.1:1/none"), FindingKind.URL.code),
        (lambda p: setattr(p.site, "root", "/nowhere"), FindingKind.URL.code),
        (_other, FindingKind.URL_OTHER.code),
        (_stale, FindingKind.URL_STALE.code),
        (_cache_long, FindingKind.CACHE_LONG.code),
        (_cache_unsaid, FindingKind.CACHE_LONG.code),
        (_validators, FindingKind.CACHE_VALIDATORS.code),
        (lambda p: os.unlink(p.storage / ".cvmfs_master_replica"), FindingKind.NOT_REPLICABLE.code),
        # what a check of the repository knows as well
        (_whitelist_soon, "whitelist-expires-soon"),
        (_whitelist_over, "whitelist-expired"),
        (_other_key, "signing-key"),
        (lambda p: os.unlink(p.paths.key_file(FQRN, "pub")), "public-key"),
        (lambda p: os.unlink(p.spool / "reflog.chksum"), "reflog-checksum-missing"),
    ],
)
def test_found(patient: Patient, say: Say, harm: Callable[[Patient], object], code: str) -> None:
    harm(patient)
    exit_code, findings = say()
    found = {finding["code"]: finding for finding in findings}
    assert code in found
    assert found[code]["what"]
    assert found[code]["remedy"]
    assert found[code]["place"]
    assert exit_code == any(finding["severity"] == "error" for finding in findings)


def test_permissions(patient: Patient, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    os.makedirs(patient.paths.work_dir, exist_ok=True)
    for path, kind in (
        (patient.paths.work_dir, FindingKind.WORK_DIR),
        (str(patient.spool), FindingKind.SPOOL),
        (str(patient.storage / "data/txn"), FindingKind.STORAGE),
    ):
        with no_access(monkeypatch, path):
            assert [finding["code"] for finding in say()[1]] == [kind.code]


def test_room(patient: Patient, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    def room(**changed: int) -> None:
        plenty = {"f_bavail": 10**6, "f_blocks": 2 * 10**6, "f_frsize": 4096, "f_files": 10**6, "f_favail": 10**6}
        monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(**{**plenty, **changed}))

    for changed, kind in (
        ({"f_bavail": 10**5 - 1}, FindingKind.ROOM),
        ({"f_favail": 10}, FindingKind.ROOM),
        ({"f_bavail": 10}, FindingKind.FULL),
        ({"f_favail": 0}, FindingKind.FULL),
    ):
        room(**changed)
        assert {finding["code"] for finding in say()[1]} == {kind.code}
    room(f_files=0, f_favail=0)  # a file system that does not count files
    assert say() == (0, [])


def test_staging_elsewhere(patient: Patient, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.stat
    staging = str(patient.storage / "data/txn")

    def stat(path: str, **options: Any) -> object:
        found = real(path, **options)
        return SimpleNamespace(st_dev=-1, st_mode=found.st_mode) if path == staging else found

    monkeypatch.setattr("cvmfs_gw.doctor.repository.os.stat", stat)
    assert [finding["code"] for finding in say("--no-web")[1]] == [FindingKind.STORAGE_SPLIT.code]


def test_port(patient: Patient, say: Say) -> None:
    with closing(socket.create_server(("", 0))) as taken:
        patient.settings(port=taken.getsockname()[1])
        thread = threading.Thread(target=lambda: taken.accept()[0].close())
        thread.start()
        assert [finding["code"] for finding in say()[1]] == [FindingKind.PORT.code]
        thread.join()


def test_port_of_a_gateway(patient: Patient, say: Say) -> None:
    """Where a gateway answers, all is well."""
    Path(patient.storage, "api").mkdir()
    Path(patient.storage, "api/v1").write_text('{"welcome": "here"}')
    patient.settings(port=patient.site.server.server_address[1])
    assert say()[1] == []


def test_few_files(patient: Patient, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, 1024))
    assert [finding["code"] for finding in say()[1]] == [FindingKind.OPEN_FILES.code]


def test_manifest_ahead_of_the_web_server(patient: Patient, say: Say) -> None:
    """A change of tags alone is no news for clients: the same revision is not stale."""
    patient.site.manifest = (patient.storage / ".cvmfspublished").read_bytes()
    add_tag(patient.repository, "tag", "", time.time())
    assert say() == (0, [])


def test_every_kind_has_a_test() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert [kind.name for kind in FindingKind if f"FindingKind.{kind.name}" not in text] == []
