"""Uploads with clients and a server that are killed at random moments.

Clients put files of which everybody knows what has to be in them, some break off in the middle of the body, and the
server is killed with SIGKILL and started again. Whatever lies on the disk in between is a whole repository, in which
every file that is visible is complete; whoever got an answer finds its file there, whoever got none sends it again.

``CVMFS_GW_UPLOADS`` is how many files are put, ``CVMFS_GW_KILLS`` how often the server is killed, ``CVMFS_GW_SEED``
what is random.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from cvmfs_gw.care.check import CheckOptions, check_repository
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.stratum0.reading import look, open_file
from cvmfs_gw.stratum0.settings import new_token
from cvmfs_objstore.formats.entry import Kind
from tests.chaos.test_kills import Server, keys
from tests.engine.repositories import FQRN
from tests.stratum0.support import write_settings

__all__ = ["keys"]

UPLOADS: Final = int(os.environ.get("CVMFS_GW_UPLOADS", "100"))
KILLS: Final = int(os.environ.get("CVMFS_GW_KILLS", "6"))
SEED: Final = int(os.environ.get("CVMFS_GW_SEED", "1"))
CLIENTS: Final = 4
BREAK_OFF: Final = 0.15
"""How often a client is cut off in the middle of a body."""
LONGEST_WAIT_S: Final = 0.3
DEADLINE_S: Final = 120.0


def content(name: str) -> bytes:
    """What has to be in the file of that name; some are cut into several chunks."""
    generator = random.Random(name)
    return generator.randbytes(generator.choice((0, 10, 1000, 100_000, 1_000_000, 6_000_000)))


class Uploads:
    """The files that are to be put, and what is known of each."""

    def __init__(self, server: Server, token: str) -> None:
        self.server, self.token = server, token
        self.left = [f"d{n % 7}/f{n}" for n in range(UPLOADS)]
        self.answered: set[str] = set()
        self.broken_off = 0
        self.unanswered = 0
        self.changed = threading.Condition()
        self.errors: list[BaseException] = []

    def client(self, generator: random.Random) -> None:
        try:
            while True:
                with self.changed:
                    if not self.left:
                        return
                    name = self.left.pop()
                while not self._put(name, generator):
                    time.sleep(0.01)  # the server is being started
        except BaseException as error:
            with self.changed:
                self.errors.append(error)
                self.changed.notify_all()

    def _put(self, name: str, generator: random.Random) -> bool:
        data = content(name)
        if generator.random() < BREAK_OFF:
            self._break_off(name, data, generator)
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=DEADLINE_S)
        with closing(connection):
            try:
                path = f"/api/v1/repos/{FQRN}/files/{name}?ttl_s=86400"
                connection.request("PUT", path, data, {"Authorization": f"Bearer {self.token}"})
                reply = connection.getresponse()
                answer = json.loads(reply.read())
            except (OSError, http.client.HTTPException):
                self.unanswered += 1
                return False
        assert reply.status in (200, 201), answer
        with self.changed:
            self.answered.add(name)
            self.changed.notify_all()
        return True

    def wait(self, count: int) -> None:
        """Return when so many have been answered."""
        with self.changed:
            enough = self.changed.wait_for(lambda: self.errors or len(self.answered) >= count, DEADLINE_S)
        assert enough, "the clients hang"
        assert not self.errors, self.errors

    def _break_off(self, name: str, data: bytes, generator: random.Random) -> None:
        head = (
            f"PUT /api/v1/repos/{FQRN}/files/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data) + 1}\r\n"
            f"Authorization: Bearer {self.token}\r\n\r\n"
        )
        try:
            with socket.create_connection(("127.0.0.1", self.server.port), 10) as cut:
                cut.sendall(head.encode() + data[: generator.randint(0, len(data))])
                # a reset, as when the machine at the other end has gone
                cut.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        except OSError:
            return
        self.broken_off += 1

    def check(self) -> None:
        """What is on the disk is whole: every file in it is complete, and all that were answered are there."""
        with self.changed:
            answered = set(self.answered)
        repository = self.server.repository
        listing = look(repository, "", recursive=True, limit=UPLOADS * 2)
        visible = {path[1:] for path, entry in listing.children if entry.kind is Kind.FILE}
        assert answered <= visible
        for name in visible:
            file = open_file(repository, f"/{name}")
            assert b"".join(file.read(0, file.size)) == content(name), name


@pytest.fixture
def server(tmp_path: Path, keys: str) -> Iterator[Server]:
    server = Server(tmp_path, keys)
    with open(server.paths.server_conf(FQRN), "a", encoding="utf-8") as file:
        file.write("CVMFS_MIN_CHUNK_SIZE=500000\nCVMFS_AVG_CHUNK_SIZE=1000000\nCVMFS_MAX_CHUNK_SIZE=2000000\n")
    yield server
    server.close()


def test_an_upload_is_never_half_visible(server: Server) -> None:
    generator = random.Random(SEED)
    text, token = new_token("chaos", LeasePath(FQRN, ""))
    write_settings(server.paths, None, token)
    uploads = Uploads(server, text)
    server.start()
    server.wait()
    clients = [
        threading.Thread(target=uploads.client, args=(random.Random(generator.random()),)) for _ in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for number in range(KILLS):
        # so that there is something left to do at each of them
        uploads.wait(UPLOADS * number // (KILLS + 1))
        time.sleep(generator.random() * LONGEST_WAIT_S)
        server.end(signal.SIGKILL)
        uploads.check()
        server.start()
        server.wait()
    deadline = time.monotonic() + DEADLINE_S
    for client in clients:
        client.join(max(deadline - time.monotonic(), 0))
        assert not client.is_alive(), "a client hangs"
    assert not uploads.errors, uploads.errors
    assert len(uploads.answered) == UPLOADS
    server.end(signal.SIGTERM)
    uploads.check()
    report = check_repository(server.repository, CheckOptions(integrity=True), time.time())
    assert not report.faults.errors, [*report.faults]
    print(f"{KILLS} kills, {uploads.broken_off} broken off, {uploads.unanswered} not answered")
