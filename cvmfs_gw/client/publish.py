"""Publishing a directory: read the head, work out the change, and only then lease, upload and commit."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

from cvmfs_gw.client.errors import ClientError
from cvmfs_gw.client.gateway import GatewayClient
from cvmfs_gw.client.remote import RemoteStorage
from cvmfs_gw.client.trust import read_head
from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.engine.transaction import Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.gateway.authorization import Key
from cvmfs_gw.ingest.contents import ContentOptions, Contents
from cvmfs_gw.ingest.directory import DirectorySource
from cvmfs_gw.ingest.errors import IngestError
from cvmfs_gw.ingest.gather import gather
from cvmfs_gw.ingest.overlay import Replace
from cvmfs_gw.ingest.plan import ExistingBelow, PlanOptions, plan
from cvmfs_objstore.chunking import DEFAULT_SIZES, ChunkSizes
from cvmfs_objstore.compression import Compression
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.formats.entry import Entry
from cvmfs_objstore.formats.objectpack import PackBuilder
from cvmfs_objstore.hashes import ContentHash
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.objects import ObjectStore


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """What to publish where. *target* is ``""`` or ``/a/b``; *public_keys* the PEM text of the repository's masters."""

    fqrn: str
    target: str
    directory: str
    gateway: str
    stratum0: str
    key: Key
    public_keys: bytes
    tag: str = ""
    description: str = ""
    compression: Compression = Compression.ZLIB
    chunks: ChunkSizes | None = DEFAULT_SIZES


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What was published: the new revision, and how many objects and bytes went to the gateway."""

    revision: int
    objects: int
    sent: int


class Progress:
    """Told of what goes on; does nothing. The command line draws it."""

    def stored(self, path: str, size: int) -> None:
        """A file's content of *size* bytes was compressed and hashed."""

    def sent(self, objects: int, size: int) -> None:
        """A pack of that many objects and bytes was taken by the gateway."""


def publish(request: PublishRequest, progress: Progress | None = None) -> PublishReport:
    """Make the subtree *target* equal to the directory. Raises :exc:`ClientError` and ``OSError``."""
    progress = progress or Progress()
    now = time.time()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cvmfs-publish-"))
        local = stack.enter_context(closing(LocalStorage.create(os.path.join(folder, "new"), durable=False)))
        remote = stack.enter_context(closing(RemoteStorage(request.stratum0, local)))
        head = read_head(remote, request.fqrn, request.public_keys, now)
        objects = ObjectStore(remote)
        try:
            tree = stack.enter_context(closing(CatalogTree(CatalogStore(objects), head.root_hash)))
            contents = stack.enter_context(
                Contents(remote, ContentOptions(head.root_hash.algorithm, request.compression, request.chunks))
            )
            source = DirectorySource(request.directory)
            existing = ExistingBelow(tree, request.target)
            gathered = gather(
                source,
                contents,
                existing=existing,
                progress=lambda path, size: progress.stored(request.target + path, size),
            )
            planned = plan(tree, [Replace(gathered, request.target)], _plan_options(tree.get(""), now))
            lease = planned.scope
            Transaction(tree).apply(planned.changes)
            root, _ = tree.store(int(now), head.root_hash.algorithm)
        except (EngineError, IngestError, ObjectStoreError) as error:
            raise ClientError(f"cannot prepare the change: {error}") from error
        return _send(request, local, lease, head.root_hash, root.hash, progress)


def _send(
    request: PublishRequest,
    local: LocalStorage,
    lease: str,
    old_root: ContentHash,
    new_root: ContentHash,
    progress: Progress,
) -> PublishReport:
    objects = sent = 0
    with closing(GatewayClient(request.gateway, request.key)) as gateway:
        token = gateway.acquire(f"{request.fqrn}{lease or '/'}")
        try:
            for pack in new_packs(local):
                gateway.upload(token, pack)
                objects, sent = objects + len(pack), sent + pack.size
                progress.sent(len(pack), pack.size)
            reply = gateway.commit(token, old_root, new_root, request.tag, request.description)
        except BaseException:
            with contextlib.suppress(ClientError):
                gateway.release(token)
            raise
    return PublishReport(reply.final_revision, objects, sent)


def new_packs(local: LocalStorage) -> Iterator[PackBuilder]:
    """Everything new, in packs; catalogs, which refer to the rest, in the last ones."""
    store = ObjectStore(local)
    pack = PackBuilder()
    for name in sorted(store.list(), key=lambda name: (name.suffix == "C", name)):
        size = store.size(name)
        if not pack.fits(size):
            yield pack
            pack = PackBuilder()
        pack.add_file(name, size, functools.partial(store.open, name))
    if len(pack):
        yield pack


def _plan_options(model: Entry | None, now: float) -> PlanOptions:
    """Directories between the repository's and the new ones are made like *model*."""
    if model is None:
        return PlanOptions(int(now * 10**9))
    return PlanOptions(int(now * 10**9), stat.S_IMODE(model.mode), (model.uid, model.gid))
