"""What the log says of requests: never a session token.

Divergence: the reference writes tokens to its log, in URLs and by themselves.
"""

from __future__ import annotations

import re
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

_SHOWN: Final = 4
_TOKEN_URL: Final = re.compile(r"(/(?:leases|payloads)/)([^/?\s]+)")


def mask_token(token: str) -> str:
    """Enough of a token to tell two apart in a log, and not enough to use it."""
    return token[:_SHOWN] + "..." if len(token) > 2 * _SHOWN else "..."


def mask_url(url: str) -> str:
    """*url* with the tokens in it masked."""
    return _TOKEN_URL.sub(lambda match: match[1] + mask_token(match[2]), url)


class AccessLogger(AbstractAccessLogger):
    """One line for each request: peer, method, masked URL, status, size of the reply, time taken."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        self.logger.info(
            '%s "%s %s" %d %d %.1f ms',
            request.remote,
            request.method,
            mask_url(request.raw_path),
            response.status,
            response.body_length,
            time * 1000,
        )
