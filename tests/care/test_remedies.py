"""Where the remedy of a fault is a command of ours, that command mends it, and a publish goes well afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from cvmfs_gw.care.metainfo import replace_meta_info
from cvmfs_gw.care.resign import resign_manifest, resign_whitelist
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.tags import find_root, move_tag, remove_tags
from tests.care.damage import DAMAGES
from tests.care.harm import edit_catalogs
from tests.care.sample import build
from tests.care.test_check import check, reference
from tests.engine.trees import NOW

LATER: Final = NOW + 5
Remedy = Callable[[Repository], object]


def whitelist(repository: Repository) -> None:
    resign_whitelist(repository, LATER)


def manifest(repository: Repository) -> None:
    resign_manifest(repository, LATER)


def both(repository: Repository) -> None:
    whitelist(repository)
    manifest(repository)


def information(repository: Repository) -> None:
    replace_meta_info(repository, b"{}", LATER)


def without(tag: str) -> Remedy:
    return lambda repository: remove_tags(repository, [tag], LATER)


def tag_moved(repository: Repository) -> None:
    move_tag(repository, "first", LATER, find_root(repository, "first"))


def publish_again(repository: Repository) -> None:
    edit_catalogs(repository, {"": lambda catalog: None})


REMEDIES: Final[dict[str, tuple[str, Remedy]]] = {
    "whitelist-gone": ("cvmfs-gw resign", whitelist),
    "whitelist-garbage": ("cvmfs-gw resign", whitelist),
    "whitelist-name": ("cvmfs-gw resign", whitelist),
    "whitelist-signature": ("cvmfs-gw resign", whitelist),
    "whitelist-expired": ("cvmfs-gw resign", whitelist),
    "whitelist-soon": ("cvmfs-gw resign", whitelist),
    "certificate-unlisted": ("cvmfs-gw resign", both),
    "manifest-signature": ("cvmfs-gw resign --manifest", manifest),
    "manifest-other-key": ("cvmfs-gw resign --manifest", manifest),
    "certificate-gone": ("cvmfs-gw resign --manifest", manifest),
    "certificate-garbage": ("cvmfs-gw resign --manifest", manifest),
    "meta-info-gone": ("cvmfs-gw repoinfo", information),
    "tag-hash": ("cvmfs-gw tag remove", without("first")),
    "tag-null": ("cvmfs-gw tag remove", without("first")),
    "tag-dangling": ("cvmfs-gw tag remove", without("lost")),
    "tag-branch": ("cvmfs-gw tag remove", without("first")),
    "tag-revision": ("cvmfs-gw tag move", tag_moved),
    "manifest-root-path": ("cvmfs-gw resign --manifest", manifest),
}


@pytest.mark.parametrize("name", REMEDIES)
def test_remedy(tmp_path: Path, keys: str, name: str) -> None:
    damage = next(damage for damage in DAMAGES if damage.name == name)
    words, remedy = REMEDIES[name]
    assert words in damage.kind.remedy
    repository = build(str(tmp_path / "root"), keys)
    damage.do(repository)
    assert check(repository).faults
    remedy(repository)
    assert [str(fault) for fault in check(repository).faults] == []
    assert reference(repository, tmp_path / "tmp") in (True, None)
    publish_again(repository)
    assert [str(fault) for fault in check(repository).faults] == []
