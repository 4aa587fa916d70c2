"""An upload that is under way while the program is replaced finishes; one that is cut off is told so at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cvmfs_gw.cli import main as make
from cvmfs_gw.gateway.authorization import Key, sign
from tests.cli.support import Process, answers, free_ports, running, until
from tests.gateway.support import digest_of, pack

FQRN = "replace.example.org"
HALF = 3 << 20


class Gateway:
    """A daemon with a parent, and a publisher's key."""

    def __init__(self, root: Path, process: Process, port: int) -> None:
        self.process, self.port = process, port
        _, key_id, secret = (root / f"etc/cvmfs/keys/{FQRN}.gw").read_text().split()
        self.key = Key(key_id, secret.encode())

    @property
    def worker(self) -> int:
        pid = self.process.pid
        (found,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(found)

    def ask(self, path: str, body: bytes | None = None) -> dict[str, Any]:
        headers = {} if body is None else {"Authorization": sign(self.key, body)}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/v1{path}", body, headers)
        with urllib.request.urlopen(request, timeout=60) as reply:
            found = json.load(reply)
        assert isinstance(found, dict)
        return found

    def begin_upload(self) -> tuple[socket.socket, bytes]:
        """Send the first half of an object pack; returns the connection and the other half."""
        body = json.dumps({"path": f"{FQRN}/a", "api_version": "2"}).encode()
        token = self.ask("/leases", body)["session_token"]
        header, data = pack([os.urandom(2 * HALF)])
        fields = {"session_token": token, "payload_digest": digest_of(header), "header_size": str(len(header))}
        head = json.dumps(fields).encode()
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        length = len(head) + len(header) + len(data)
        lines = (
            f"POST /api/v1/payloads HTTP/1.1\r\nHost: x\r\nMessage-Size: {len(head)}\r\nContent-Length: {length}\r\n"
        )
        connection.sendall(f"{lines}Authorization: {sign(self.key, head)}\r\n\r\n".encode())
        connection.sendall(head + header + data[:HALF])
        until(lambda: self.lease()["bytes"] >= HALF >> 1)
        return connection, data[HALF:]

    def lease(self) -> dict[str, Any]:
        found = self.ask("/leases")["data"][f"{FQRN}/a"]
        assert isinstance(found, dict)
        return found


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    assert make(["--root", str(tmp_path), "mkfs", FQRN]) == 0
    (port,) = free_ports(1)
    with running("cvmfs_gateway", "--port", str(port), root=tmp_path) as process:
        process.wait_for("gateway listens")
        until(lambda: answers(port))
        yield Gateway(tmp_path, process, port)
        process.stop()


def test_an_upload_goes_on_while_the_program_is_replaced(gateway: Gateway) -> None:
    before = gateway.worker
    connection, rest = gateway.begin_upload()
    with closing(connection):
        os.kill(gateway.process.pid, signal.SIGUSR2)
        gateway.process.wait_for("stopping")
        connection.sendall(rest)
        assert b'{"status":"ok"}' in connection.recv(65536)
    lease = gateway.lease()  # waits for the new one
    assert (lease["objects"], lease["bytes"]) == (1, 2 * HALF)
    assert gateway.worker != before


def test_an_upload_to_a_program_that_dies_ends(gateway: Gateway) -> None:
    connection, rest = gateway.begin_upload()
    with closing(connection):
        os.kill(gateway.worker, signal.SIGKILL)
        try:
            connection.sendall(rest)
            answer = connection.recv(65536)
        except ConnectionError:
            answer = b""
        assert answer == b""
    assert gateway.lease()["state"] == "open"
