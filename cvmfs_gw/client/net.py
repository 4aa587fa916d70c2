"""Connections to servers: time-outs, retries and proxies.

Source: ``http_proxy``, ``https_proxy`` and ``no_proxy`` of the environment, as every other HTTP client reads them.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

CONNECT_S: Final = 30.0
"""How long a connection may take to be made, in seconds."""
_DEEPEST: Final = 5
_AGAIN: Final = (502, 503, 504)


def why(error: BaseException) -> str:
    """The cause of a connection error, if possible the system's message; never the URL, which may contain a token."""
    for _ in range(_DEEPEST):
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        last = error.args[-1] if error.args else None
        inner = getattr(error, "reason", None) or (last if isinstance(last, BaseException) else error.__cause__)
        if not isinstance(inner, BaseException):
            break
        error = inner
    return type(error).__name__


def connections(url: str, *, read_s: float, tries: int = 1, most: int = 8) -> urllib3.PoolManager:
    """Connections to the server of *url*, of which *most* are kept; what is idempotent is tried *tries* times.

    *read_s* is how long the server may say nothing, in seconds.
    """
    retries = urllib3.Retry(tries - 1, backoff_factor=0.2, status_forcelist=_AGAIN, raise_on_status=False)
    timeout = urllib3.Timeout(connect=CONNECT_S, read=read_s)
    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
    if proxy:
        return urllib3.ProxyManager(proxy, retries=retries, timeout=timeout, maxsize=most)
    return urllib3.PoolManager(retries=retries, timeout=timeout, maxsize=most)
