"""The gateway's own affairs: settings, keys, port, leases, limits."""

from __future__ import annotations

import errno
import os
import resource
import socket
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Final

import urllib3

from cvmfs_gw.doctor.findings import Finding, FindingKind
from cvmfs_gw.gateway.access import Access
from cvmfs_gw.gateway.config import Config
from cvmfs_gw.gateway.errors import ConfigError
from cvmfs_gw.gateway.members import UnknownMember
from cvmfs_gw.paths import SystemPaths

FEW_FILES: Final = 4096
_TIMEOUT_S: Final = 5.0


def examine_gateway(paths: SystemPaths) -> tuple[list[Finding], list[str]]:
    """What is wrong with the gateway of this machine, and the repositories that it serves."""
    try:
        config = Config.load(paths)
    except ConfigError as error:
        return [Finding.of(FindingKind.SETTINGS, paths.user_config, error)], []
    found = [*_unknown(config.unknown), *_port(config), *_work_dir(config), *_limits()]
    try:
        access = Access.load(config.access_config_file, paths)
    except ConfigError as error:
        return [*found, Finding.of(FindingKind.ACCESS, config.access_config_file, error)], []
    found += _unknown(access.config.unknown)
    fqrns = list(access.config.repositories)
    if not fqrns:
        found.append(Finding.of(FindingKind.NO_REPOSITORIES, config.access_config_file))
    if not any(key.admin for key in access.config.keys.values()):
        found.append(Finding.of(FindingKind.NO_ADMIN_KEY, config.access_config_file))
    return found, fqrns


def _unknown(members: Iterable[UnknownMember]) -> Iterator[Finding]:
    for member in members:
        yield Finding.of(FindingKind.UNKNOWN_MEMBER, member.place, member.question)


def _port(config: Config) -> Iterator[Finding]:
    """A port that is free is well, and so is one on which a gateway answers."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", config.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE and _is_gateway(config):
                return
            yield Finding.of(FindingKind.PORT, f"port {config.port}", error.strerror)


def _is_gateway(config: Config) -> bool:
    scheme = "https" if config.tls_certificate else "http"
    try:
        # it is this machine's own, and asked for a word of welcome only
        with urllib3.PoolManager(cert_reqs="CERT_NONE", retries=False, timeout=_TIMEOUT_S) as pool:
            answer = pool.request("GET", f"{scheme}://localhost:{config.port}/api/v1").json()
    except (urllib3.exceptions.HTTPError, ValueError, OSError):
        return False
    return isinstance(answer, dict) and "welcome" in answer


def _work_dir(config: Config) -> Iterator[Finding]:
    folder = config.work_dir
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Finding.of(FindingKind.WORK_DIR, config.work_dir)
    if not os.path.exists(config.lease_database):
        return
    try:
        with closing(sqlite3.connect(f"file:{config.lease_database}?mode=ro", uri=True)) as database:
            database.execute("SELECT count(*) FROM Lease").fetchone()
    except sqlite3.Error as error:
        yield Finding.of(FindingKind.LEASES, config.lease_database, error)


def _limits() -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FEW_FILES:
        yield Finding.of(FindingKind.OPEN_FILES, "this machine", f"{hard}; a subscriber needs one each")
