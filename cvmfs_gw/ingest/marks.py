"""Nested catalogs that ``.cvmfsdirtab`` asks for: files that mark them are put into what is to be published."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence

from cvmfs_gw.engine.changes import CATALOG_MARKER
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.ingest.contents import StoredContent
from cvmfs_gw.ingest.dirtab import DIRTAB, MAX_DIRTAB, Dirtab
from cvmfs_gw.ingest.errors import BadConfiguration
from cvmfs_gw.ingest.items import Item
from cvmfs_gw.ingest.nodes import Node
from cvmfs_gw.ingest.overlay import put_below
from cvmfs_objstore.compression import Compression, deflate
from cvmfs_objstore.formats.entry import Entry, Kind, is_below, storage_flags
from cvmfs_objstore.hashes import Algorithm, ContentHash
from cvmfs_objstore.objects import ObjectStore

_MARKER_MODE = 0o644


def mark_catalogs(tree: CatalogTree, root: Node, targets: Sequence[str], objects: ObjectStore, now: int) -> Node:
    """The overlay *root* with markers in directories at or below *targets* that the dirtab names.

    *now* is their time, in nanoseconds since the epoch. Raises :exc:`BadConfiguration`.
    """
    dirtab = _read(tree, root, objects)
    if dirtab is None:
        return root
    algorithm = Algorithm.SHA1 if tree.root.ref is None else tree.root.ref.hash.algorithm
    marker: Node | None = None
    for path, node in [*_directories(tree, root)]:
        if not any(is_below(path, target) for target in targets) or not dirtab(path):
            continue
        if marker is None:
            name = objects.add(b"", algorithm, deflate=deflate)
            stored = StoredContent(0, storage_flags(algorithm, Compression.ZLIB), name.digest)
            marker = Node(Item("", stat.S_IFREG | _MARKER_MODE, 0, 0, now), stored, is_default=True)
        given = (node.children or {}).get(CATALOG_MARKER)
        if given is None or given.is_gone:
            root = put_below(root, f"{path}/{CATALOG_MARKER}", marker)
    return root


def _directories(tree: CatalogTree, root: Node) -> Iterator[tuple[str, Node]]:
    """The directories of the overlay that will be there, but for the root."""
    pending = [("", root)]
    while pending:
        path, node = pending.pop()
        for name, child in (node.at_hand or {}).items():
            if child.is_directory:
                below = f"{path}/{name}"
                pending.append((below, child))
                there = tree.get(below)
                if child.is_needed or (there is not None and there.is_directory):
                    yield below, child


def _read(tree: CatalogTree, root: Node, objects: ObjectStore) -> Dirtab | None:
    """The dirtab as it will be; None: there is none."""
    assert root.children is not None
    node = root.children.get(DIRTAB[1:])
    if node is not None:
        if node.stored is None:
            return None
        return _parse(objects, node.stored.hash, node.stored.flags)
    entry = None if root.opaque else tree.get(DIRTAB)
    if entry is None or entry.kind is not Kind.FILE:
        return None
    return _parse(objects, entry.hash, entry.flags)


def _parse(objects: ObjectStore, digest: bytes | None, flags: int) -> Dirtab:
    if digest is None:
        raise BadConfiguration(".cvmfsdirtab is too large")
    entry = Entry(1, digest, 0, 0, 0, None, flags, "", "", 0, 0, None)
    name = ContentHash(digest, entry.algorithm)
    raw = objects.get_plain(name, max_size=MAX_DIRTAB, compression=Compression(entry.compression))
    return Dirtab.parse(raw.decode("utf-8", "surrogateescape").splitlines())
