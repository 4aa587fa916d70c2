"""``cvmfs-gw demo``: what somebody sees who tries it for the first time."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from cvmfs_gw.client.reader import RepositoryReader
from cvmfs_gw.paths import SystemPaths
from tests.cli.support import answers, free_ports, run, running, until


def test_once(tmp_path: Path) -> None:
    """It makes a repository, publishes, reads back and ends; the second time it goes on with what is there."""
    for revision in (2, 3):
        port, web_port = map(str, free_ports(2))
        ports = ("--port", port, "--web-port", web_port)
        done = run("cvmfs-gw", "--root", tmp_path, "demo", "--once", "--host", "127.0.0.1", *ports)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"Published /demo through the gateway: revision {revision}" in done.stdout
        assert "Read back over HTTP" in done.stdout
        assert ("Made the repository" in done.stdout) is (revision == 2)
        assert "Traceback" not in done.stderr


def test_keeps_serving(tmp_path: Path) -> None:
    """And says what to do next, in commands that work."""
    port, web_port = free_ports(2)
    fqrn = "try.example.org"
    ports = ("--port", str(port), "--web-port", str(web_port))
    arguments = ("--root", tmp_path, "demo", "--fqrn", fqrn, "--host", "127.0.0.1", *ports)
    with running("cvmfs-gw", *arguments) as process:
        process.wait_for("Stop:")
        web = f"http://127.0.0.1:{web_port}/cvmfs/{fqrn}"
        assert web in process.output
        public_keys = Path(SystemPaths(str(tmp_path)).key_file(fqrn, "pub")).read_bytes()
        with RepositoryReader(fqrn, web, public_keys) as reader:
            assert {entry.name for entry in reader.entries("/demo")} == {"hello.txt", "bin", "lib"}
            assert reader.entry("/demo/bin/greet").mode & 0o111
        assert answers(port)
        # both servers read requests alike, with the same limits on how long and how large they may be
        for number in (port, web_port):
            with socket.create_connection(("127.0.0.1", number), timeout=10) as client:
                client.sendall(b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n")
                assert client.recv(4096).endswith(b'{"status":"error","reason":"malformed HTTP request"}')
        # the demonstration has an administrator, who is found
        done = run("cvmfs-gw", "--root", tmp_path, "disable", fqrn, "--gateway", f"http://127.0.0.1:{port}/api/v1")
        assert (done.returncode, done.stdout) == (0, f"{fqrn} is disabled\n"), done.stderr
        assert process.stop() in (0, 143), process.output
    until(lambda: not answers(port))
    assert "Traceback" not in process.output


def test_port_that_is_taken(tmp_path: Path) -> None:
    port, web_port = free_ports(2)
    ports = ("--port", str(port), "--web-port", str(web_port))
    with running("cvmfs-gw", "--root", tmp_path / "one", "demo", "--host", "127.0.0.1", *ports) as process:
        process.wait_for("Stop:")
        done = run("cvmfs-gw", "--root", tmp_path / "two", "demo", "--once", "--host", "127.0.0.1", *ports)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_wrong_name(tmp_path: Path) -> None:
    done = run("cvmfs-gw", "--root", tmp_path, "demo", "--once", "--fqrn", "demo")
    assert done.returncode == 1
    assert "not a fully qualified" in done.stderr
    assert os.listdir(tmp_path) == []
