"""Publishing: read the sources, determine the changes, and only then lease, upload and commit.

::

    check      whether the key is suitable, to fail before the long work
    gather     read, cut, compress, hash: everything that takes long, before anything is leased
    plan       determine the changes to the head; if there are none, stop here
    lease      wait for the path; if the head has moved meanwhile, plan again: from now on nobody else changes the path
    upload     what the repository does not have yet, while the new catalogs are made; then the catalogs
    commit     once: if the reply is lost, repeat the request, or look for the commit in the head

A process that is killed leaves the old revision or the new one, and a lease that will expire. The next publish of the
same sources sends only what is missing.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Final

from cvmfs_gw.client.errors import ClientError, CommitInDoubt
from cvmfs_gw.client.gateway import CommitReply, GatewayClient
from cvmfs_gw.client.keys import check_key
from cvmfs_gw.client.remote import RemoteStorage
from cvmfs_gw.client.request import Action, Progress, PublishReport, PublishRequest, Step
from cvmfs_gw.client.session import Session
from cvmfs_gw.client.spool import Spool
from cvmfs_gw.client.trust import read_head
from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.changelist import PathChange, compare_trees
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.engine.statistics import PublishCounts
from cvmfs_gw.engine.transaction import Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.ingest.contents import ContentOptions, Contents, Sink
from cvmfs_gw.ingest.errors import IngestError
from cvmfs_gw.ingest.existing import ExistingBelow
from cvmfs_gw.ingest.gather import Gathered, gather
from cvmfs_gw.ingest.overlay import Add, Delete, Operation, Replace
from cvmfs_gw.ingest.plan import Plan, PlanOptions, plan
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.formats.entry import is_below
from cvmfs_objstore.formats.manifest import Manifest
from cvmfs_objstore.formats.objectpack import PackItem
from cvmfs_objstore.hashes import ContentHash
from cvmfs_objstore.objects import ObjectStore

DOUBT_S: Final = 60.0
"""How long the head is looked at for a commit whose reply was lost, in seconds."""
_LOOK_S: Final = 1.0


def publish(request: PublishRequest, progress: Progress | None = None) -> PublishReport:
    """Make the steps of *request* visible, as one revision. Raises :exc:`ClientError` and ``OSError``."""
    progress = progress or Progress()
    to, options = request.destination, request.options
    with (
        closing(GatewayClient(to.gateway, to.key)) as gateway,
        Spool(options.work_folder) as spool,
        closing(_Work(request, spool, progress)) as work,
    ):
        check_key(gateway, to.fqrn, [step.target for step in request.steps])
        gateway.close()  # reading may take long, and connections that are idle for long get lost
        work.gather(spool)
        if not work.plan() and not request.tag:
            return work.report(CommitReply(work.head.revision), changed=False)
        while True:
            scope = work.scope
            path = f"{to.fqrn}{scope or '/'}"
            token = gateway.acquire(path, options.wait_s, lambda busy: progress.busy(str(busy)))
            with Session(gateway, token) as session:
                if work.look_again() and not work.plan() and not request.tag:
                    return work.report(CommitReply(work.head.revision), changed=False)
                if is_below(work.scope, scope):
                    return _commit(request, work, session, spool, progress)
            # What is to be leased is another path now: somebody removed a directory on the way to it.


def preview(request: PublishRequest, progress: Progress | None = None) -> Iterator[PathChange]:
    """What :func:`publish` would change now; nothing is sent. Raises as it does."""
    with (
        Spool(request.options.work_folder) as spool,
        closing(_Work(request, spool, progress or Progress())) as work,
    ):
        work.gather(spool)
        yield from work.changes()


def _commit(request: PublishRequest, work: _Work, session: Session, spool: Spool, progress: Progress) -> PublishReport:
    contents = spool.items()
    progress.sending(len(spool), spool.total)
    with ThreadPoolExecutor(1, "contents") as thread:
        uploading = thread.submit(session.upload, contents, spool, progress.sent)
        try:
            work.prepare()
            objects, sent = uploading.result()
        except BaseException:
            session.stop()
            raise
    # What names something comes after what it names.
    catalogs = [PackItem(name, spool.size(name.path)) for name in work.catalogs]
    more, more_sent = session.upload(catalogs, spool, progress.sent)
    assert work.root is not None
    try:
        reply = session.commit(work.head.root_hash, work.root, request.tag, request.description)
    except CommitInDoubt as doubt:
        reply = _settle(work, doubt)
    return work.report(reply, objects=objects + more, sent=sent + more_sent)


def _settle(work: _Work, doubt: CommitInDoubt) -> CommitReply:
    """Look whether a commit was done of which nobody says so: then nothing is left to be changed."""
    until = time.monotonic() + DOUBT_S
    while True:
        if work.look_again() and not work.plan():
            return CommitReply(work.head.revision)
        if time.monotonic() >= until:
            raise doubt
        time.sleep(_LOOK_S)


class _Work:
    """One publish: sources that were gathered, and what they change in the head that was last looked at."""

    def __init__(self, request: PublishRequest, spool: Spool, progress: Progress) -> None:
        self._request, self._progress = request, progress
        self._now = time.time()
        self._operations: list[Operation] = []
        self._gathered: list[Gathered] = []
        self._stack = ExitStack()
        with ExitStack() as stack:
            self._storage = stack.enter_context(closing(RemoteStorage(request.destination.stratum0, spool)))
            self._catalogs = CatalogStore(ObjectStore(self._storage))
            self.head = self._read_head()
            self._stack = stack.pop_all()
        self._first: Future[CatalogTree] | None = None
        self._newer: CatalogTree | None = None
        self._planned = Plan()
        self._counts = PublishCounts()
        self.root: ContentHash | None = None
        """The new root catalog, once it is prepared."""
        self.catalogs: Sequence[ContentHash] = ()
        """All new catalogs, nested ones before those that they are nested in."""

    def close(self) -> None:
        self._storage.close()
        if self._newer is not None:
            self._newer.close()
        if self._first is not None and self._first.exception() is None:
            self._first.result().close()
        self._stack.close()

    @property
    def _base(self) -> CatalogTree:
        """The tree of the head that was last looked at."""
        if self._newer is not None:
            return self._newer
        assert self._first is not None
        return self._first.result()

    def _read_head(self) -> Manifest:
        to = self._request.destination
        return read_head(self._storage, to.fqrn, to.public_keys, time.time())

    def _open(self, root: ContentHash) -> CatalogTree:
        with _preparing():
            return CatalogTree(self._catalogs, root)

    @property
    def scope(self) -> str:
        """What has to be leased."""
        return self._planned.scope

    def gather(self, sink: Sink) -> None:
        """Read all sources, once; their first directories are listed while the head's catalogs come."""
        thread = self._stack.enter_context(ThreadPoolExecutor(1, "catalogs"))
        self._first = thread.submit(self._open, self.head.root_hash)
        options = self._request.options
        how = ContentOptions(self.head.root_hash.algorithm, options.compression, options.chunks, options.fast)
        with _preparing(), Contents(sink, how, threads=options.threads) as contents:
            for step in self._request.steps:
                self._operations.append(self._gather(step, contents))

    def _gather(self, step: Step, contents: Contents) -> Operation:
        options = self._request.options
        if step.source is None:
            return Delete(step.target)
        assert self._first is not None
        gathered = gather(
            step.source,
            contents,
            replace(options.gather, spill_folder=options.work_folder),
            existing=ExistingBelow(self._first, step.target, options.uids, options.gids),
            progress=lambda path, size: self._progress.stored(step.target + path, size),
        )
        self._gathered.append(gathered)
        return Replace(gathered, step.target) if step.action is Action.REPLACE else Add(gathered, step.target)

    def look_again(self) -> bool:
        """Read the head again; returns whether it has moved, and so has to be prepared for."""
        head = self._read_head()
        if head.root_hash == self.head.root_hash:
            return False
        tree = self._open(head.root_hash)
        if self._newer is not None:  # but the first stays: what was gathered is known by what it was compared with
            self._newer.close()
        self.head, self._newer = head, tree
        return True

    def prepare(self) -> None:
        """Make the change as new catalogs."""
        with _preparing(), closing(self._open(self.head.root_hash)) as tree:
            transaction = Transaction(tree)
            transaction.apply(self._planned.changes)
            root, stored = tree.store(int(time.time()), self.head.root_hash.algorithm, last=True)
        self.root, self.catalogs = root.hash, [ref.hash for ref in stored]
        self._counts = transaction.counts
        self._progress.planned(self.head.revision, self._counts)

    def changes(self) -> Iterator[PathChange]:
        """The change, path by path."""
        self.plan()
        with _preparing(), closing(self._open(self.head.root_hash)) as tree:
            Transaction(tree).apply(self._planned.changes)
            tree.settle()
            yield from compare_trees(self._base, tree)

    def plan(self) -> bool:
        """Work out the change; returns whether there is any."""
        options, root = self._request.options, self._base.get("")
        how = PlanOptions(
            int(self._now * 10**9), uids=options.uids, gids=options.gids, spill_folder=options.work_folder
        )
        if root is not None:  # directories between it and the new ones are made like it
            how = replace(how, directory=stat.S_IMODE(root.mode), owner=(root.uid, root.gid))
        with _preparing():
            self._planned = plan(self._base, self._operations, how, ObjectStore(self._storage))
        return bool(self._planned.changes)

    def report(self, reply: CommitReply, *, changed: bool = True, objects: int = 0, sent: int = 0) -> PublishReport:
        """What came of it."""
        return PublishReport(
            revision=reply.final_revision,
            objects=objects,
            sent=sent,
            changed=changed,
            tag=reply.tag_name or (self._request.tag if changed else ""),
            files=sum(gathered.files for gathered in self._gathered),
            bytes=sum(gathered.bytes for gathered in self._gathered),
            unchanged=sum(gathered.unchanged for gathered in self._gathered),
            counts=self._counts,
            missing=reply.missing,
        )


@contextmanager
def _preparing() -> Iterator[None]:
    try:
        yield
    except (EngineError, IngestError, ObjectStoreError) as error:
        raise ClientError(f"cannot prepare the change: {error}") from error
