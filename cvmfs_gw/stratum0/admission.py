"""Admission of uploads: which repositories accept them, who may do what where, and for how long."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from cvmfs_gw.gateway.access import Access
from cvmfs_gw.gateway.errors import InvalidLeasePath
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.stratum0.authorization import Asked, Grant, authorize
from cvmfs_gw.stratum0.errors import InvalidRequest, NotEnabled, TryAgain, Unauthorized
from cvmfs_gw.stratum0.settings import MAX_TTL_S, UploadSettings, stamp


class Admission:
    """By ``uploads.json`` at *path* and the gateway's keys. *is_enabled* says of a repository whether it may be changed
    now; *clock* is that of times to live.
    """

    def __init__(
        self, path: str, access: Access, is_enabled: Callable[[str], bool], clock: Callable[[], float]
    ) -> None:
        """Raises :exc:`ConfigError`."""
        self._path, self._access, self._is_enabled, self._clock = path, access, is_enabled, clock
        self._seen = stamp(path)
        self.settings = UploadSettings.load(path)

    def changed(self) -> bool:
        """Whether the file has changed since it was read."""
        return stamp(self._path) != self._seen

    def reload(self) -> None:
        """Reload the file, once for each change; if it raises :exc:`ConfigError`, the settings stay as they were."""
        self._seen = stamp(self._path)
        self.settings = UploadSettings.load(self._path)

    def repositories(self) -> list[str]:
        """The repositories that accept uploads."""
        return [fqrn for fqrn in self.settings.repositories if fqrn in self._access.config.repositories]

    def enabled(self) -> list[str]:
        """Those of them that may be changed now."""
        return [fqrn for fqrn in self.repositories() if self._is_enabled(fqrn)]

    def place(self, fqrn: str, path: str) -> LeasePath:
        """*path* of a repository that accepts uploads; raises :exc:`NotEnabled`, :exc:`InvalidRequest`."""
        if fqrn not in self.repositories():
            raise NotEnabled
        try:
            return LeasePath.parse(f"{fqrn}/{path}")
        except InvalidLeasePath as error:
            raise InvalidRequest(error.reason.replace("lease path", "path")) from None

    def authorize(self, asked: Asked, place: LeasePath, *, change: bool) -> Grant:
        """Authorize a request; raises :exc:`Unauthorized` and :exc:`Forbidden`."""
        settings = self.settings.repositories[place.fqrn]
        try:
            grant = authorize(asked, place, self._access, self.settings, time.time())
        except Unauthorized:
            if not change and settings.public_read and asked.authorization is None:
                return Grant("anybody", LeasePath(place.fqrn, ""), read_only=True)
            raise
        grant.check(place, change=change)
        if change:
            self.check_enabled(place.fqrn)
        return grant

    def check_enabled(self, fqrn: str) -> None:
        """Raise :exc:`TryAgain` if the repository may not be changed now. From any thread."""
        if not self._is_enabled(fqrn):
            raise TryAgain("the repository is disabled")

    def end(self, fqrn: str, ttl_s: int | None) -> int | None:
        """The expiry for a time to live, in seconds since the epoch, or None; raises :exc:`InvalidRequest`.

        0 asks for no expiry, which is granted if there is no limit; None for the default. Raises :exc:`NotEnabled` if
        a reload has disabled uploads meanwhile.
        """
        settings = self.settings.repositories.get(fqrn)
        if settings is None:
            raise NotEnabled
        if ttl_s is None:
            ttl_s = settings.default_ttl_s
            if not ttl_s and settings.max_ttl_s:
                ttl_s = settings.max_ttl_s
        longest = settings.max_ttl_s or MAX_TTL_S
        if not 0 <= ttl_s <= longest or (ttl_s == 0 and settings.max_ttl_s):
            raise InvalidRequest(f"ttl_s is not from {1 if settings.max_ttl_s else 0} to {longest}")
        return math.ceil(self._clock() + ttl_s) if ttl_s else None
