"""A tiny caching proxy, well-behaved or not."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from base64 import b64decode
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final

_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class _Kept:
    status: int
    headers: dict[str, str]
    data: bytes
    since: float


class Proxy:
    """Keeps what it gets for *keeps* seconds, whatever it is told, and errors as well with *keeps_errors*.

    It says ``Age``, which begins at *age*. What it has is changed by *change*; *account* is ``user:password``.
    """

    def __init__(self, keeps: float = 0, *, keeps_errors: bool = False, age: int = 0, account: str = "") -> None:
        self.keeps, self.keeps_errors, self.age, self.account = keeps, keeps_errors, age, account
        self.prefix = b""
        self.asked: list[str] = []
        self._kept: dict[str, _Kept] = {}
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                proxy.asked.append(self.path)
                given = self.headers.get("Proxy-Authorization", "").partition(" ")[2]
                if proxy.account and b64decode(given).decode() != proxy.account:
                    self.send_response_only(407)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                kept, is_old = proxy.get(self.path)
                self.send_response_only(kept.status)
                for name, value in kept.headers.items():
                    self.send_header(name, value)
                data = proxy.prefix + kept.data
                if is_old:
                    self.send_header("Age", str(int(time.time() - kept.since) + proxy.age))
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        account = f"{self.account}@" if self.account else ""
        return f"http://{account}{self.host}"

    def get(self, url: str) -> tuple[_Kept, bool]:
        """A reply, and whether it was kept."""
        kept = self._kept.get(url)
        if kept is not None and time.time() < kept.since + self.keeps:
            return kept, True
        try:
            with _DIRECT.open(url, timeout=10) as reply:
                kept = _Kept(reply.status, self._passed_on(dict(reply.headers)), reply.read(), time.time())
        except urllib.error.HTTPError as error:
            with error:
                kept = _Kept(error.code, self._passed_on(dict(error.headers)), error.read(), time.time())
        if kept.status == 200 or self.keeps_errors:
            self._kept[url] = kept
        return kept, False

    @staticmethod
    def _passed_on(headers: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in headers.items() if name in ("Cache-Control", "Date")}

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
