"""The upload API: one large file over loopback, against a plain streamed write of the same bytes plus SHA-1.

What it is compared with is the least that any such server does: take the bytes from the network, hash them, and write
them to a file in the same place. Contents are not compressed (``CVMFS_COMPRESSION_ALGORITHM=none``).
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from statistics import median
from typing import Final

from tests.bench.servers import FQRN, ours
from tests.bench.table import Row

_MIB: Final = 1 << 20
_SIZE: Final = 1 << 30
_BLOCK: Final = 1 << 20
_SENDER: Final = """
import json, os, socket, sys, time
port, head, size = int(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3])
blocks = [bytearray(os.urandom(1 << 20)) for _ in range(64)]
data = socket.create_connection(("127.0.0.1", port))
began = time.monotonic()
data.sendall(head)
sent = 0
while sent < size:
    block = blocks[(sent >> 20) % 64]
    block[:8] = sent.to_bytes(8, "big")  # so that no two chunks are the same
    data.sendall(block)
    sent += len(block)
reply = data.recv(65536)
print(json.dumps({"seconds": time.monotonic() - began, "reply": reply.decode(errors="replace")}))
"""


_CLIENTS: Final = 20
_FILES: Final = 50
_MANY: Final = """
import http.client, json, sys, threading, time
port, head, token, clients, files = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
def put(client):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for number in range(files):
        data, headers = b"%d" % number * 500, {"Authorization": f"Bearer {token}"}
        connection.request("PUT", f"{head}/{client}/{number}", data, headers)
        reply = connection.getresponse()
        assert reply.status == 201, reply.read()
        reply.read()
threads = [threading.Thread(target=put, args=(client,)) for client in range(clients)]
began = time.monotonic()
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(time.monotonic() - began))
"""


def rows(rounds: int) -> list[Row]:
    """Uploads and plain writes in turns; the reference's column is the plain write."""
    uploads: list[float] = []
    plain: list[float] = []
    with ours(web=False) as server:
        configuration = server.root / "etc/cvmfs/repositories.d" / FQRN / "server.conf"
        configuration.write_text(configuration.read_text() + "CVMFS_COMPRESSION_ALGORITHM=none\n")
        token = _token(server.root, server.port)
        for number in range(rounds + 1):
            name = f"f{number}"
            uploads.append(_SIZE / _MIB / _upload(server.port, token, name))
            plain.append(_SIZE / _MIB / _plain(server.root / "srv/cvmfs" / FQRN / "plain"))
            _remove(server.port, token, name, server.root)
        many = [_many(server.port, token, number) for number in range(rounds + 1)]
    return [
        Row("1 GiB file, no compression", median(uploads[1:]), median(plain[1:]), "MiB/s", "400 and 0.5x"),
        Row(f"small files, {_CLIENTS} clients, each published", median(many[1:]), None, "files/s"),
    ]


def _token(root: Path, port: int) -> str:
    command = [sys.executable, "-m", "cvmfs_gw", "--root", str(root), "token", "create", FQRN]
    token = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    deadline = time.monotonic() + 30
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1/repos/{FQRN}/entries/")
    request.add_header("Authorization", f"Bearer {token}")
    while True:  # the server takes a new token up within seconds
        try:
            with urllib.request.urlopen(request, timeout=5):
                return token
        except urllib.error.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _send(port: int, head: str) -> dict[str, object]:
    command = [sys.executable, "-c", _SENDER, str(port), head, str(_SIZE)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert isinstance(found, dict)
    return found


def _upload(port: int, token: str, name: str) -> float:
    head = (
        f"PUT /api/v1/repos/{FQRN}/files/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {_SIZE}\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    )
    found = _send(port, head)
    assert "201 Created" in str(found["reply"]), found
    return float(str(found["seconds"]))


def _many(port: int, token: str, number: int) -> float:
    """Small files for each second, from clients that wait for each answer."""
    head = f"/api/v1/repos/{FQRN}/files/many{number}"
    command = [sys.executable, "-c", _MANY, str(port), head, token, str(_CLIENTS), str(_FILES)]
    seconds = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return _CLIENTS * _FILES / float(seconds)


def _plain(path: Path) -> float:
    """The same bytes, taken from a socket, hashed and written by a process of its own."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        port = listening.getsockname()[1]
        pid = os.fork()
        if not pid:
            _take(listening, path)
            os._exit(0)
        found = _send(port, "")
        os.waitpid(pid, 0)
    path.unlink()
    return float(str(found["seconds"]))


def _take(listening: socket.socket, path: Path) -> None:
    connection = listening.accept()[0]
    block, hasher, left = memoryview(bytearray(_BLOCK)), hashlib.sha1(), _SIZE
    with path.open("wb", buffering=0) as file:
        while left:
            got = connection.recv_into(block)
            hasher.update(block[:got])
            file.write(block[:got])
            left -= got
    connection.sendall(hasher.hexdigest().encode())


def _remove(port: int, token: str, name: str, root: Path) -> None:
    """Remove the file and, as this is a benchmark, its objects."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1/repos/{FQRN}/files/{name}", method="DELETE")
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=60):
        pass
    for path in (root / "srv/cvmfs" / FQRN / "data").glob("??/*P"):
        path.unlink()
