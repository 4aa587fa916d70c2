"""TLS for the gateway: a certificate and a key that can be replaced while it runs.

The files are reloaded on SIGHUP and when they change (renewed certificates are renamed into place). Open connections
are not affected; if the new files are unusable, the old certificate stays.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from typing import Final

from cvmfs_gw.gateway.errors import ConfigError

log = logging.getLogger(__name__)

WATCH_S: Final = 10.0
"""The interval at which the files are checked for changes, in seconds."""


class TlsFiles:
    """The server's TLS context, loaded from a chain of certificates and a key in PEM."""

    def __init__(self, certificate: str, key: str) -> None:
        """Raises :exc:`ConfigError`."""
        self._certificate, self._key = certificate, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._seen: object = None
        self.reload()

    def reload(self) -> None:
        """Reload the files; if they are unusable, raises :exc:`ConfigError` and keeps the old certificate."""
        self._seen = self._look()
        # tried on a context of its own: one that fails half-way would have a certificate without its key
        trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for context in (trial, self.context):
            try:
                context.load_cert_chain(self._certificate, self._key, password="")
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"cannot use {self._certificate} with {self._key}: {error}") from error

    def reload_if_changed(self) -> bool:
        """Raises as :meth:`reload` does, once for each change."""
        if self._look() == self._seen:
            return False
        self.reload()
        return True

    async def watch(self) -> None:
        """Reload whenever the files change; never returns."""
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                if await asyncio.to_thread(self.reload_if_changed):
                    log.info("the TLS certificate was reloaded")
            except ConfigError as error:
                log.error("the TLS certificate is not reloaded: %s", error)

    def _look(self) -> tuple[object, ...]:
        found: list[object] = []
        for name in (self._certificate, self._key):
            try:
                status = os.stat(name)
            except OSError:
                found.append(None)
            else:
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)
