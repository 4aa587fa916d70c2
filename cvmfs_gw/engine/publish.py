"""Publishing: how a new root catalog becomes the repository's head.

The order of writes keeps the repository consistent whenever the process is killed: first objects (catalogs, tag
database, certificate), made durable; then the reflog, which names them; then the manifest, by one atomic rename.
Everything that can be refused is refused when the :class:`Publication` is created, before anything is written.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

from cvmfs_gw.engine.errors import ConfigurationError, TagError
from cvmfs_gw.engine.repository import MANIFEST_PATH, Repository
from cvmfs_objstore.compression import deflate, deflate_fast
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.formats.catalog import NestedRef
from cvmfs_objstore.formats.history import UNDO_TAGS, History, Tag
from cvmfs_objstore.formats.manifest import EMPTY_PATH_MD5, Manifest
from cvmfs_objstore.formats.reflog import Reflog
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix

DEFAULT_TTL: Final = 240
"""The TTL of the manifest, in seconds, if the root catalog does not set one."""
GENERIC_PREFIX: Final = "generic-"
_MAX_TAG_NAME: Final = 255
_MAX_DESCRIPTION: Final = 64 << 10
_MAX_HISTORY: Final = 1 << 30
_NOT_BYTES: Final = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_BAD_IN_TAG: Final = re.compile(r"[\s\x00-\x1f\x7f]")
_CHANNEL_LIMIT: Final = 1 << 31
_TIME_LIMIT: Final = 1 << 62
_OUTCOME_PREFIX: Final = "cvmfs_gw.outcome."
_OUTCOMES_KEPT: Final = 32
_PREVIOUS: Final = "previous_revision"


@dataclass(frozen=True, slots=True)
class TagChanges:
    """What a publish does to the tags besides moving the undo tags.

    ``name`` is the tag of the new head: ``""`` for none, ``generic-...`` for one with the time of publication.
    Automatic tags older than ``auto_threshold`` (seconds since the epoch; 0: none) and those in ``delete`` are removed.
    """

    name: str = ""
    description: str = ""
    channel: int = 0
    auto_threshold: int = 0
    delete: tuple[str, ...] = ()


def load_history(repository: Repository, head: Manifest) -> History:
    """The tag database of *head*, or an empty one; raises :exc:`ConfigurationError`."""
    if head.history is None:
        return History.create(repository.fqrn)
    try:
        return History.load(repository.objects.get_plain(head.history, max_size=_MAX_HISTORY))
    except ObjectStoreError as error:
        raise ConfigurationError(f"tag database {head.history}: {error}") from error


def generic_tag_name(now: float) -> str:
    """The name of an automatic tag: ``generic-2026-11-20T08:49:10.782Z``. *now* in seconds since the epoch."""
    seconds, milliseconds = divmod(int(now * 1000), 1000)
    return time.strftime(f"{GENERIC_PREFIX}%Y-%m-%dT%H:%M:%S.{milliseconds:03d}Z", time.gmtime(seconds))


def check_tag_name(name: str) -> str:
    """Check the name of a new tag; raises :exc:`TagError`."""
    if (
        not name
        or name in UNDO_TAGS
        or len(name) > _MAX_TAG_NAME
        or _BAD_IN_TAG.search(name)
        or _NOT_BYTES.search(name)
    ):
        raise TagError(f"not a name for a tag: {name[:80]!r}")
    return name


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a commit, recorded in the tag database, and so replaced atomically together with the head."""

    revision: int
    root_hash: ContentHash
    tag_name: str
    missing_objects: int


