"""Changes made by this server itself, without a publisher's catalogs: expiry, uploads.

As in a commit: one transaction on the present head, then one publish, while the repository's lock is held.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing

from cvmfs_gw.engine.balance import Weights, balance
from cvmfs_gw.engine.commit import set_root_properties
from cvmfs_gw.engine.errors import EngineError, MergeError, StorageError
from cvmfs_gw.engine.publish import Publication, TagChanges
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.rules import Rules
from cvmfs_gw.engine.statistics import PublishCounts, record_publish
from cvmfs_gw.engine.tags import changing
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.errors import FormatError, ObjectStoreError
from cvmfs_objstore.formats.manifest import Manifest

_log = logging.getLogger(__name__)

Editor = Callable[[CatalogTree, Rules], PublishCounts | None]
"""Changes the tree of the present head; returns counts of its changes, or None for none. An exception aborts the edit.
"""


def edit(
    repository: Repository,
    editor: Editor,
    now: float,
    *,
    clock: Callable[[], float] = time.time,
) -> Manifest:
    """Publish the changes that *editor* makes to the head; returns the new head, or the present one if there are none.

    *now* is in seconds since the epoch; *clock* gives the time at the end. A missing object is an error.

    Raises :exc:`EngineError`, and then leaves the repository unchanged.
    """
    try:
        with changing(repository) as head:
            return _edit(repository, head, editor, now, clock)
    except EngineError:
        raise
    except (FormatError, sqlite3.Error) as error:
        raise MergeError(f"{repository.fqrn}: a catalog that cannot be read: {error}") from error
    except (ObjectStoreError, OSError) as error:
        raise StorageError(f"{repository.fqrn}: {error}") from error


def _edit(
    repository: Repository,
    head: Manifest,
    editor: Editor,
    now: float,
    clock: Callable[[], float],
) -> Manifest:
    configuration = repository.configuration()
    rules = Rules(configuration, repository.objects, strict_objects=True)
    algorithm = head.root_hash.algorithm
    with closing(CatalogTree(repository.catalogs, head.root_hash)) as tree:
        counts = editor(tree, rules)
        if counts is None:
            return head
        # read and checked before anything is stored
        with closing(Publication(repository, head, TagChanges(), now)) as publication:
            if (weights := Weights.configured(configuration)) is not None:
                balance(tree, weights, "", repository.objects, int(now))
            root, stored = tree.store(
                int(now),
                algorithm,
                lambda catalog: set_root_properties(catalog, configuration),
                rules.check_catalog,
                repository.journal,
            )
            catalog = tree.root.catalog
            manifest = publication.publish(root, catalog.revision, catalog.int_property("TTL", 0) or None)
    counts.catalogs_added = len(stored)
    try:
        record_publish(repository.statistics_path, repository.fqrn, now, clock(), manifest.revision, counts)
    except (sqlite3.Error, OSError) as error:  # it is published, whatever becomes of the statistics
        _log.warning("%s: cannot store statistics: %s", repository.fqrn, error)
    return manifest
