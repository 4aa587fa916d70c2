"""One open catalog of a tree that is being changed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from cvmfs_gw.engine.newfiles import NewFiles
from cvmfs_objstore.formats.catalog import Catalog, NestedRef, Row
from cvmfs_objstore.formats.entry import Counters

_ROWS_AT_ONCE: Final = 4000


class Node:
    """One open catalog of the tree."""

    __slots__ = (
        "_catalog",
        "_pending",
        "_writer",
        "accounted",
        "below",
        "changed",
        "children",
        "mountpoint",
        "nested",
        "own",
        "parent",
        "ref",
    )

    def __init__(self, mountpoint: str, catalog: Catalog, parent: Node | None, ref: NestedRef | None) -> None:
        self.mountpoint = mountpoint
        self._catalog = catalog
        self._pending: list[Row] = []
        self._writer: Future[None] | None = None
        self.parent = parent
        self.ref = ref
        """The stored catalog that it was opened from; None if it is new."""
        self.nested = catalog.nested()
        self.children: dict[str, Node] = {}
        self.own, self.below = catalog.counters()
        self.accounted = self.total() if ref is not None else Counters()
        self.changed = ref is None

    @property
    def catalog(self) -> Catalog:
        """The catalog, with all pending rows inserted."""
        if self._writer is not None:
            self._await_writer()
        if self._pending:
            self._write_pending()
        return self._catalog

    def put_new(self, row: Row) -> None:
        """Insert, with a delay, the row of a new entry without chunks."""
        self._pending.append(row)
        if len(self._pending) >= _ROWS_AT_ONCE:
            self._write_pending()

    def put_files(self, files: NewFiles) -> None:
        """Insert files that are attached to the catalog, in another thread; :attr:`catalog` waits for it."""
        pool = ThreadPoolExecutor(1)
        self._writer = pool.submit(files.put)
        pool.shutdown(wait=False)

    def _await_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.result()

    def close(self) -> None:
        """Close the catalog, discarding pending rows."""
        if self._writer is not None:
            self._writer.exception()
        self._catalog.close()

    def _write_pending(self) -> None:
        self._await_writer()
        self._catalog.put_new_rows(self._pending)
        self._pending.clear()

    def subtree(self) -> Iterator[Node]:
        """This node and the open ones below it, children before parents."""
        for child in self.children.values():
            yield from child.subtree()
        yield self

    def total(self) -> Counters:
        """The counters of the catalog and its subtree, without the unsaved changes of open nested catalogs."""
        result = Counters()
        result.add(self.own)
        result.add(self.below)
        return result
