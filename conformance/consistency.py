"""What must hold in every revision: a small ``check``, over HTTP.

Source: ``cvmfs_server check`` of release 2.12, as far as catalogs are concerned.
"""

from __future__ import annotations

from collections.abc import Iterator

from conformance.catalog import COUNTERS, Catalog, parent_of
from conformance.entry import SPECIAL, Entry
from conformance.outcomes import Failed
from conformance.repository import Repository
from conformance.tree import Tree

_AGREE = ("mode", "size", "mtime", "uid", "gid", "links", "xattr", "symlink")


def check(repository: Repository, root: str | None = None) -> Tree:
    """Look at all catalogs of a revision; returns it. Raises :exc:`Failed` with every fault that was found."""
    tree = repository.tree(root)
    faults = list(_faults(tree))
    if faults:
        raise Failed("; ".join(faults[:10]) + (f"; and {len(faults) - 10} more" if len(faults) > 10 else ""))
    return tree


def _faults(tree: Tree) -> Iterator[str]:
    prefixes = tree.prefixes()
    totals: dict[str, dict[str, int]] = {}
    for prefix in sorted(prefixes, key=len, reverse=True):
        catalog = tree.catalog(prefix)
        where = prefix or "/"
        if catalog.prefix != prefix:
            yield f"{where}: root_prefix is {catalog.prefix!r}"
        own, stated = catalog.count(), catalog.counters()
        below = dict.fromkeys(COUNTERS, 0)
        for inner in catalog.nested():
            below = {name: below[name] + totals[inner][name] for name in COUNTERS}
        for name in COUNTERS:
            if stated.get(f"self_{name}") != own[name]:
                yield f"{where}: self_{name} is {stated.get(f'self_{name}')}, but {own[name]} are there"
            if stated.get(f"subtree_{name}") != below[name]:
                yield f"{where}: subtree_{name} is {stated.get(f'subtree_{name}')}, but {below[name]} are there"
        totals[prefix] = {name: own[name] + below[name] for name in COUNTERS}
        yield from _structure(tree, catalog)
        yield from _links(tree, catalog, prefix)


def _structure(tree: Tree, catalog: Catalog) -> Iterator[str]:
    nested = catalog.nested()
    for prefix, (name, size) in nested.items():
        inner = tree.catalog(prefix)
        if len(inner.data()) != size:
            yield f"{prefix}: its size is said to be {size}, but is {len(inner.data())}"
        mountpoint, own = catalog.get(prefix), inner.get(prefix)
        if mountpoint is None or own is None or not mountpoint.is_mountpoint or not own.is_nested_root:
            yield f"{prefix}: nested catalog {name} without a mountpoint or a root"
        else:
            for field in _AGREE:
                if getattr(mountpoint, field) != getattr(own, field):
                    yield f"{prefix}: {field} differs between mountpoint and nested catalog"
        if inner.get(f"{prefix}/.cvmfscatalog") is None:
            yield f"{prefix}: nested catalog without a .cvmfscatalog"
    (rows,) = catalog.db.execute("SELECT count(*) FROM catalog").fetchone()
    seen = sum(1 for _ in _entries(catalog, catalog.prefix))
    if rows != seen + 1:
        yield f"{catalog.prefix or '/'}: {rows} rows, of which {seen + 1} can be reached"


def _entries(catalog: Catalog, path: str) -> Iterator[tuple[str, Entry]]:
    for child, entry in catalog.children(path):
        yield child, entry
        if entry.is_directory and not entry.is_mountpoint:
            yield from _entries(catalog, child)


def _links(tree: Tree, catalog: Catalog, prefix: str) -> Iterator[str]:
    root = catalog.get(prefix)
    found: dict[str, int] = {prefix: 0}
    directories = [(prefix, root)] if root is not None else []
    for path, entry in _entries(catalog, prefix):
        if entry.links == 0:
            yield f"{path}: its link count is 0"
        if entry.is_directory:
            found[parent_of(path)] = found.get(parent_of(path), 0) + 1
            if not entry.is_mountpoint:
                found.setdefault(path, 0)
                directories.append((path, entry))
        elif not entry.symlink and not entry.chunks and entry.hash is None and not entry.flags & SPECIAL:
            yield f"{path}: a file without content"
    for path, entry in directories:
        if entry.links != 2 + found[path]:
            yield f"{path or '/'}: its link count is {entry.links}, but it has {found[path]} sub-directories"
