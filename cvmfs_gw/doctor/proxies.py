"""A repository through the proxies that clients use: what comes through must be what the web server has, and in time.

Which proxies is said by the client's configuration on this machine, by ``CVMFS_SERVER_PROXY``, or on the command line.

Source: the order in which a client reads its configuration, and the form of ``CVMFS_HTTP_PROXY`` (groups with ``;``,
members with ``|``); how long the manifest may be kept, from the reference's Apache configuration; RFC 9111 for ``Age``.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from glob import glob
from typing import Final
from urllib.parse import unquote, urlsplit

import urllib3

from cvmfs_gw.doctor.findings import Finding, FindingKind
from cvmfs_gw.doctor.website import LONGEST_S, SKEW_S, TIMEOUT
from cvmfs_gw.engine.repository import MANIFEST_PATH, Repository
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.serverconf import ServerConf, ServerConfError
from cvmfs_objstore.errors import FormatError
from cvmfs_objstore.formats.manifest import Manifest, SignedManifest

_NONE: Final = frozenset(("", "auto", "DIRECT"))
_MAX_READ: Final = 1 << 20


def configured_proxies(repository: Repository, paths: SystemPaths) -> list[str]:
    """The URLs of the proxies that clients and ``cvmfs_server`` on this machine would use, each once."""
    fqrn = repository.fqrn
    found = [repository.configuration().get("CVMFS_SERVER_PROXY"), _client_proxies(paths.client_configuration, fqrn)]
    urls = [part.strip().strip('"') for text in found for part in re.split("[;|]", text)]
    return list(dict.fromkeys(normal_url(url) for url in urls if url not in _NONE))


def normal_url(proxy: str) -> str:
    """The URL of a proxy, of which clients take the host and the port alone, too."""
    return proxy if "://" in proxy else f"http://{proxy}"


def _client_proxies(folder: str, fqrn: str) -> str:
    domain = fqrn.partition(".")[2]
    places = [f"{folder}/default.conf", *sorted(glob(f"{folder}/default.d/*.conf")), f"{folder}/default.local"]
    for kind, name in (("domain.d", domain), ("config.d", fqrn)):
        places += [f"{folder}/{kind}/{name}.conf", f"{folder}/{kind}/{name}.local"]
    text = ""
    for path in filter(os.path.exists, places):
        try:
            text = ServerConf.load(path, fqrn).get("CVMFS_HTTP_PROXY", text)
        except ServerConfError:
            continue  # it is not ours to read
    return text


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    data: bytes
    headers: Mapping[str, str]

    @property
    def age(self) -> int:
        """For how long a proxy has had it, in seconds, as it says; 0 where it says nothing."""
        text = self.headers.get("Age", "")
        return int(text) if text.isdecimal() else 0

    @property
    def cached(self) -> bool:
        """Whether it says that it did not ask the web server."""
        return "Age" in self.headers or "HIT" in self.headers.get("X-Cache", "").upper().split(" ", 1)[0]


def examine_proxy(repository: Repository, proxy: str, now: float) -> list[Finding]:
    """What is wrong with the repository through *proxy* (its URL) at *now*, in seconds since the epoch.

    Asks the network for three small files, once directly. Says nothing where the web server itself does not answer:
    that has been found without a proxy.
    """
    url = repository.configuration().stratum0.rstrip("/")
    parts = urlsplit(proxy)
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()  # without a password
    place = f"{url} through {shown}"
    try:
        with urllib3.PoolManager(retries=False, timeout=TIMEOUT) as pool:
            direct = _ask(pool, f"{url}/{MANIFEST_PATH}")
        head = SignedManifest.parse(direct.data).manifest
    except (urllib3.exceptions.HTTPError, OSError, FormatError):
        return []
    try:
        with _through(proxy) as pool:
            return list(_compare(pool, url, place, head, now))
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        return [Finding.of(FindingKind.PROXY, place, type(error).__name__)]


def _through(proxy: str) -> urllib3.PoolManager:
    parts = urlsplit(proxy)
    headers = None
    if parts.username:
        account = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = urllib3.make_headers(proxy_basic_auth=account)
        proxy = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return urllib3.ProxyManager(proxy, proxy_headers=headers, retries=False, timeout=TIMEOUT)


def _ask(pool: urllib3.PoolManager, url: str) -> _Reply:
    with pool.request("GET", url, preload_content=False, redirect=False) as reply:
        return _Reply(reply.status, reply.read(_MAX_READ), reply.headers)


def _compare(pool: urllib3.PoolManager, url: str, place: str, head: Manifest, now: float) -> Iterator[Finding]:
    manifest = _ask(pool, f"{url}/{MANIFEST_PATH}")
    if manifest.status != 200:
        yield Finding.of(FindingKind.PROXY, place, f"HTTP {manifest.status}")
        return
    yield from _manifest(manifest, place, head, now)
    if head.certificate is not None:
        path = head.certificate.path
        found = _ask(pool, f"{url}/{path}")
        digest = head.certificate.algorithm.new()
        digest.update(found.data)
        if found.status != 200:
            yield Finding.of(FindingKind.PROXY, place, f"HTTP {found.status} for {path}")
        elif digest.digest() != head.certificate.digest:
            yield Finding.of(FindingKind.PROXY_CHANGES, place, path)
    nowhere = f"{url}/data/00/{secrets.token_hex(19)}"
    if _ask(pool, nowhere).status == 404 and (again := _ask(pool, nowhere)).status == 404 and again.cached:
        yield Finding.of(FindingKind.PROXY_NOT_FOUND, place)


def _manifest(reply: _Reply, place: str, head: Manifest, now: float) -> Iterator[Finding]:
    """The manifest that a proxy has may be some time behind, and no more."""
    try:
        through = SignedManifest.parse(reply.data).manifest
    except FormatError as error:
        yield Finding.of(FindingKind.PROXY_CHANGES, place, f"{MANIFEST_PATH}: {error}")
        return
    if through.fqrn != head.fqrn or through.revision > head.revision:
        yield Finding.of(FindingKind.PROXY_CHANGES, place, f"{through.fqrn} revision {through.revision}")
        return
    late = through.revision < head.revision and now - head.published > LONGEST_S + SKEW_S
    if late or reply.age > LONGEST_S:
        revision = f"revision {through.revision}"
        if through.revision < head.revision:
            revision += f", not {head.revision}"
        control = reply.headers.get("Cache-Control", "nothing")
        yield Finding.of(FindingKind.PROXY_STALE, place, f"{revision}; Age: {reply.age} s; Cache-Control: {control}")
