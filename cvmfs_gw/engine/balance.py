"""Automatic nested catalogs: large catalogs are split, and merged again when they have become small.

A directory that is split off gets a file ``.cvmfsautocatalog``, which marks the nested catalog as automatic: it may be
dissolved when it has become small.

Source: ``CVMFS_AUTOCATALOGS``, ``CVMFS_AUTOCATALOGS_MAX_WEIGHT`` and ``CVMFS_AUTOCATALOGS_MIN_WEIGHT`` (entries) in
``server.conf``; the marker's name.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import Final

from cvmfs_gw.engine.node import Node
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.serverconf import ServerConf
from cvmfs_objstore.compression import Compression, deflate
from cvmfs_objstore.formats.entry import FLAG_FILE, FLAG_MOUNTPOINT, Entry, is_below, storage_flags
from cvmfs_objstore.hashes import Algorithm
from cvmfs_objstore.objects import ObjectStore

MARKER: Final = ".cvmfsautocatalog"


@dataclass(frozen=True, slots=True)
class Weights:
    """The maximum number of entries in a catalog, and the minimum in an automatic one."""

    most: int
    fewest: int

    @classmethod
    def configured(cls, configuration: ServerConf) -> Weights | None:
        """The limits in ``server.conf``; None: no automatic nested catalogs."""
        if not configuration.autocatalogs:
            return None
        return cls(configuration.autocatalogs_max_weight, configuration.autocatalogs_min_weight)


def balance(tree: CatalogTree, weights: Weights, scope: str, objects: ObjectStore, now: int) -> None:
    """Split and merge the catalogs of *tree* that have changed, at directories at or below *scope* (the lease path).

    *now* is the markers' time, in seconds since the epoch.
    """
    for node in list(tree.changed_nodes()):
        if _may_go(node, weights, scope):
            _remove_marker(tree, node.mountpoint)
            tree.unnest(node.mountpoint)
    for node in list(tree.changed_nodes()):
        while node.own.entries > weights.most:
            path = _heaviest(node, weights, scope)
            if path is None:
                break
            tree.nest(path)
            _put_marker(tree, path, objects, now)


def _may_go(node: Node, weights: Weights, scope: str) -> bool:
    if not node.mountpoint or not is_below(node.mountpoint, scope) or node.own.entries >= weights.fewest:
        return False
    return node.catalog.get(f"{node.mountpoint}/{MARKER}") is not None


def _heaviest(node: Node, weights: Weights, scope: str) -> str | None:
    """The directory with the largest subtree that fits into a catalog; None if there is none.

    Descends into directories that are too large, so that what is split off is neither too large nor, if possible, too
    small.
    """
    found: dict[str, int] = {}
    directories: list[str] = []
    for path, entry in node.catalog.walk(node.mountpoint):
        if entry.is_directory and not entry.flags & FLAG_MOUNTPOINT:
            directories.append(path)
            found[path] = 1
        parent = path.rpartition("/")[0]
        if parent in found:
            found[parent] += 1
    # Parents come before their children, so backwards every subtree is complete when it is added.
    for path in reversed(directories):
        parent = path.rpartition("/")[0]
        if parent in found:
            found[parent] += found[path] - 1
    fewest = max(weights.fewest, 2)  # splitting off an empty directory would gain nothing
    fitting = [path for path in directories if fewest <= found[path] <= weights.most and is_below(path, scope)]
    return max(fitting, key=lambda path: (found[path], path), default=None)


def _put_marker(tree: CatalogTree, directory: str, objects: ObjectStore, now: int) -> None:
    algorithm = Algorithm.SHA1 if tree.root.ref is None else tree.root.ref.hash.algorithm
    content = objects.add(b"", algorithm, deflate=deflate)
    owner = tree.get(directory)
    assert owner is not None
    marker = Entry(
        hardlinks=1,
        hash=content.digest,
        size=0,
        mode=stat.S_IFREG | 0o644,
        mtime=now,
        mtimens=None,
        flags=FLAG_FILE | storage_flags(algorithm, Compression.ZLIB),
        name=MARKER,
        symlink="",
        uid=owner.uid,
        gid=owner.gid,
        xattr=None,
    )
    path = f"{directory}/{MARKER}"
    tree.put(path, marker, (), tree.get(path))


def _remove_marker(tree: CatalogTree, directory: str) -> None:
    path = f"{directory}/{MARKER}"
    marker = tree.get(path)
    if marker is not None:
        tree.remove(path, marker)
