"""The three-way merge: the changes that a publisher made, applied to the present head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain
from typing import Final

from cvmfs_gw.engine.balance import Weights, balance
from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.changes import Change, PutFiles
from cvmfs_gw.engine.diff import TreeDiff
from cvmfs_gw.engine.errors import PathViolation
from cvmfs_gw.engine.journal import Journal
from cvmfs_gw.engine.phases import Stopwatch
from cvmfs_gw.engine.rules import Rules
from cvmfs_gw.engine.statistics import PublishCounts
from cvmfs_gw.engine.transaction import Collision, Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.formats.catalog import Catalog, NestedRef
from cvmfs_objstore.formats.entry import parent_path
from cvmfs_objstore.hashes import Algorithm, ContentHash

_FEW: Final = 1000
"""At most this many changes are collected before applying them. Then, if the publisher's base is the present tree, it
need not be opened twice."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The new root catalog, every catalog that was stored for it, and the collisions."""

    root: NestedRef
    revision: int
    ttl: int | None
    stored: tuple[NestedRef, ...]
    collisions: tuple[Collision, ...]
    counts: PublishCounts


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """The three sides of a merge, and its scope.

    *result* is the publisher's root catalog; *claimed_base* the base according to the publisher, used only if the
    result does not name its predecessor; *present* the repository's present root catalog. *scope* is the lease path
    (``""`` or ``/a/b``).
    """

    result: ContentHash
    claimed_base: ContentHash
    present: ContentHash
    scope: str
    create_ancestors: bool
    weights: Weights | None = None
    """The limits for automatic nested catalogs; None: there are no automatic ones."""


def merge(
    catalogs: CatalogStore,
    request: MergeRequest,
    algorithm: Algorithm,
    now: int,
    set_properties: Callable[[Catalog], None],
    rules: Rules,
    journal: Journal,
    watch: Stopwatch,
) -> Merged:
    """Merge, and store the catalogs of the merged tree.

    *set_properties* sets the properties determined by the server's configuration, *rules* are the repository's,
    *journal* records what is about to be stored, and *watch* measures the phases.

    As their base, publishers send the head that they fetched last, but they built on the root that they had mounted,
    which may be older; the true base is the predecessor named in the result. Raises :exc:`MergeError` and its
    subclasses.
    """
    with ExitStack() as stack:
        result = stack.enter_context(closing(CatalogTree(catalogs, request.result)))
        true_base = result.root.catalog.previous_revision or request.claimed_base
        base = stack.enter_context(closing(CatalogTree(catalogs, true_base)))
        fresh = true_base == request.present
        tree = base if fresh else stack.enter_context(closing(CatalogTree(catalogs, request.present)))
        check_ancestors(tree, request.scope, may_be_made=request.create_ancestors)
        diff = TreeDiff(base, result, tree, request.scope, rules)
        changes = watch.each(stack.enter_context(closing(diff.changes())), made="diff", used="apply")
        begun: list[Change] = []
        if fresh and not _take_few(changes, begun):
            # The diff is not exhausted, so the tree that it reads must not be changed.
            tree = stack.enter_context(closing(CatalogTree(catalogs, request.present)))
        transaction = Transaction(tree, result.get)
        transaction.apply(chain(begun, changes))
        watch.enter("apply")
        if request.weights is not None:
            balance(tree, request.weights, request.scope, catalogs.objects, now)
        # The publisher's catalogs will not be needed again, and there may be many of them.
        for opened in {result, base} - {tree}:
            opened.close()
        catalogs.forget(request.result)
        watch.enter("store")
        root, stored = tree.store(now, algorithm, set_properties, rules.check_catalog, journal)
        catalog = tree.root.catalog
        ttl = catalog.int_property("TTL", 0) or None
        return Merged(root, catalog.revision, ttl, tuple(stored), tuple(transaction.collisions), transaction.counts)


def _take_few(changes: Iterator[Change], taken: list[Change]) -> bool:
    """Collect *changes* while they are few and none needs a check when applied; returns whether these are all."""
    for change in changes:
        taken.append(change)
        if len(taken) >= _FEW or isinstance(change, PutFiles):
            return False
    return True


def check_ancestors(tree: CatalogTree, lease_path: str, *, may_be_made: bool) -> None:
    """Each proper ancestor of the lease path must be a directory, or missing where it *may_be_made*.

    Raises :exc:`PathViolation`.
    """
    path = parent_path(lease_path)
    while path:
        entry = tree.get(path)
        if entry is None and not may_be_made:
            raise PathViolation(f"{path} is not there, so nothing can be published at {lease_path}")
        if entry is not None and not entry.is_directory:
            raise PathViolation(f"{path} is not a directory, so nothing can be published at {lease_path}")
        path = parent_path(path)
