"""Tagging by hand, and rollback.

Source: ``cvmfs_server tag`` and ``rollback``. A tag's time is that of its catalog. A rollback publishes the tagged root
catalog again as the newest revision; tags of later revisions are removed, the tag itself and ``trunk`` move to the new
revision, and there is no ``trunk-previous`` until the next publish: so only one undo is possible.

Branches, which ``cvmfs_server checkout -b`` makes, are kept: a rollback does not touch their tags, a tag that is moved
stays on its branch, and a branch is removed with its last tag. Revisions on a branch may have the same numbers as
later ones of the default branch; a search by number or time looks at the default branch first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from cvmfs_gw.engine.errors import EngineError, TagError
from cvmfs_gw.engine.publish import Publication, TagChanges, check_tag_name, load_history
from cvmfs_gw.engine.repository import Repository
from cvmfs_objstore.errors import DatabaseError, ObjectStoreError
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.history import TRUNK_PREVIOUS, UNDO_TAGS, Branch, History, Tag, trunk_tag
from cvmfs_objstore.formats.manifest import Manifest
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix

_log = logging.getLogger(__name__)
T = TypeVar("T")


@contextmanager
def changing(repository: Repository) -> Iterator[Manifest]:
    """Hold the repository's lock; if the change fails, remove what it has stored. Yields the head."""
    with repository.exclusive():
        if repository.journal.names():
            repository.undo()  # somebody was killed in here
        try:
            yield repository.head()
        except BaseException:
            try:
                repository.undo()
            except (EngineError, ObjectStoreError, OSError) as error:
                _log.warning("%s: cannot clean up after a failed change: %s", repository.fqrn, error)
            raise


def list_tags(repository: Repository) -> list[Tag]:
    """All tags of the head, newest revision first; raises :exc:`EngineError`."""
    with load_history(repository, repository.head()) as history:
        return list(history.tags())


def list_branches(repository: Repository) -> list[Branch]:
    """All branches of the head but the default one, by name; raises :exc:`EngineError`."""
    with load_history(repository, repository.head()) as history:
        return list(history.branches())


def find_root(repository: Repository, what: str) -> ContentHash:
    """The root catalog named by *what*: see :func:`choose_root`, or ``""`` for the head. Raises :exc:`TagError`."""
    return choose_root(list_tags(repository), what) if what else repository.head().root_hash


def choose_root(tags: Iterable[Tag], what: str) -> ContentHash:
    """The root catalog named by *what*: a tag, a hash, or ``@revision`` of a tag. Raises :exc:`TagError`."""
    for tag in sorted(tags, key=lambda tag: tag.branch != ""):
        if what in (tag.name, tag.root_hash.bare, str(tag.root_hash), f"@{tag.revision}"):
            return tag.root_hash
    try:
        return ContentHash.parse(what.removesuffix("C") + "C")
    except ValueError:
        raise TagError(f"neither a tag nor a root catalog: {what[:80]!r}") from None


def root_at(tags: Iterable[Tag], moment: float) -> ContentHash:
    """The root catalog of the newest tag on the default branch that is not newer than *moment* (in seconds).

    Raises :exc:`TagError`. Source: clients that mount a repository as of a date.
    """
    then = (tag for tag in tags if tag.timestamp <= moment and not tag.branch)
    newest = max(then, key=lambda tag: tag.revision, default=None)
    if newest is None:
        raise TagError("no tag is as old as that")
    return newest.root_hash


def add_tag(repository: Repository, name: str, description: str, now: float, root: ContentHash | None = None) -> Tag:
    """Tag a revision: that of *root*, by default the head. Raises :exc:`EngineError`, mostly :exc:`TagError`."""
    check_tag_name(name)

    def edit(history: History, head: Manifest) -> Tag:
        if history.get(name) is not None:
            raise TagError(f"there is a tag {name!r} already")
        tag = replace(_tag_of(repository, root or head.root_hash), name=name, description=description)
        history.put(tag)
        return tag

    return _edit(repository, now, edit)


