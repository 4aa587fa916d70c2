"""The HTTP server's settings: limits on sizes and times, and JSON replies to malformed HTTP.

| limit | value |
| --- | --- |
| request line | 16 KiB (a lease path has 4 KiB, thrice that when escaped) |
| one header field, number of them | 8 KiB, 100 |
| time until a request's head is complete, and between requests | 75 s |
| JSON body | 1 MiB within 60 s (:mod:`cvmfs_gw.api.context`) |
| silence within a payload | 900 s (:mod:`cvmfs_gw.api.bodies`) |
| requests at the same time | 2048 (:mod:`cvmfs_gw.api.observe`) |
| requests that wait for an unknown sender | 1024, 60 s (:mod:`cvmfs_gw.api.running`) |
| payloads that are stored at the same time | 32, 24 of one key, more wait (:mod:`cvmfs_gw.gateway.payloads`) |
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.http_parser import HttpRequestParser

from cvmfs_gw.api.logs import AccessLogger
from cvmfs_gw.api.messages import reply

log = logging.getLogger(__name__)

READ_BUFFER: Final = 1 << 20
"""How much of a request's body is read ahead, in bytes for each connection."""
MAX_LINE: Final = 16 << 10
MAX_FIELD: Final = 8 << 10
MAX_FIELDS: Final = 100
IDLE_S: Final = 75.0


class Connection(web.RequestHandler):
    """Answers malformed requests in JSON, like all others."""

    __slots__ = ()

    def begin_anew(self) -> None:
        """Expect the head of a request next: the parser has not seen the end of the body that it waits for."""
        self._parser = HttpRequestParser(
            self,
            self._loop,
            READ_BUFFER,
            max_line_size=MAX_LINE,
            max_field_size=MAX_FIELD,
            max_headers=MAX_FIELDS,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
        )

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        log.info("%s: no HTTP: %s", request.remote, " ".join(str(message or exc).split())[:200])
        response = reply({"status": "error", "reason": "malformed HTTP request"}, status)
        response.force_close()
        return response


class Runner(web.AppRunner):
    """Serves an application with the settings that payloads and publishers need; signals are left to the caller.

    Request bodies are not decoded: a ``Content-Encoding`` is ignored. *shutdown_timeout* is the time that requests in
    flight have at the cleanup, in seconds.
    """

    __slots__ = ()

    def __init__(
        self, app: web.Application, shutdown_timeout: float = 60.0, access_log: logging.Logger | None = log
    ) -> None:
        super().__init__(
            app,
            access_log_class=AccessLogger,
            access_log=access_log,
            read_bufsize=READ_BUFFER,
            max_line_size=MAX_LINE,
            max_field_size=MAX_FIELD,
            max_headers=MAX_FIELDS,
            auto_decompress=False,
            handler_cancellation=False,
            keepalive_timeout=IDLE_S,
            shutdown_timeout=shutdown_timeout,
        )

    @property
    def server(self) -> Any:
        """What makes a protocol for each connection."""
        server = super().server
        return None if server is None else _maker(server)


def _maker(server: web.Server) -> Callable[[], web.RequestHandler]:
    def make() -> web.RequestHandler:
        handler = server()
        # There is no way to ask the server for another class, and this one adds no state.
        handler.__class__ = Connection
        return handler

    return make
