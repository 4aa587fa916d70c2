"""The certificate, and how it is replaced while the gateway runs."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
from pathlib import Path

import pytest

from cvmfs_gw.api.tls import TlsFiles
from cvmfs_gw.cli import main as make
from cvmfs_gw.gateway.errors import ConfigError
from tests.cli.support import answers, free_ports, running, until
from tests.gateway.support import FQRN, make_certificate


def test_certificates_are_reloaded(tmp_path: Path) -> None:
    first, second = make_certificate(tmp_path, "first"), make_certificate(tmp_path, "second")
    files = TlsFiles(*first)
    assert not files.reload_if_changed()
    for old, new in zip(first, second, strict=True):
        Path(new).rename(old)
    assert files.reload_if_changed()
    assert not files.reload_if_changed()
    Path(first[1]).write_text("nonsense")
    with pytest.raises(ConfigError, match="cannot use"):
        files.reload_if_changed()
    assert not files.reload_if_changed()


def test_a_running_daemon(tmp_path: Path) -> None:
    """HTTPS; on SIGHUP new connections see the new certificate, and one that is open goes on with the old one."""
    assert make(["--root", str(tmp_path), "mkfs", FQRN]) == 0
    old, new = make_certificate(tmp_path, "old"), make_certificate(tmp_path, "new")
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    os.link(old[0], certificate)
    os.link(old[1], key)
    (port,) = free_ports(1)
    settings = {"port": port, "tls_certificate": str(certificate), "tls_key": str(key)}
    (tmp_path / "etc/cvmfs/gateway/user.json").write_text(json.dumps(settings))
    with running("cvmfs_gateway", root=tmp_path) as process:
        process.wait_for(f"gateway listens on port {port}")
        until(lambda: answers(port))
        assert ssl.get_server_certificate(("127.0.0.1", port)) == Path(old[0]).read_text()
        trust = ssl.create_default_context(cafile=old[0])
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=trust, timeout=20)
        assert repositories(connection) == [FQRN]
        os.replace(new[1], key)
        os.replace(new[0], certificate)
        os.kill(process.pid, signal.SIGHUP)
        until(lambda: ssl.get_server_certificate(("127.0.0.1", port)) == certificate.read_text())
        assert repositories(connection) == [FQRN]
        connection.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            repositories(http.client.HTTPSConnection("127.0.0.1", port, context=trust, timeout=20))
        assert process.stop() == 0


def repositories(connection: http.client.HTTPSConnection) -> list[str]:
    connection.request("GET", "/api/v1/repos")
    return list(json.load(connection.getresponse())["data"])
