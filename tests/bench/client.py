"""The client of the benchmarks: a process of its own that speaks HTTP on a raw socket and shares no code with us.

::

    python client.py '{"job": ..., "port": ..., ...}'     prepares, prints "ready", waits for a line, works, prints JSON

Jobs: ``payload`` sends object packs, ``leases`` takes and drops leases, ``probe`` asks for something small again and
again until its standard input ends.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import select
import socket
import sys
import time
from typing import Any


class Connection:
    """One connection, which is kept open unless the server says otherwise."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = self._open()

    def _open(self) -> socket.socket:
        opened = socket.create_connection(("127.0.0.1", self._port))
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    def ask(
        self, method: str, path: str, body: list[Any], *, key: tuple[str, str], signed: bytes, extra: str = ""
    ) -> dict[str, Any]:
        """Send one request; returns the JSON of the reply."""
        mac = hmac.new(key[1].encode(), signed, "sha1").hexdigest().encode()
        authorization = f"{key[0]} {base64.b64encode(mac).decode()}"
        length = sum(len(piece) for piece in body)
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
        head += f"Authorization: {authorization}\r\n{extra}\r\n"
        if length < 65536:
            self._socket.sendall(head.encode() + b"".join(body))
        else:
            self._socket.sendall(head.encode())
            for piece in body:
                self._socket.sendall(piece)
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, rest = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if fields.get(b"transfer-encoding") == b"chunked":
            while not rest.endswith(b"0\r\n\r\n"):
                rest += self._receive()
            rest = rest[rest.index(b"\r\n") + 2 :].rpartition(b"\r\n0\r\n\r\n")[0]
        else:
            while len(rest) < int(fields[b"content-length"]):
                rest += self._receive()
        if fields.get(b"connection", b"").lower() == b"close":
            self._socket.close()
            self._socket = self._open()
        answer = json.loads(rest)
        assert isinstance(answer, dict)
        return answer

    def _receive(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the server has closed the connection")
        return data


def acquire(connection: Connection, job: dict[str, Any], path: str) -> str:
    body = json.dumps({"path": path, "api_version": "2", "hostname": "bench"}).encode()
    reply = connection.ask("POST", "/api/v1/leases", [body], key=job["key"], signed=body)
    if reply.get("status") != "ok":
        raise RuntimeError(f"no lease on {path}: {reply}")
    return str(reply["session_token"])


def drop(connection: Connection, job: dict[str, Any], token: str) -> None:
    connection.ask("DELETE", f"/api/v1/leases/{token}", [], key=job["key"], signed=token.encode())


def make_pack(count: int, size: int) -> tuple[bytes, list[Any]]:
    """Header and pieces of a pack of random objects; *count* 1 makes one object of repeated random bytes."""
    if count == 1 and size > 1 << 24:
        piece = memoryview(os.urandom(1 << 22))
        pieces: list[Any] = [piece] * (size >> 22)
        hasher = hashlib.sha1(usedforsecurity=False)
        for each in pieces:
            hasher.update(each)
        return f"V2\nS{size}\nN1\n--\nC {hasher.hexdigest()} {size}\n".encode(), pieces
    data = memoryview(os.urandom(count * size))
    lines = [f"V2\nS{count * size}\nN{count}\n--\n"]
    for number in range(count):
        digest = hashlib.sha1(data[number * size : (number + 1) * size], usedforsecurity=False).hexdigest()
        lines.append(f"C {digest} {size}\n")
    step = 1 << 20
    return "".join(lines).encode(), [data[at : at + step] for at in range(0, len(data), step)]


def ready() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def payload(job: dict[str, Any]) -> dict[str, Any]:
    """Send ``packs`` packs of ``count`` objects of ``size`` bytes under one lease."""
    connection = Connection(job["port"])
    token = acquire(connection, job, job["path"])
    packs = [make_pack(job["count"], job["size"]) for _ in range(job.get("packs", 1))]
    ready()
    started = time.monotonic()
    for header, pieces in packs:
        head = json.dumps(
            {
                "session_token": token,
                "payload_digest": hashlib.sha1(header, usedforsecurity=False).hexdigest(),
                "header_size": str(len(header)),
                "api_version": "2",
            }
        ).encode()
        extra = f"Message-Size: {len(head)}\r\n"
        body = [head + header, *pieces]
        reply = connection.ask("POST", "/api/v1/payloads", body, key=job["key"], signed=head, extra=extra)
        if reply.get("status") != "ok":
            raise RuntimeError(f"payload refused: {reply}")
    seconds = time.monotonic() - started
    drop(connection, job, token)
    objects = len(packs) * job["count"]
    return {"seconds": seconds, "objects": objects, "bytes": objects * job["size"]}


def leases(job: dict[str, Any]) -> dict[str, Any]:
    """Take and drop a lease ``count`` times."""
    connection = Connection(job["port"])
    drop(connection, job, acquire(connection, job, job["path"]))
    ready()
    started = time.monotonic()
    for _ in range(job["count"]):
        drop(connection, job, acquire(connection, job, job["path"]))
    return {"seconds": time.monotonic() - started, "pairs": job["count"]}


def probe(job: dict[str, Any]) -> dict[str, Any]:
    """How long small requests take, in seconds: of each kind, until told to stop, with ``pause`` in between."""
    connection = Connection(job["port"])
    times: dict[str, list[float]] = {name: [] for name in ("GET /leases", "GET /repos", "lease", "renewal", "drop")}
    key = job["key"]

    def timed(name: str, method: str, path: str, body: list[Any], signed: bytes) -> dict[str, Any]:
        started = time.monotonic()
        reply = connection.ask(method, f"/api/v1{path}", body, key=key, signed=signed)
        times[name].append(time.monotonic() - started)
        return reply

    wanted = json.dumps({"path": job["path"], "api_version": "2", "hostname": "bench"}).encode()
    ready()
    while not select.select([sys.stdin], [], [], job["pause"])[0]:
        timed("GET /leases", "GET", "/leases", [], b"")
        timed("GET /repos", "GET", "/repos", [], b"")
        token = str(timed("lease", "POST", "/leases", [wanted], wanted)["session_token"])
        if job["renew"]:
            timed("renewal", "PATCH", f"/leases/{token}", [], token.encode())
        timed("drop", "DELETE", f"/leases/{token}", [], token.encode())
    return {"times": times}


def main() -> None:
    job = json.loads(sys.argv[1])
    print(json.dumps({"payload": payload, "leases": leases, "probe": probe}[job["job"]](job)), flush=True)


if __name__ == "__main__":
    main()