class Publication:
    """One publish, from the head that it replaces to the new one. Use once, from one thread."""

    def __init__(
        self,
        repository: Repository,
        head: Manifest,
        tags: TagChanges,
        now: float,
        source: ContentHash | None = None,
        *,
        repeated: bool = False,
        reflog: Reflog | None = None,
    ) -> None:
        """Read and check everything that the publish needs. *now* is in seconds since the epoch.

        *source* is the publisher's root catalog, from which the new one will be made. If it was already published,
        :attr:`done` is the outcome, and nothing is left to do; with *repeated*, all earlier revisions are searched for
        it. *reflog* is used in place of the repository's, which is then not read.

        Raises :exc:`MissingReflog`, :exc:`TagError`, :exc:`SigningError`, :exc:`ConfigurationError`.
        """
        self._repository = repository
        self._head = head
        self._now = now
        self._tags = tags
        self._source = source
        self._history = load_history(repository, head)
        self.done = self._recorded_outcome(self._history) or (self._earlier_outcome() if repeated else None)
        if self.done is not None:
            self.tag_name = self.done.tag_name
            return
        self.certificate, self._key = repository.signing_keys()
        self.tag_name = self._final_tag_name()
        self._reflog = repository.reflog(head) if reflog is None else reflog

    def close(self) -> None:
        """Close the databases that were read."""
        self._history.close()
        if self.done is None:
            self._reflog.close()

    def _recorded_outcome(self, history: History) -> Outcome | None:
        text = history.property(_OUTCOME_PREFIX + self._source.bare) if self._source else None
        if text is None:
            return None
        try:
            revision, root, missing, tag_name = text.split(" ", 3)
            outcome = Outcome(int(revision), ContentHash.parse(root, Suffix.CATALOG), tag_name, int(missing))
        except ValueError:
            return None  # not written by us
        # Two publishers that changed nothing in the same second have the same root, but not the same tag.
        wanted = self._tags.name
        explicit = wanted and not wanted.startswith(GENERIC_PREFIX)
        return None if explicit and tag_name != wanted else outcome

    def _earlier_outcome(self) -> Outcome | None:
        """The outcome of a source that is too old to be recorded in the present tag database.

        The reflog shows at once whether it was published at all; every tag database refers to its predecessor.
        """
        with closing(self._repository.reflog(self._head)) as reflog:
            if self._source is None or self._source not in reflog:
                return None
        previous = self._history.property(_PREVIOUS)
        while previous is not None:
            try:
                name = ContentHash.parse(previous, Suffix.HISTORY)
                plain = self._repository.objects.get_plain(name, max_size=_MAX_HISTORY)
            except ObjectStoreError:
                return None  # collected
            with closing(History.load(plain)) as history:
                if (found := self._recorded_outcome(history)) is not None:
                    return found
                previous = history.property(_PREVIOUS)
        return None

    def _final_tag_name(self) -> str:
        tags, name = self._tags, self._tags.name
        if len(tags.description) > _MAX_DESCRIPTION or not 0 <= tags.channel < _CHANNEL_LIMIT:
            raise TagError("tag description too long or channel out of range")
        if abs(tags.auto_threshold) >= _TIME_LIMIT:
            raise TagError("the time beyond which automatic tags go is out of range")
        if any(_NOT_BYTES.search(text) for text in (name, tags.description, *tags.delete)):
            raise TagError("tag name or description that is not made of bytes")
        if doomed := UNDO_TAGS.intersection(tags.delete):
            raise TagError(f"the undo tags cannot be deleted: {', '.join(sorted(doomed))}")
        if not name:
            return ""
        if name.startswith(GENERIC_PREFIX):
            moment = self._now
            while self._history.get(name := generic_tag_name(moment)) is not None:
                moment += 0.001
            return name
        check_tag_name(name)
        if self._history.get(name) is not None and name not in tags.delete:
            raise TagError(f"there is a tag {name!r} already")
        return name

    def _remember_outcome(self, source: ContentHash, outcome: Outcome) -> None:
        known = [key for key in self._history.properties() if key.startswith(_OUTCOME_PREFIX)]  # oldest first
        for key in known[: max(0, len(known) - _OUTCOMES_KEPT + 1)]:
            self._history.set_property(key, None)
        text = f"{outcome.revision} {outcome.root_hash.bare} {outcome.missing_objects} {outcome.tag_name}"
        self._history.set_property(_OUTCOME_PREFIX + source.bare, text)

    def publish(
        self,
        root: NestedRef,
        revision: int,
        ttl: int | None,
        missing_objects: int = 0,
        edit_tags: Callable[[History, Tag], None] | None = None,
    ) -> Manifest:
        """Make *root* the head: tag database, certificate, reflog and, last, the manifest; returns the new head.

        *missing_objects* is recorded with the outcome. *edit_tags* is called with the tag database and the new head's
        tag and replaces what :class:`TagChanges` ask for.

        The source is entered into the reflog, too: nothing else refers to it, but the garbage collector must find it.
        """
        tags = self._tags
        tag = Tag(self.tag_name, root.hash, revision, int(self._now), tags.description, root.size, tags.channel)
        (edit_tags or self._change_tags)(self._history, tag)
        if self._source is not None:
            self._remember_outcome(self._source, Outcome(revision, root.hash, self.tag_name, missing_objects))
        manifest = replace(
            self._head,
            root_hash=root.hash,
            root_size=root.size,
            revision=revision,
            ttl=ttl or DEFAULT_TTL,
            garbage_collectable=self._repository.configuration().garbage_collection,
            has_alt_catalog_path=False,
            micro_catalog=None,
            fqrn=self._repository.fqrn,
            published=max(int(self._now), self._head.published),
        )
        return self._swap(manifest, (root.hash, self._source), new_history=True)

    def amend(
        self,
        edit_tags: Callable[[History], None] | None = None,
        edit_reflog: Callable[[Reflog], None] | None = None,
        meta_info: ContentHash | None = None,
    ) -> Manifest:
        """Keep the root catalog and its revision; change tags, reflog or meta info; sign again. Returns the new head.

        Clients do not notice: they ignore a manifest whose revision they already have.
        """
        if edit_tags is not None:
            edit_tags(self._history)
        if edit_reflog is not None:
            edit_reflog(self._reflog)
        head = self._head if meta_info is None else replace(self._head, meta_info=meta_info)
        return self._swap(head, (head.root_hash,), new_history=edit_tags is not None)

    def _swap(self, manifest: Manifest, refs: Iterable[ContentHash | None], *, new_history: bool) -> Manifest:
        repository, head = self._repository, self._head
        algorithm = manifest.root_hash.algorithm
        history = head.history
        if new_history:
            if history is not None:
                self._history.set_property(_PREVIOUS, history.bare)
            history = self._store_history(algorithm)
        # Replicas recompress certificates and expect the same name, so this must be stock zlib.
        certificate = repository.objects.add(self.certificate.pem, algorithm, Suffix.CERTIFICATE, deflate=deflate)
        repository.storage.sync()
        for ref in (*refs, certificate, history, manifest.meta_info):
            if ref is not None:
                self._reflog.add(ref, int(self._now))
        manifest = replace(
            manifest,
            root_path_md5=EMPTY_PATH_MD5,
            certificate=certificate,
            history=history,
            reflog_hash=repository.store_reflog(self._reflog, algorithm),
        )
        repository.storage.write(MANIFEST_PATH, manifest.signed(self._key))
        repository.journal.clear()
        repository.forget_client_root()
        return manifest

    def _store_history(self, algorithm: Algorithm) -> ContentHash:
        stored = deflate_fast(self._history.dump())
        name = ContentHash.of(stored, algorithm, Suffix.HISTORY)
        self._repository.journal.note(name)
        self._repository.objects.put(name, stored)
        return name

    def _change_tags(self, history: History, tag: Tag) -> None:
        for name in self._tags.delete:
            history.remove(name)
        if self._tags.auto_threshold:
            history.remove_older(GENERIC_PREFIX, self._tags.auto_threshold)
        if tag.name:
            history.put(tag)
        if self._tags.delete or self._tags.auto_threshold:
            history.prune_branches()
        history.move_undo_tags(tag)