def move_tag(
    repository: Repository, name: str, now: float, root: ContentHash | None = None, description: str = ""
) -> Tag:
    """Move an existing tag to another revision; it keeps its description unless a new one is given."""
    check_tag_name(name)

    def edit(history: History, head: Manifest) -> Tag:
        old = _get(history, name)
        tag = _tag_of(repository, root or head.root_hash)
        tag = replace(
            tag, name=name, description=description or old.description, channel=old.channel, branch=old.branch
        )
        history.put(tag)
        return tag

    return _edit(repository, now, edit)


def remove_tags(repository: Repository, names: list[str], now: float) -> list[Tag]:
    """Remove tags, all or none; returns them. Their revisions remain until they are garbage-collected."""
    if doomed := UNDO_TAGS.intersection(names):
        raise TagError(f"the undo tags cannot be removed: {', '.join(sorted(doomed))}")

    def edit(history: History, head: Manifest) -> list[Tag]:
        tags = [_get(history, name, readable=False) for name in names]
        for name in names:
            history.remove(name)
        history.prune_branches()
        return tags

    return _edit(repository, now, edit)


@dataclass(frozen=True, slots=True)
class Rollback:
    """The result of a rollback: the new head, the former state of the target tag, and the removed tags."""

    head: Manifest
    target: Tag
    removed: tuple[Tag, ...]


def rollback(repository: Repository, name: str, now: float) -> Rollback:
    """Go back to the tag *name* or, if that is empty, undo the last publish. Raises :exc:`EngineError`."""
    with changing(repository) as head:
        with load_history(repository, head) as history:
            target = history.get(name or TRUNK_PREVIOUS)
            tags = list(history.tags())
        if target is None:
            raise TagError(
                f"there is no tag {name!r}" if name else "only one undo is possible; give a tag to go back to"
            )
        if target.branch:
            raise TagError(f"tag {target.name!r} is on branch {target.branch!r}: only the default one can go back")
        if target.revision >= head.revision:
            raise TagError(f"tag {target.name!r} is the head already")
        removed = [tag for tag in tags if tag.revision > target.revision and not tag.branch]

        def edit(history: History, new: Tag) -> None:
            for tag in removed:
                history.remove(tag.name)
            for undo in UNDO_TAGS:
                history.remove(undo)
            if target.name not in UNDO_TAGS:
                moved = replace(target, root_hash=new.root_hash, size=new.size)
                history.put(replace(moved, revision=new.revision, timestamp=new.timestamp))
            history.put(trunk_tag(new))

        with (
            repository.catalogs.load(target.root_hash) as catalog,
            closing(Publication(repository, head, TagChanges(), now)) as publication,
        ):
            catalog.set_property("revision", head.revision + 1)
            catalog.set_property("previous_revision", head.root_hash.bare)
            catalog.set_property("last_modified", int(now))
            ref = repository.catalogs.store(catalog, head.root_hash.algorithm, repository.journal)
            ttl = catalog.int_property("TTL", 0) or None
            new_head = publication.publish(ref, head.revision + 1, ttl, edit_tags=edit)
    gone = tuple(tag for tag in removed if tag.name not in UNDO_TAGS)
    return Rollback(new_head, target, gone)


def _edit(repository: Repository, now: float, edit: Callable[[History, Manifest], T]) -> T:
    result: list[T] = []
    with changing(repository) as head, closing(Publication(repository, head, TagChanges(), now)) as publication:
        publication.amend(edit_tags=lambda history: result.append(edit(history, head)))
    return result[0]


def _get(history: History, name: str, *, readable: bool = True) -> Tag:
    try:
        tag = history.get(name)
    except DatabaseError:
        if readable:
            raise
        tag = Tag(name, ContentHash.null(Algorithm.SHA1, Suffix.CATALOG), 0, 0)  # its row makes no sense
    if tag is None:
        raise TagError(f"there is no tag {name!r}")
    return tag


def _tag_of(repository: Repository, root: ContentHash) -> Tag:
    """A tag without a name for a root catalog, which must exist. Raises :exc:`EngineError`, mostly :exc:`TagError`."""
    data = repository.catalogs.plain(root)
    with Catalog.load(data) as catalog:
        if catalog.mountpoint:
            raise TagError(f"{root} is not a root catalog: it belongs to {catalog.mountpoint}")
        return Tag("", root, catalog.revision, catalog.int_property("last_modified", 0), size=len(data))
