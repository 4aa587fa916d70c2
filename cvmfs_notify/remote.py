"""Trust anchors of repositories on other machines: whitelist and certificate are fetched over HTTP."""

from __future__ import annotations

import logging
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from cvmfs_notify.config import RepositorySource
from cvmfs_notify.trust import Anchors
from cvmfs_objstore.errors import SignatureError
from cvmfs_objstore.hashes import ContentHash

log = logging.getLogger(__name__)

WHITELIST_KEPT_S: Final = 300.0
"""For how long a whitelist is cached, in seconds."""
TIMEOUT_S: Final = 10.0
_MAX_FILE: Final = 1 << 20

Fetch = Callable[[str], bytes]


class RemoteAnchors:
    """The trust anchors of the configured repositories. If a whitelist cannot be fetched, the cached one is kept."""

    def __init__(
        self,
        repositories: Mapping[str, RepositorySource],
        fetch: Fetch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repositories = repositories
        self._fetch = fetch or fetch_url
        self._clock = clock
        self._whitelists: dict[str, tuple[float, bytes]] = {}
        self._certificates: dict[ContentHash, bytes] = {}

    def anchors(self, fqrn: str) -> Anchors | None:
        """See :class:`cvmfs_notify.trust.TrustSource`."""
        source = self._repositories.get(fqrn)
        if source is None:
            return None
        with open(source.public_key, "rb") as file:
            public_keys = file.read(_MAX_FILE)
        return Anchors(public_keys, self._whitelist(fqrn, source.url), lambda name: self._certificate(source.url, name))

    def _whitelist(self, fqrn: str, url: str) -> bytes:
        known = self._whitelists.get(fqrn)
        if known is not None and self._clock() - known[0] < WHITELIST_KEPT_S:
            return known[1]
        try:
            data = self._fetch(f"{url.rstrip('/')}/.cvmfswhitelist")
        except OSError as error:
            if known is None:
                raise
            log.warning("cannot fetch the whitelist of %s, the cached one is kept: %s", fqrn, error)
            data = known[1]
        self._whitelists[fqrn] = (self._clock(), data)
        return data

    def _certificate(self, url: str, name: ContentHash) -> bytes:
        known = self._certificates.get(name)
        if known is None:
            stored = self._fetch(f"{url.rstrip('/')}/{name.path}")
            if ContentHash.of(stored, name.algorithm, name.suffix) != name:
                raise SignatureError(f"{name} does not match its hash")
            try:
                known = zlib.decompressobj().decompress(stored, _MAX_FILE)
            except zlib.error as error:
                raise SignatureError(f"{name}: {error}") from None
            if len(self._certificates) >= 4 * len(self._repositories):
                self._certificates.clear()
            self._certificates[name] = known
        return known


def fetch_url(url: str) -> bytes:
    """The file at *url*, at most 1 MiB; raises ``OSError``."""
    if not url.startswith(("http://", "https://")):
        raise OSError(f"not a web address: {url}")
    request = urllib.request.Request(url, headers={"Cache-Control": "no-cache"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
        data: bytes = reply.read(_MAX_FILE)
        return data
