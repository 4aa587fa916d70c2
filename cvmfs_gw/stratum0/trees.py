"""An unpacked archive as a job: a whole tree that is put over what is there.

The same rules as for a file, for each of them: what is there with the same content stays, and another content is a
conflict unless it shall be overwritten. One conflict refuses all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cvmfs_gw.engine.changes import Change, Put, Remove
from cvmfs_gw.engine.rules import Rules
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.ingest.gather import Gathered
from cvmfs_gw.ingest.overlay import Add
from cvmfs_gw.ingest.ownership import IdMap
from cvmfs_gw.ingest.plan import AT_HAND, PlanOptions, plan
from cvmfs_gw.ingest.spill import LongList
from cvmfs_gw.stratum0.content import translated
from cvmfs_gw.stratum0.errors import Exists, PathConflict
from cvmfs_gw.stratum0.expiry import expires, later, with_expiry
from cvmfs_gw.stratum0.jobs import Plan, missing_directories, owner_of
from cvmfs_objstore.formats.entry import FLAG_BIND_MOUNTPOINT, Chunks, Entry


@dataclass(frozen=True, slots=True)
class PutTree:
    """What was gathered goes into the directory *path*; *now* and *end* as of :class:`PutFile`."""

    path: str
    gathered: Gathered
    now: int
    end: int | None = None
    overwrite: bool = False

    def plan(self, tree: CatalogTree, rules: Rules) -> Plan:
        """See :class:`cvmfs_gw.stratum0.jobs.Job`."""
        for _ in missing_directories(tree, self.path, self.now, self.end):
            pass  # looked at for what is in the way
        uid, gid = owner_of(tree)
        # names of one file are files of their own, so that each has an end of its own
        options = PlanOptions(
            self.now * 10**9, owner=(uid, gid), uids=IdMap.to(uid), gids=IdMap.to(gid), hard_links=False
        )
        with translated():
            planned = plan(tree, [Add(self.gathered, self.path)], options).changes
        changes: LongList[Change] = LongList(AT_HAND)
        created = False
        for change in self._allowed(planned, tree, rules):
            changes.append(change)
            created |= isinstance(change, Put) and change.base is None
        return Plan(changes, created=created, expires=self.end, entries=len(changes))

    def _allowed(self, planned: Iterable[Change], tree: CatalogTree, rules: Rules) -> Iterator[Change]:
        for change in planned:
            if isinstance(change, Remove):
                if not self.overwrite:
                    raise Exists(f"{change.path} is there, and something else (overwrite=true replaces it)")
                yield change
            elif isinstance(change, Put):
                put = self._put(change, tree)
                if put is not None:
                    rules.check_entry(put.path, put.entry, put.chunks)
                    yield put
            else:
                yield change

    def _put(self, put: Put, tree: CatalogTree) -> Put | None:
        """The change, with the end of the entry; None if everything is as wanted."""
        path, entry, old = put.path, put.entry, put.base
        if not isinstance(old, tuple):
            return put._replace(entry=with_expiry(entry, self.end))
        if old.flags & FLAG_BIND_MOUNTPOINT:
            raise PathConflict(f"{path} shows another directory")
        if entry.is_directory and old.is_directory:
            # a directory that was there lives no shorter for what is put into it, and not longer either
            kept = with_expiry(entry if self.overwrite else old, expires(old))
            return None if kept == old else put._replace(entry=kept)
        if self.overwrite:
            return put._replace(entry=with_expiry(entry, self.end))
        old_chunks = tree.chunks(path) if old.is_chunked else ()
        if not _same(old, old_chunks, entry, put.chunks):
            raise Exists(f"{path} is there, with another content (overwrite=true replaces it)")
        kept = with_expiry(old, later(expires(old), self.end))
        return None if kept == old else put._replace(entry=kept, chunks=old_chunks)


def _same(old: Entry, old_chunks: Chunks, new: Entry, new_chunks: Chunks) -> bool:
    """Whether two entries have the same content, whatever their attributes are."""
    return (old.kind, old.size, old.hash, old.symlink, old_chunks) == (
        new.kind,
        new.size,
        new.hash,
        new.symlink,
        new_chunks,
    )
