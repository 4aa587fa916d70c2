"""The meta info of a repository: whose it is, whom to write to, where its replicas are, as a JSON object.

Source: ``cvmfs_server update-repoinfo``; ``cvmfs_server`` fills these members, and others may be there.
"""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any, Final

from cvmfs_gw.engine.errors import ConfigurationError, MissingObject
from cvmfs_gw.engine.publish import Publication, TagChanges
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.tags import changing
from cvmfs_objstore.compression import deflate
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.formats.manifest import Manifest
from cvmfs_objstore.formats.reflog import Reflog
from cvmfs_objstore.hashes import ContentHash, Suffix

MAX_SIZE: Final = 64 << 10
"""Largest meta info that may be set, in bytes."""
_MAX_READ: Final = 1 << 20


def read_meta_info(repository: Repository) -> dict[str, Any]:
    """The meta info of the head, ``{}`` where it has none. Raises :exc:`MissingObject`, :exc:`ConfigurationError`."""
    name = repository.head().meta_info
    if name is None:
        return {}
    try:
        return _parse(repository.objects.get_plain(name, max_size=_MAX_READ))
    except ObjectStoreError as error:
        raise MissingObject(f"{repository.fqrn}: meta info {name}: {error}") from error


def replace_meta_info(repository: Repository, data: bytes, now: float) -> Manifest:
    """Let *data*, a JSON object, be the meta info, and sign. *now* is in seconds since the epoch. Returns the new head.

    Clients do not notice: the revision stays. Raises :exc:`ConfigurationError` if it is none, or too large.
    """
    if len(data) > MAX_SIZE:
        raise ConfigurationError(f"meta info of more than {MAX_SIZE} bytes")
    _parse(data)
    with changing(repository) as head, closing(Publication(repository, head, TagChanges(), now)) as publication:
        # Replicas unpack and compress it again under the same name, so the encoder must be the stock one.
        stored = deflate(data)
        name = ContentHash.of(stored, head.root_hash.algorithm, Suffix.METAINFO)
        if not repository.objects.has(name):
            repository.journal.note(name)
            repository.objects.put(name, stored)
        return publication.amend(edit_reflog=lambda reflog: _forget(repository, reflog, head), meta_info=name)


def _forget(repository: Repository, reflog: Reflog, head: Manifest) -> None:
    """What was lost and is replaced is not to be looked for any more."""
    if head.meta_info is not None and not repository.objects.has(head.meta_info):
        reflog.remove(head.meta_info)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise ConfigurationError(f"meta info is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigurationError("meta info is no JSON object")
    return found
