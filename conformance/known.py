"""Known faults: which cases a target fails, and which issue of github.com/cvmfs/cvmfs says so.

``--known reference-2.12`` marks these failures in the report, and only others make the exit code 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from conformance.model import Case

_OVERLAP: Final = "overlap of lease paths is compared as text, with LIKE: no issue known"
_SLASHES: Final = "cvmfs#3785: lease paths with slashes too many corrupt the repository"
_PATHS: Final = "lease paths are not looked at: no issue known"
_PACKS: Final = "a pack that cannot be read is answered with ok: no issue known"
_OWNER: Final = "the key that uses a lease is not compared with the lease's: no issue known"
_RETRY: Final = "cvmfs#3334: the lease's counters are gone after a commit that failed"
_AGAIN: Final = "cvmfs#3128: a commit cannot be asked again"
_RESTART: Final = "cvmfs#3128: the lease's counters are gone after a restart"
_LAGGING: Final = "cvmfs#3546, cvmfs#3771, cvmfs#3867, cvmfs#4303: a publisher with an old mount reverts others"
_COMPARED: Final = "cvmfs#3435: the merge compares neither owners nor the values of attributes"
_MERGE: Final = "the receiver's merge passes it over: no issue known"
_CRASH: Final = "the receiver crashes: no issue known"
_BODIES: Final = "HTTP 4xx come with plain text: no issue known"
_TRUST: Final = "notifications are passed on unread: no issue known"
_LOCK: Final = "cvmfs#3460, cvmfs#4103: one lock around all leases is held for a whole commit"
_BLOCKED: Final = "cvmfs#3400: a receiver that waits for the rest of a pack blocks the gateway for good"
_WORKERS: Final = "cvmfs#3400: one payload or commit at a time"
_NAMED: Final = "named files are written wherever they say: no issue known"

REFERENCE_2_12: Final[Mapping[str, str]] = {
    "leases.path.doubled": _SLASHES,
    "leases.path.illegal.trailing": _SLASHES,
    "leases.path.illegal.inner": _SLASHES,
    "leases.path.illegal.many": _SLASHES,
    "leases.path.illegal": _PATHS,
    "leases.beside": _OVERLAP,
    "admin.cancel.others": _OVERLAP,
    "authorisation.restricted.climbing": _PATHS,
    "authorisation.owner": _OWNER,
    "payloads.claim": _PACKS,
    "payloads.header": _PACKS,
    "payloads.counts": _PACKS,
    "payloads.message.negative": "a negative Message-Size is a panic: no issue known",
    "payloads.short": _BLOCKED,
    "payloads.chunked": _BLOCKED,
    "payloads.named": _NAMED,
    "commits.merge.lagging": _LAGGING,
    "commits.merge.same.nested": _LAGGING,
    "commits.retry": _RETRY,
    "tags.retry": _RETRY,
    "commits.again": _AGAIN,
    "commits.missing.objects": "nobody looks whether contents were uploaded: no issue known",
    "commits.change.add.variant.link": "links with variables are resolved at the server: no issue known",
    "commits.change.add.fifo": _MERGE,
    "commits.change.add.socket": _MERGE,
    "commits.change.add.device": _MERGE,
    "commits.change.add.hidden": _MERGE,
    "commits.change.owner": _COMPARED,
    "commits.change.group": _COMPARED,
    "commits.change.directory.owner": _COMPARED,
    "commits.change.xattr.value": _COMPARED,
    "commits.change.remove.special": _MERGE,
    "commits.change.directory.to.file": _CRASH,
    "commits.change.directory.to.link": "cvmfs#2619: the receiver crashes",
    "commits.nested.to.file": _CRASH,
    "commits.root.directory": "the root directory's own entry is never merged: no issue known",
    "commits.below.file": "what is above the leased path is not looked at: no issue known",
    "commits.other.catalog": "any catalog is taken for a root catalog: no issue known",
    "admin.enable.unknown": "enabling an unknown repository is a panic: no issue known",
    "notifications.neighbours": "a new subscriber wakes all others: no issue known",
    "notifications.commit": "2.12 leaves this to its publishers (notify -p)",
    "notifications.untrue": _TRUST,
    "notifications.subscribe.malformed.json": "a complete reply ends a deployed client's subscription: no issue known",
    "notifications.parallel": "concurrent writes to a map end the process: no issue known",
    "objectstore.disk.temporary": "cvmfs#3269, cvmfs#3523: receivers that crash leave their temporary files",
    "errors.body": _BODIES,
    "limits.head": "the JSON of a payload has no limit: no issue known",
    "limits.header": _PACKS,
    "limits.header.claimed": _PACKS,
    "limits.object.claimed": _BLOCKED,
    "faults.payload.slow": _WORKERS,
    "faults.commit": _AGAIN,
    "faults.whole": _AGAIN,
    "faults.disk.commit": _RETRY,
    "faults.disk.payload": "cvmfs#3268: an object that finds no room is there, with nothing in it",
    "timing.during.commit": _LOCK,
    "replay.new-tree": _MERGE,
    "replay.changes": _MERGE,
    "replay.replacements": _CRASH,
    "programs.publish.special": _MERGE,
    "programs.changes.all": _MERGE,
    "programs.ingest.special": _MERGE,
    "programs.ingest.impossible": "a catalog that contradicts itself is merged: no issue known",
    "programs.replacements": _CRASH,
    "programs.spot": _CRASH,
    "programs.history.any": f"{_OVERLAP}; {_LAGGING}; {_MERGE}",
    "programs.restart": _RESTART,
    "restart.lease.commit": _RESTART,
    "restart.payload.commit": _RESTART,
    "restart.commit.again": _AGAIN,
    "restart.during.commit": _RESTART,
    "restart.during.payload": _RESTART,
    "restart.notification": "messages are kept in memory only: no issue known",
}

PROFILES: Final[Mapping[str, Mapping[str, str]]] = {"reference-2.12": REFERENCE_2_12, "none": {}}


def explain(cases: Iterable[Case], faults: Mapping[str, str]) -> dict[str, str]:
    """The fault of each case that has one. The longest entry that a case's id begins with counts."""
    found = {}
    for case in cases:
        names = [name for name in faults if case.id == name or case.id.startswith(name + ".")]
        if names:
            found[case.id] = faults[max(names, key=len)]
    return found
