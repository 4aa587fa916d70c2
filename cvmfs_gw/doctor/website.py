"""A repository as publishers, clients and proxies see it: through its URL.

Source: what ``cvmfs_server`` and publishers ask for before they do anything; the headers of the reference's Apache
configuration, and what old Squids make of others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Final

import urllib3

from cvmfs_gw.doctor.findings import Finding, FindingKind
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.engine.repository import MANIFEST_PATH, Repository
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.formats.manifest import SignedManifest

SKEW_S: Final = 60.0
"""How far clocks may differ, in seconds."""
LONGEST_S: Final = 61
"""For how long a proxy may keep the manifest, in seconds."""
TIMEOUT: Final = urllib3.Timeout(connect=5, read=15)
_MAX_MANIFEST: Final = 1 << 16
_MAX_AGE: Final = re.compile(r"(?:s-maxage|max-age)\s*=\s*\"?(\d{1,9})", re.ASCII)


def examine_url(repository: Repository, now: float) -> list[Finding]:
    """What is wrong with the repository's URL at *now*, in seconds since the epoch. Waits for the network."""
    url = repository.configuration().stratum0.rstrip("/")
    with urllib3.PoolManager(retries=False, timeout=TIMEOUT) as pool:
        try:
            with pool.request("GET", f"{url}/{MANIFEST_PATH}", preload_content=False) as reply:
                data = reply.read(_MAX_MANIFEST)
            if reply.status != 200:
                return [Finding.of(FindingKind.URL, url, f"HTTP {reply.status}")]
            replica = pool.request("HEAD", f"{url}/.cvmfs_master_replica")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return [Finding.of(FindingKind.URL, url or repository.fqrn, type(error).__name__)]
    found = [*_content(repository, url, data), *_headers(url, reply, now)]
    if replica.status != 200:
        found.append(Finding.of(FindingKind.NOT_REPLICABLE, url, f"HTTP {replica.status}"))
    return found


def _content(repository: Repository, url: str, data: bytes) -> Iterator[Finding]:
    try:
        served, present = SignedManifest.parse(data).manifest, repository.head()
    except (ObjectStoreError, EngineError) as error:
        yield Finding.of(FindingKind.URL_OTHER, url, error)
        return
    if served.fqrn != present.fqrn or served.revision > present.revision:
        yield Finding.of(FindingKind.URL_OTHER, url, f"{served.fqrn} revision {served.revision}")
    elif served.revision < present.revision:
        yield Finding.of(FindingKind.URL_STALE, url, f"revision {served.revision}, not {present.revision}")


def _headers(url: str, reply: urllib3.BaseHTTPResponse, now: float) -> Iterator[Finding]:
    place = f"{url}/{MANIFEST_PATH}"
    control = reply.headers.get("Cache-Control", "")
    ages = [int(age) for age in _MAX_AGE.findall(control)]
    unsaid = not ages and not re.search("no-cache|no-store", control)
    if unsaid or max(ages, default=0) > LONGEST_S:
        yield Finding.of(FindingKind.CACHE_LONG, place, f"Cache-Control: {control}" if control else "no Cache-Control")
    if validators := [name for name in ("Last-Modified", "ETag") if name in reply.headers]:
        yield Finding.of(FindingKind.CACHE_VALIDATORS, place, ", ".join(validators))
    try:
        ahead = now - parsedate_to_datetime(reply.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return
    if abs(ahead) > SKEW_S:
        yield Finding.of(
            FindingKind.CLOCK, url, f"by {abs(ahead):.0f} s: this one is {'ahead' if ahead > 0 else 'late'}"
        )
