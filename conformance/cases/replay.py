"""Recorded sessions of deployed publishers and subscribers, replayed.

The same replies, the same messages, and the same tree in the end.
"""

from __future__ import annotations

from conformance.consistency import check
from conformance.gateway import Gateway
from conformance.machines.published import Published
from conformance.machines.snapshot import differences
from conformance.outcomes import Failed, NotApplicable, equal
from conformance.probe import Probe
from conformance.registry import each
from conformance.replay import Player
from conformance.repository import Repository
from conformance.session import Session

SESSIONS = {
    "new-tree": "a first publish with entries of every kind",
    "changes": "entries of every kind changed, renamed and removed",
    "replacements": "every kind of entry replaced by another kind",
    "nested-catalogs": "nested catalogs made and dissolved",
    "below-nested": "a change deep below nested catalogs",
    "outside": "changes beside the leased path",
    "chunked-new": "a file in many chunks",
    "chunked-changed": "a file in chunks that changes",
    "ingest": "cvmfs_server ingest of an archive",
    "ingest-delete-file": "cvmfs_server ingest -d of a file",
    "ingest-delete-directory": "cvmfs_server ingest -d of a directory",
    "ingest-delete-nested": "cvmfs_server ingest -d of a nested catalog",
    "publish-commit": "cvmfs_publish enter and commit",
    "aborted": "a transaction that is given up",
    "busy": "publishers in each other's way",
    "side-by-side": "two publishers on the same base",
    "subscriber": "cvmfs_swissknife notify -s, told by publishers with notify -p",
}


@each(
    "replay",
    "recorded with the programs of release 2.12",
    {
        name: (f"{words}: replayed, it gets the same replies and makes the same tree", name)
        for name, words in SESSIONS.items()
    },
)
def replayed(probe: Probe, name: str) -> None:
    folder = probe.need(probe.target.sessions, "--sessions, whose repositories unpack has put onto the server")
    file = folder / f"{name}.zip"
    if not file.exists():
        raise NotApplicable(f"there is no {file.name}")
    session = Session.load(file)
    if session.key is None:
        raise NotApplicable("the session has no key")
    served = probe.gateway.get("/repos").json.get("data", {})
    if session.fqrn not in served:
        raise NotApplicable(f"{session.fqrn} is not on this target: unpack puts it there")
    base = probe.repository.url.text.rpartition("/")[0]
    repository = Repository(base, session.fqrn, probe.target.timeout)
    commits = sum("final_revision" in exchange.reply for exchange in session.exchanges)
    if repository.manifest().revision != session.revision - commits:
        raise NotApplicable("it was played on this target before")
    gateway = Gateway(probe.gateway.url.text, session.key, probe.target.timeout)
    where = {"notify": probe.target.notify, "websocket": probe.target.websocket}
    Player(gateway, session, session.key, repository, **where).play()
    equal(repository.manifest().revision, session.revision, "revision")
    check(repository)
    tree, nested = Published(repository).read()
    equal(sorted(nested), sorted(session.catalogs), "nested catalogs")
    if wrong := differences(session.tree, tree):
        raise Failed("; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else ""))
