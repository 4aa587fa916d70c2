"""A proxy between publisher and gateway that does to connections what networks do.

::

    forward   hand on as it is                        cut_request   hand on so many bytes of the request, then reset
    delay     wait before the reply is handed on      cut_reply     hand on the whole request, then drop the reply
    trickle   hand the request on in small pieces     truncate      hand on so many bytes of the reply, then close
    duplicate send the request to the gateway twice and hand on the second reply
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from conformance.wire import Url, parse_head

_PIECE: Final = 1 << 16
_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one connection; ``size`` is in bytes, ``seconds`` a pause."""

    kind: str = "forward"
    size: int = 0
    seconds: float = 0.0


class ChaosProxy:
    """Listens on a port of loopback; the next connection gets :attr:`fault`, those after it are handed on."""

    def __init__(self, gateway: str, timeout: float = 60.0) -> None:
        self._url = Url(gateway)
        self._timeout = timeout
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}{self._url.path}"
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        # shutdown, so that an accept that is waiting returns
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def next(self, *faults: Fault) -> None:
        """What the next connections are to suffer."""
        with self._lock:
            self._faults += faults

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                fault = self._faults.pop(0) if self._faults else Fault()
            threading.Thread(target=self._serve, args=(connection, fault), daemon=True).start()

    def _serve(self, client: socket.socket, fault: Fault) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(self._timeout)
            request = _read_request(client)
            if fault.kind == "duplicate":
                with contextlib.closing(self._url.connect(self._timeout)) as server:
                    server.sendall(request)
                    _drain(server)
            with contextlib.closing(self._url.connect(self._timeout)) as server:
                if fault.kind == "cut_request":
                    server.sendall(request[: fault.size])
                    reset(server)
                    reset(client)
                    return
                if fault.kind == "trickle":
                    for at in range(0, len(request), fault.size):
                        server.sendall(request[at : at + fault.size])
                        time.sleep(fault.seconds)
                else:
                    server.sendall(request)
                reply = _drain(server)
            if fault.kind == "cut_reply":
                reset(client)
                return
            if fault.kind == "delay":
                time.sleep(fault.seconds)
            client.sendall(reply[: fault.size] if fault.kind == "truncate" else reply)


@contextlib.contextmanager
def chaos(gateway: str) -> Iterator[ChaosProxy]:
    """A proxy, for as long as it is needed."""
    proxy = ChaosProxy(gateway)
    try:
        yield proxy
    finally:
        proxy.close()


def _read_request(client: socket.socket) -> bytes:
    data = bytearray()
    while b"\r\n\r\n" not in data:
        piece = client.recv(_PIECE)
        if not piece:
            raise ConnectionResetError("no request")
        data += piece
    # A request's first line is as good as a reply's for this.
    _, headers, rest = parse_head(b"HTTP/1.1 200 OK\r\n" + bytes(data).partition(b"\r\n")[2])
    missing = int(headers.get("content-length", "0")) - len(rest)
    while missing > 0:
        piece = client.recv(_PIECE)
        if not piece:
            raise ConnectionResetError("half a request")
        data += piece
        missing -= len(piece)
    return bytes(data)


def _drain(server: socket.socket) -> bytes:
    """The whole reply; the suite's requests ask for the connection to be closed behind it."""
    data = bytearray()
    while piece := server.recv(_PIECE):
        data += piece
    return bytes(data)


def reset(connection: socket.socket) -> None:
    """End a connection as a crash does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()
