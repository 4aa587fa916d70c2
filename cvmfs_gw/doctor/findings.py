"""What the doctor can find: each kind with what it means and its remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cvmfs_gw.care.faults import Fault, Severity

_OWNER = "run as the user who owns it, or give it to the user whom the gateway runs as (chown -R)"


class FindingKind(Enum):
    """One kind of finding: what it is, what to do, and how bad it is. Names in lower case with hyphens are stable."""

    # -- the gateway's configuration
    SETTINGS = ("the gateway's settings cannot be used: it does not start", "correct user.json")
    ACCESS = ("keys and repositories cannot be read: the gateway does not start", "correct repo.json")
    UNKNOWN_MEMBER = (
        "a configuration file says something that nobody reads",
        "correct its name, or take it out",
        Severity.WARNING,
    )
    NO_REPOSITORIES = ("the gateway serves no repository", "name it in repo.json", Severity.WARNING)
    NO_ADMIN_KEY = (
        "no key is an administrator's: leases cannot be cancelled by path, nor garbage collected over the API",
        'add a key with "admin": true to repo.json',
        Severity.WARNING,
    )
    # -- the machine
    PORT = ("something else listens on the gateway's port", "stop it, or set another port in user.json")
    WORK_DIR = ("the gateway cannot write where it keeps its leases", _OWNER)
    LEASES = ("the database of leases cannot be read", "move it away while the gateway is stopped: leases are lost")
    CLOCK = ("this machine's clock differs from the web server's", "let chrony or ntpd set the clock of both")
    OPEN_FILES = ("few files may be open at once", "raise LimitNOFILE of the service", Severity.WARNING)
    # -- a repository
    CONFIGURATION = ("the repository's server.conf cannot be used", "correct server.conf")
    AUTO_GC = (
        "CVMFS_AUTO_GC is on, and garbage collection is not",
        "set CVMFS_GARBAGE_COLLECTION=true",
        Severity.WARNING,
    )
    STORAGE = ("the repository's storage cannot be written", _OWNER)
    STORAGE_SPLIT = ("data/txn lies on another file system than data", "let them be on one: files are renamed")
    BUCKET = (
        "the repository's S3 bucket cannot be used",
        "correct its s3.conf, or see what is wrong with the S3 server",
    )
    SPOOL = ("the repository's spool folder cannot be written", _OWNER)
    KEY_READABLE = ("others can read a secret key", "chmod 600", Severity.WARNING)
    ROOM = ("there is little room left", "collect garbage (cvmfs-gw gc), or get a larger disk", Severity.WARNING)
    FULL = ("there is no room left: commits fail", "collect garbage (cvmfs-gw gc), or get a larger disk")
    TRANSACTION = (
        "a transaction of cvmfs_server is open on this machine: garbage is not collected",
        "publish or abort it (cvmfs_server abort)",
        Severity.WARNING,
    )
    # -- the web server, as publishers and clients see it
    URL = ("the repository cannot be read at its URL", "start the web server, or correct CVMFS_STRATUM0")
    URL_STALE = ("the URL gives an older manifest than the storage has", "let no proxy be in between, or purge it")
    URL_OTHER = ("the URL gives another manifest than the storage has", "correct CVMFS_STRATUM0")
    CACHE_LONG = (
        "proxies may keep the manifest for longer than clients are told to",
        "serve .cvmfspublished with Cache-Control: max-age=61",
        Severity.WARNING,
    )
    CACHE_VALIDATORS = (
        "the manifest has Last-Modified or ETag, which old Squids get wrong",
        "switch them off for .cvmfs* (FileETag none, Header unset Last-Modified)",
        Severity.WARNING,
    )
    PROXY = (
        "the repository cannot be read through a proxy",
        "correct CVMFS_HTTP_PROXY, or let the proxy ask the web server (Squid: http_access, cache_peer)",
    )
    PROXY_STALE = (
        "a proxy keeps the manifest for too long: clients hear late of what is published",
        "let it obey max-age (Squid: no refresh_pattern with override-expire for .cvmfspublished), and purge it",
    )
    PROXY_CHANGES = (
        "a proxy gives something else than the web server does: clients refuse it",
        "let it hand on what it gets (no scanner, no compression, no error page with status 200)",
    )
    PROXY_NOT_FOUND = (
        "a proxy remembers that an object was not there: clients that asked for it before are refused for a while",
        "let it forget at once (Squid: negative_ttl 0)",
        Severity.WARNING,
    )
    NOT_REPLICABLE = (
        ".cvmfs_master_replica is not there: publishers' mkfs through a gateway fails, and Stratum 1 servers refuse it",
        "touch .cvmfs_master_replica in the storage",
        Severity.WARNING,
    )

    def __init__(self, what: str, remedy: str, severity: Severity = Severity.ERROR) -> None:
        self.what, self.remedy, self.severity = what, remedy, severity

    @property
    def code(self) -> str:
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, where, and how to mend it."""

    code: str
    severity: Severity
    place: str
    what: str
    remedy: str
    detail: str = ""

    @classmethod
    def of(cls, kind: FindingKind, place: str, detail: object = "") -> Finding:
        return cls(kind.code, kind.severity, place, kind.what, kind.remedy, str(detail))

    @classmethod
    def of_fault(cls, fqrn: str, fault: Fault) -> Finding:
        """What the check of a repository finds in its chain of trust or its reflog."""
        kind = fault.kind
        return cls(kind.code, kind.severity, f"{fqrn}: {fault.place}", kind.what, kind.remedy, fault.detail)

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.severity.value}: {self.place}: {self.what}{detail}\n    remedy: {self.remedy}"
