"""What a mark has marked when it fails."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_gw.care.mark import Marker
from cvmfs_gw.engine.errors import MissingObject
from cvmfs_objstore.compression import deflate
from cvmfs_objstore.hashes import ContentHash
from tests.care.collecting import Past


def test_what_was_not_read_is_read_for_another_root(tmp_path: Path, keys: str) -> None:
    """A tree that lacks a catalog shares the others with one that is whole: these must not count as marked."""
    past = Past(str(tmp_path / "root"), keys)
    folders = [f"/n{number}" for number in range(8)]
    files: dict[str, bytes | None] = dict.fromkeys(folders, b"/")
    past.commit(files | {f"{folder}/f": folder.encode() for folder in folders}, nest=tuple(folders))
    repository = past.repository()
    broken = repository.head().root_hash
    with repository.catalogs.load(broken) as root:
        lost = root.nested()["/n3"].hash
    past.commit({"/n3/f": b"another"})
    os.unlink(os.path.join(repository.storage.root, lost.path))  # type: ignore[attr-defined]
    with closing(Marker(repository.objects, str(tmp_path))) as marker:
        with pytest.raises(MissingObject):
            marker.mark(broken)
        marker.mark(past.repository().head().root_hash)
        for content in (b"another", *(folder.encode() for folder in folders if folder != "/n3")):
            assert ContentHash.of(deflate(content)) in marker.marked
        with pytest.raises(MissingObject):
            marker.mark(broken)
