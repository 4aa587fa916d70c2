"""What the doctor sees through proxies that behave and through others."""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cvmfs_gw.cli import main
from cvmfs_gw.doctor.findings import FindingKind
from cvmfs_gw.doctor.proxies import configured_proxies
from cvmfs_gw.engine.publish import Publication, TagChanges
from tests.doctor.caching import Proxy
from tests.doctor.patients import Patient, Say
from tests.engine.repositories import FQRN


def publish(patient: Patient, ago: float) -> None:
    """A new revision of the same content."""
    repository = patient.repository
    head = repository.head()
    with repository.catalogs.load(head.root_hash) as catalog:
        catalog.set_property("revision", head.revision + 1)
        ref = repository.catalogs.store(catalog, head.root_hash.algorithm)
    with closing(Publication(repository, head, TagChanges(), time.time() - ago)) as publication:
        publication.publish(ref, head.revision + 1, head.ttl)


def test_well(patient: Patient, say: Say) -> None:
    with Proxy(keeps=60) as proxy:
        assert say("--proxy", proxy.url) == (0, [])
        assert say("--proxy", proxy.host) == (0, []), "clients take that, too"
        assert any(url.endswith("/.cvmfspublished") for url in proxy.asked)


def test_new_revision_may_take_a_minute(patient: Patient, say: Say) -> None:
    with Proxy(keeps=1000) as proxy:
        assert say("--proxy", proxy.url) == (0, [])
        publish(patient, ago=0)
        assert say("--proxy", proxy.url) == (0, [])


def test_kept_too_long(patient: Patient, say: Say) -> None:
    """It gives a revision that is not the head any more since ten minutes ago."""
    with Proxy(keeps=1000) as proxy:
        say("--proxy", proxy.url)
        publish(patient, ago=0)
        head = replace(patient.repository.head(), published=int(time.time()) - 600)
        _, key = patient.repository.signing_keys()
        (patient.storage / ".cvmfspublished").write_bytes(head.signed(key))
        code, findings = say("--proxy", proxy.url)
        assert (code, [finding["code"] for finding in findings]) == (1, [FindingKind.PROXY_STALE.code])
        assert f"revision {head.revision - 1}, not {head.revision}" in findings[0]["detail"]
        assert "max-age=61" in findings[0]["detail"], "what it was told, for comparison"


def test_old_by_its_own_account(patient: Patient, say: Say) -> None:
    """Nothing was published meanwhile, and it will be late when something is."""
    with Proxy(keeps=1000, age=600) as proxy:
        say("--proxy", proxy.url)
        (finding,) = say("--proxy", proxy.url)[1]
        assert finding["code"] == FindingKind.PROXY_STALE.code
        assert "Age: 60" in finding["detail"]


@pytest.mark.parametrize("what", ["nobody", "refuses", "web server"])
def test_not_through(patient: Patient, say: Say, what: str) -> None:
    with Proxy(account="joe:secret") as proxy:
        url = {"nobody": "http://127.0.0.1:1", "refuses": f"http://{proxy.host}", "web server": patient.site.url}[what]
        code, findings = say("--proxy", url)
    assert (code, findings[0]["code"]) == (1, FindingKind.PROXY.code)


def test_password_is_not_shown(patient: Patient, say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    with Proxy(account="joe:secret") as proxy:
        assert say("--proxy", proxy.url) == (0, [])
        proxy.account = "joe:other"
        assert main(["--root", patient.paths.root, "doctor", "-p", f"http://joe:secret@{proxy.host}"]) == 1
        said = capsys.readouterr()
        assert proxy.host in said.out
        assert "secret" not in said.out + said.err


def test_changes_what_it_gets(patient: Patient, say: Say) -> None:
    with Proxy() as proxy:
        proxy.prefix = b"<!-- checked -->"
        found = {finding["code"] for finding in say("--proxy", proxy.url)[1]}
    assert found == {FindingKind.PROXY_CHANGES.code}


def test_of_another_repository(patient: Patient, say: Say) -> None:
    """The manifest is one, but neither this repository's nor older."""
    with Proxy(keeps=1000) as proxy:
        publish(patient, ago=0)
        newer = (patient.storage / ".cvmfspublished").read_bytes()
        say("--proxy", proxy.url)
        (patient.storage / ".cvmfspublished").write_bytes(newer.replace(b"\nS2\n", b"\nS1\n"))
        found = {finding["code"] for finding in say("--proxy", proxy.url)[1]}
    assert FindingKind.PROXY_CHANGES.code in found


def test_remembers_what_was_not_there(patient: Patient, say: Say) -> None:
    with Proxy(keeps=1000, keeps_errors=True) as proxy:
        (finding,) = say("--proxy", proxy.url)[1]
    assert (finding["code"], finding["severity"]) == (FindingKind.PROXY_NOT_FOUND.code, "warning")


def test_web_server_that_is_down_is_told_once(patient: Patient, say: Say) -> None:
    patient.configure("CVMFS_STRATUM0=http://127.0.0.1:1/none")
    with Proxy() as proxy:
        assert [finding["code"] for finding in say("--proxy", proxy.url)[1]] == [FindingKind.URL.code]


def test_those_of_the_clients(patient: Patient, say: Say) -> None:
    """Later files count for more, as for clients."""

    def write(name: str, text: str) -> None:
        path = Path(patient.paths.client_configuration, name)
        os.makedirs(path.parent, exist_ok=True)
        path.write_text(text)

    def found() -> list[str]:
        return configured_proxies(patient.repository, patient.paths)

    assert found() == []
    write("default.d/50-site.conf", 'CVMFS_HTTP_PROXY="http://one:3128"\n')
    assert found() == ["http://one:3128"]
    write("default.local", 'CVMFS_HTTP_PROXY="http://one:3128|two:3128;auto;DIRECT"\nCVMFS_QUOTA_LIMIT=5\n')
    assert found() == ["http://one:3128", "http://two:3128"]
    write(f"config.d/{FQRN}.conf", "CVMFS_HTTP_PROXY=DIRECT\n")
    assert found() == []
    with Proxy(keeps=1000, keeps_errors=True) as proxy:
        patient.configure(f"CVMFS_SERVER_PROXY={proxy.url}")
        assert found() == [proxy.url]
        assert [finding["code"] for finding in say()[1]] == [FindingKind.PROXY_NOT_FOUND.code]
        assert say("--no-web") == (0, [])
