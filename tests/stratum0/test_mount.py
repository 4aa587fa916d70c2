"""What clients are given to mount a repository: right, and harmless whatever names and keys are."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cvmfs_gw.engine.errors import ConfigurationError
from cvmfs_gw.stratum0.mount import Mount, authority

KEY = "-----BEGIN PUBLIC KEY-----\nMIIB+/==\n-----END PUBLIC KEY-----\n"


def test_the_configuration() -> None:
    mount = Mount("a.example.org", "http://host:8080/cvmfs/a.example.org", "http://host:4929/api/v1")
    lines = dict(line.split("=", 1) for line in mount.configuration().splitlines())
    assert lines == {
        "CVMFS_SERVER_URL": "http://host:8080/cvmfs/a.example.org",
        "CVMFS_PUBLIC_KEY": "/etc/cvmfs/keys/a.example.org.pub",
        "CVMFS_HTTP_PROXY": "DIRECT",
        "CVMFS_MAX_TTL": "1",
        "CVMFS_NOTIFICATION_SERVER": "http://host:4929/api/v1",
    }


@pytest.mark.parametrize(
    ("fqrn", "url"),
    [
        ("a.example.org; rm -rf /", "http://host/"),
        ("$(x).example.org", "http://host/"),
        ("a.example.org", "http://host/$(x)"),
        ("a.example.org", "http://host/`x`"),
        ("a.example.org", "http://host/\nEND_OF_CONFIGURATION\nx"),
        ("a.example.org", "file:///etc/passwd"),
        ("a.example.org", "http://ho'st/"),
    ],
)
def test_what_must_not_stand_in_a_script(fqrn: str, url: str) -> None:
    with pytest.raises(ConfigurationError):
        Mount(fqrn, url)


@pytest.mark.parametrize("key", ["", "END_OF_KEY\nrm -rf /\n", KEY + "$(x)\n", KEY.replace("MIIB", "`x`")])
def test_keys_that_are_none(key: str) -> None:
    with pytest.raises(ConfigurationError):
        Mount("a.example.org", "http://host/").script(key)


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("host", ("host", None)),
        ("host.example.org:8080", ("host.example.org", 8080)),
        ("[::1]:80", ("[::1]", 80)),
        ("host:x", None),
        ("ho st", None),
        ("$(x)", None),
        ("", None),
    ],
)
def test_host_headers(host: str, found: tuple[str, int | None] | None) -> None:
    assert authority(host) == found


def test_the_script_is_a_script_and_does_nothing_when_it_was_cut_off(tmp_path: Path) -> None:
    script = Mount("a.example.org", "http://host:8080/cvmfs/a.example.org").script(KEY)
    shell = shutil.which("sh")
    assert shell is not None
    subprocess.run([shell, "-n"], input=script.encode(), check=True)
    lines = script.splitlines(keepends=True)
    for end in range(len(lines)):
        # PATH is empty: whatever it calls would be an error that shows
        cut = subprocess.run([shell], input="".join(lines[:end]).encode(), capture_output=True, check=False, env={})
        assert b"not installed" not in cut.stderr
        assert b"mounted" not in cut.stdout
    whole = subprocess.run(
        [shell], input=script.encode(), capture_output=True, check=False, env={"PATH": str(tmp_path)}
    )
    assert whole.returncode == 1
    assert b"The CernVM-FS client is not installed" in whole.stderr
