"""Logging: requests with their ids, as text or JSON, and never a session token.

::

    INFO cvmfs_gw.api.app: 127.0.0.1 "GET /api/v1/leases" 200 31 0.4 ms [5f1d8a3c0b7e]
    {"level":"info","component":"http","req_id":"5f1d8a3c0b7e","req_dt":0.4,"time":"...","message":"..."}

Source: the names of the JSON fields are those of the reference's log.
Divergence: the reference writes tokens to its log, within URLs and separately.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

_SHOWN: Final = 4
_TOKEN_URL: Final = re.compile(r"(/(?:leases|payloads|objects)/)([^/?\s]+)")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the present request, inherited by everything that is called for it."""

REQUEST_ID_KEY: Final = web.RequestKey("request_id", str)


def mask_token(token: str) -> str:
    """A prefix of a token: enough to tell two apart in a log, not enough to use it."""
    return token[:_SHOWN] + "..." if len(token) > 2 * _SHOWN else "..."


def mask_url(url: str) -> str:
    """*url* with the tokens in it masked."""
    return _TOKEN_URL.sub(lambda match: match[1] + mask_token(match[2]), url)


def request_id(header: str | None) -> str:
    """The id that a client or a proxy gave its request, if it is one, else a new one."""
    if header is not None and _REQUEST_ID.fullmatch(header):
        return header
    return secrets.token_hex(6)


class AccessLogger(AbstractAccessLogger):
    """One line for each request: peer, method, masked URL, status, size of the reply, time taken, id."""

    @property
    def enabled(self) -> bool:
        """Looked at once for each connection."""
        return self.logger.isEnabledFor(logging.INFO)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        fields: dict[str, Any] = {
            "component": "http",
            "req_id": request.get(REQUEST_ID_KEY, ""),
            "req_dt": round(time * 1000, 3),
            "peer": request.remote,
            "method": request.method,
            "url": mask_url(request.raw_path),
            "status": response.status,
            "size": response.body_length,
        }
        self.logger.info(
            '%s "%s %s" %d %d %.1f ms [%s]',
            fields["peer"],
            fields["method"],
            fields["url"],
            fields["status"],
            fields["size"],
            fields["req_dt"],
            fields["req_id"],
            extra={"fields": fields},
        )


class JsonFormatter(logging.Formatter):
    """Each record as one line of JSON."""

    def __init__(self, *, timestamps: bool) -> None:
        super().__init__()
        self._timestamps = timestamps

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"level": record.levelname.lower().replace("warning", "warn")}
        line["component"] = record.name.removeprefix("cvmfs_gw.")
        if identifier := REQUEST_ID.get():
            line["req_id"] = identifier
        line |= getattr(record, "fields", {})
        if self._timestamps:
            line["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line["message"] = record.getMessage()
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
