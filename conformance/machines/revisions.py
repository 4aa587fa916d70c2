"""The revisions that a history has published: what each holds as the model says, and looking whether it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from conformance.machines.published import Published
from conformance.machines.site import Site, same
from conformance.machines.snapshot import Tree, differences
from conformance.machines.trees import empty, marked
from conformance.outcomes import equal

_KEPT: Final = 50
"""How many revisions a publisher's mount may lag behind."""


class Work(Protocol):
    """What a publisher has made."""

    def on(self, present: Tree) -> Tree:
        """What is to come of *present* by it."""


class Revisions:
    """*models* are what each revision holds at and below the site's base; ``number`` is the present one's."""

    def __init__(self, site: Site, mount_every: int, check: Callable[[], None]) -> None:
        """*mount_every*: so many publishes from one client mount to the next. *check* looks after each publish."""
        self._site, self._mount_every, self._check = site, mount_every, check
        self._catalogs = Published(site.repository, f"/{site.base}".rstrip("/"))
        self.number = site.revision
        self.models: dict[int, Tree] = {self.number: empty()}
        self.published = 0
        self.mounted = 0

    @property
    def present(self) -> Tree:
        return self.models[self.number]

    def add(self, tree: Tree) -> None:
        """There is a new revision that holds *tree*: see that it does; raises :exc:`Failed`."""
        self._new(tree)
        equal(self._site.revision, self.number, "the published revision")
        seen, mountpoints = self._catalogs.read()
        same(tree, seen, f"revision {self.number} holds")
        equal(sorted(mountpoints), sorted(marked(tree)), "nested catalogs")
        # What the model could not know it takes over.
        for path, node in tree.items():
            if path and node.mtime is None:
                tree[path] = replace(node, mtime=seen[path].mtime)
        self._check()
        if self.published % self._mount_every == 0:
            self.mount()

    def add_both(self, one: Work, other: Work) -> None:
        """There are two, made at the same moment: which came first the revision in between tells."""
        between, _ = self._catalogs.read(self._catalogs.previous_root())
        first, second = one, other
        if differences(one.on(self.present), between, nanoseconds=True):
            first, second = other, one
        same(first.on(self.present), between, "the revision between two publishes at the same moment holds")
        self._new(first.on(self.present))
        self.add(second.on(self.present))

    def _new(self, tree: Tree) -> None:
        self.published += 1
        self.number += 1
        self.models[self.number] = tree
        for old in [number for number in self.models if number < self.number - _KEPT]:
            del self.models[old]

    def mount(self) -> None:
        """A fresh client sees the model as well; raises :exc:`Failed`."""
        self.mounted += 1
        same(self.present, self._site.client.mounted(self._site.target, self._site.base), "a client sees")
