"""Publishing: how a new root catalog becomes the repository's head.

The order is what keeps a repository whole whenever the process is killed: objects (catalogs, tag database, certificate)
first and durable; then the reflog, which names them; then the manifest, in one atomic swap. Whatever can be refused is
refused when the :class:`Publication` is made, before anything is written.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from cvmfs_gw.engine.errors import ConfigurationError, TagError
from cvmfs_gw.engine.repository import MANIFEST_PATH, Repository
from cvmfs_objstore.compression import deflate, deflate_fast
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.formats.catalog import NestedRef
from cvmfs_objstore.formats.history import UNDO_TAGS, History, Tag
from cvmfs_objstore.formats.manifest import Manifest
from cvmfs_objstore.hashes import ContentHash, Suffix

DEFAULT_TTL: Final = 240
"""How long clients keep a manifest where the root catalog says nothing, in seconds."""
GENERIC_PREFIX: Final = "generic-"
_MAX_TAG_NAME: Final = 255
_MAX_DESCRIPTION: Final = 64 << 10
_MAX_HISTORY: Final = 1 << 30
_BAD_IN_TAG: Final = re.compile(r"[\s\x00-\x1f\x7f]")
_CHANNEL_LIMIT: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class TagChanges:
    """What a publish does to the tags besides moving the undo tags.

    ``name`` is the new head's: ``""`` for none, ``generic-...`` for one with the time of publication. Automatic tags
    older than ``auto_threshold`` (seconds since the epoch; 0: none) and those in ``delete`` go.
    """

    name: str = ""
    description: str = ""
    channel: int = 0
    auto_threshold: int = 0
    delete: tuple[str, ...] = ()


def generic_tag_name(now: float) -> str:
    """The name of an automatic tag: ``generic-2026-11-20T08:49:10.782Z``. *now* in seconds since the epoch."""
    seconds, milliseconds = divmod(int(now * 1000), 1000)
    return time.strftime(f"{GENERIC_PREFIX}%Y-%m-%dT%H:%M:%S.{milliseconds:03d}Z", time.gmtime(seconds))


class Publication:
    """One publish, from the head that it replaces to the new one. Use once, from one thread."""

    def __init__(self, repository: Repository, head: Manifest, tags: TagChanges, now: float) -> None:
        """Read and check all that the publish needs. *now* is in seconds since the epoch.

        Raises :exc:`MissingReflog`, :exc:`TagError`, :exc:`SigningError`, :exc:`ConfigurationError`.
        """
        self._repository = repository
        self._head = head
        self._now = now
        self._tags = tags
        self.certificate, self._key = repository.signing_keys()
        self._history = self._load_history()
        self.tag_name = self._final_tag_name()
        self._reflog = repository.reflog(head)

    def close(self) -> None:
        """Free what was read."""
        self._history.close()
        self._reflog.close()

    def _load_history(self) -> History:
        if self._head.history is None:
            return History.create(self._repository.fqrn)
        try:
            return History.load(self._repository.objects.get_plain(self._head.history, max_size=_MAX_HISTORY))
        except ObjectStoreError as error:
            raise ConfigurationError(f"tag database {self._head.history}: {error}") from error

    def _final_tag_name(self) -> str:
        tags, name = self._tags, self._tags.name
        if len(tags.description) > _MAX_DESCRIPTION or not 0 <= tags.channel < _CHANNEL_LIMIT:
            raise TagError("tag description too long or channel out of range")
        if doomed := UNDO_TAGS.intersection(tags.delete):
            raise TagError(f"the undo tags cannot be deleted: {', '.join(sorted(doomed))}")
        if not name:
            return ""
        if name.startswith(GENERIC_PREFIX):
            moment = self._now
            while self._history.get(name := generic_tag_name(moment)) is not None:
                moment += 0.001
            return name
        if name in UNDO_TAGS or len(name) > _MAX_TAG_NAME or _BAD_IN_TAG.search(name):
            raise TagError(f"not a name for a tag: {name[:80]!r}")
        if self._history.get(name) is not None and name not in tags.delete:
            raise TagError(f"there is a tag {name!r} already")
        return name

    def publish(
        self, root: NestedRef, revision: int, ttl: int | None, also_known: Iterable[ContentHash] = ()
    ) -> Manifest:
        """Make *root* the head: tag database, certificate, reflog and, last, the manifest; returns the new head.

        *also_known* are further catalogs for the reflog: those that nobody names but a collector must find.
        """
        repository, head = self._repository, self._head
        algorithm = root.hash.algorithm
        published = max(int(self._now), head.published)
        self._change_tags(root, revision)
        history = repository.objects.add(self._history.dump(), algorithm, Suffix.HISTORY, deflate=deflate_fast)
        # Replicas unpack and compress certificates again under the same name, so the encoder must be the stock one.
        certificate = repository.objects.add(self.certificate.pem, algorithm, Suffix.CERTIFICATE, deflate=deflate)
        repository.storage.sync()
        for ref in (root.hash, *also_known, certificate, history, head.meta_info):
            if ref is not None:
                self._reflog.add(ref, int(self._now))
        manifest = replace(
            head,
            root_hash=root.hash,
            root_size=root.size,
            revision=revision,
            ttl=ttl or DEFAULT_TTL,
            garbage_collectable=repository.configuration().garbage_collection,
            has_alt_catalog_path=False,
            micro_catalog=None,
            fqrn=repository.fqrn,
            certificate=certificate,
            history=history,
            published=published,
            reflog_hash=repository.store_reflog(self._reflog, algorithm),
        )
        repository.storage.write(MANIFEST_PATH, manifest.signed(self._key))
        repository.forget_client_root()
        return manifest

    def _change_tags(self, root: NestedRef, revision: int) -> None:
        history = self._history
        for name in self._tags.delete:
            history.remove(name)
        if self._tags.auto_threshold:
            for tag in list(history.tags()):
                if tag.name.startswith(GENERIC_PREFIX) and tag.timestamp < self._tags.auto_threshold:
                    history.remove(tag.name)
        tag = Tag(
            self.tag_name, root.hash, revision, int(self._now), self._tags.description, root.size, self._tags.channel
        )
        if tag.name:
            history.put(tag)
        history.move_undo_tags(tag)
        if self._head.history is not None:
            history.set_property("previous_revision", self._head.history.bare)
