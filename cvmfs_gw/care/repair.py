"""Mending what a check has found, as far as that is possible without a copy: see ``repair`` in the catalogue of faults.

::

    folders    made again
    checksum   reflog.chksum written from the reflog, the manifest signed again with its hash
    reflog     what is missing added, what is not there dropped; if it cannot be read at all: made from the storage
    tags       trunk made to name the head; branches removed that have no tag
    catalogs   counters and link counts computed from the rows; a new revision with otherwise the same content

Everything goes through the one publish path, so that a repair that is killed leaves the old or the new state.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import Final

from cvmfs_gw.care.faults import Faults, Repair
from cvmfs_gw.engine.errors import MissingReflog
from cvmfs_gw.engine.node import Node
from cvmfs_gw.engine.publish import Publication, TagChanges, load_history
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.entry import FLAG_BIND_MOUNTPOINT, FLAG_MOUNTPOINT, Counters, parent_path
from cvmfs_objstore.formats.history import History, Tag, trunk_tag
from cvmfs_objstore.formats.manifest import Manifest
from cvmfs_objstore.formats.reflog import REFLOG_PATH, Reflog
from cvmfs_objstore.hashes import ContentHash, Suffix
from cvmfs_objstore.local import LocalStorage

_REFERENCED: Final = (Suffix.CERTIFICATE, Suffix.HISTORY, Suffix.METAINFO)
_MAX_CATALOG: Final = 4 << 30
_MOUNTPOINTS: Final = FLAG_MOUNTPOINT | FLAG_BIND_MOUNTPOINT
_SET_DIRECTORY_LINKS: Final = (
    "UPDATE catalog SET hardlinks = 2 + (SELECT count(*) FROM catalog s WHERE s.parent_1 = catalog.md5path_1"
    f" AND s.parent_2 = catalog.md5path_2 AND s.flags & 1) WHERE flags & 1 AND NOT flags & {_MOUNTPOINTS}"
)
_LONE_LINKS: Final = "UPDATE catalog SET hardlinks = 1 WHERE NOT flags & 1 AND hardlinks >> 32 = 0 AND hardlinks != 1"
_GROUPS: Final = (
    "UPDATE catalog SET hardlinks = g.number << 32 | g.members FROM (SELECT hardlinks >> 32 AS number, count(*)"
    " AS members"
    " FROM catalog WHERE NOT flags & 1 AND hardlinks >> 32 GROUP BY 1) AS g"
    " WHERE NOT flags & 1 AND catalog.hardlinks >> 32 = g.number"
)


def repair(repository: Repository, faults: Faults, now: float) -> list[str]:
    """Mend what can be mended of *faults*, *now* being in seconds since the epoch; returns what was done, in words.

    Raises :exc:`~cvmfs_gw.engine.errors.EngineError` where it cannot be (no key to sign with, a catalog missing).
    """
    wanted = {kind.repair for kind in faults.kinds()} - {Repair.NONE}
    done: list[str] = []
    with repository.exclusive():
        if Repair.FOLDERS in wanted and isinstance(repository.storage, LocalStorage):
            LocalStorage.create(repository.storage.root).close()
            done.append("made the missing folders of the storage")
        if {Repair.CHECKSUM, Repair.REFLOG} & wanted:
            done += _repair_reflog(repository, now)
        if Repair.TAGS in wanted:
            done.append(_repair_tags(repository, now))
        if Repair.CATALOGS in wanted:
            places = {fault.place for fault in faults if fault.kind.repair is Repair.CATALOGS}
            done += _repair_catalogs(repository, places, now)
    return done


# -- reflog


def _repair_reflog(repository: Repository, now: float) -> list[str]:
    head = repository.head()
    reflog, done = _readable_reflog(repository), []
    if reflog is None:
        reflog = rebuilt_reflog(repository, now)
        done.append("made the reflog anew from what is in the storage")
    reflog.set_property("fqrn", repository.fqrn)
    for ref in [ref for ref, _ in reflog.refs()]:
        if not repository.objects.has(ref):
            reflog.remove(ref)
            done.append(f"dropped {ref} from the reflog, as it is not there")
    for ref, moment in _named(repository, head):
        if ref not in reflog and repository.objects.has(ref):
            reflog.add(ref, moment)
            done.append(f"added {ref} to the reflog")
    with closing(Publication(repository, head, TagChanges(), now, reflog=reflog)) as publication:
        publication.amend()
    done.append("signed the manifest and wrote reflog.chksum with the hash of the reflog")
    return done


def _readable_reflog(repository: Repository) -> Reflog | None:
    try:
        reflog = Reflog.load(repository.storage.read(REFLOG_PATH))
    except ObjectStoreError:
        return None
    try:
        for _ in reflog.refs():
            pass
    except ObjectStoreError:
        reflog.close()
        return None
    return reflog


def _named(repository: Repository, head: Manifest) -> Iterable[tuple[ContentHash, int]]:
    """What head and tags name, with its time in seconds."""
    for ref in (head.root_hash, head.certificate, head.history, head.meta_info):
        if ref is not None:
            yield ref, head.published
    try:
        with load_history(repository, head) as history:
            tags = list(history.tags())
    except Exception as error:
        raise MissingReflog(f"{repository.fqrn}: the tags that the reflog must name cannot be read") from error
    for tag in tags:
        yield tag.root_hash, tag.timestamp


def rebuilt_reflog(repository: Repository, now: float) -> Reflog:
    """A reflog of every root catalog, certificate, tag database and meta info object in the storage.

    Times are those of the catalogs, and for the others those at which they were stored. Takes a while, as each catalog
    is opened: only the root catalogs have no path.
    """
    reflog = Reflog.create(repository.fqrn)
    for name in repository.objects.list():
        if name.suffix in _REFERENCED:
            reflog.add(name, int(repository.storage.modified(name.path)))
        elif name.suffix is Suffix.CATALOG:
            try:
                data = repository.objects.get_plain(name, max_size=_MAX_CATALOG)
                with Catalog.load(data) as catalog:
                    if not catalog.mountpoint:
                        reflog.add(name, catalog.int_property("last_modified", int(now)))
            except ObjectStoreError:
                continue  # it serves nobody
    return reflog


# -- tags


def _repair_tags(repository: Repository, now: float) -> str:
    head = repository.head()

    def edit(history: History) -> None:
        history.prune_branches()
        history.put(trunk_tag(Tag("", head.root_hash, head.revision, head.published, size=head.root_size)))

    with closing(Publication(repository, head, TagChanges(), now)) as publication:
        publication.amend(edit_tags=edit)
    return "let trunk name the head, and removed branches that have no tag"


# -- counters and link counts


def _repair_catalogs(repository: Repository, places: set[str], now: float) -> list[str]:
    """Compute counters and link counts anew in the catalogs that hold *places* (paths), and in those above."""
    head = repository.head()
    with closing(CatalogTree(repository.catalogs, head.root_hash)) as tree:
        nodes = {tree.root}
        for place in places:
            path = "" if place == "/" else place
            nodes.add(tree.node_of(path))
            nodes.add(tree.node_of(parent_path(path)))
        for node in list(nodes):
            while node.parent is not None:
                node = node.parent
                nodes.add(node)
        with closing(Publication(repository, head, TagChanges(), now)) as publication:
            for node in sorted(nodes, key=lambda node: len(node.mountpoint), reverse=True):
                _recount(tree, node)
            root, stored = tree.store(int(now), head.root_hash.algorithm, journal=repository.journal)
            catalog = tree.root.catalog
            ttl = catalog.int_property("TTL", 0) or None
            manifest = publication.publish(root, catalog.revision, ttl)
    return [f"computed counters and link counts of {len(stored)} catalogs anew: revision {manifest.revision}"]


def _recount(tree: CatalogTree, node: Node) -> None:
    """Put right what *node* says of itself and of those below it, which say the right thing already."""
    connection = node.catalog.connection
    for statement in (_LONE_LINKS, _GROUPS, _SET_DIRECTORY_LINKS):
        connection.execute(statement)
    below = Counters()
    for mountpoint in node.nested:
        child = tree.node_of(mountpoint)
        total = child.total()
        below.add(total)
        child.accounted = total
        root = child.catalog.get(mountpoint)
        if root is not None:
            node.catalog.set_links(mountpoint, root.linkcount)
    node.own, node.below = node.catalog.count_rows(), below
    node.changed = True
