"""The meta info is shown and replaced; the repository is whole after that, and a failure leaves no trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cvmfs_gw.care.metainfo import MAX_SIZE, read_meta_info, replace_meta_info
from cvmfs_gw.engine.errors import ConfigurationError, MissingObject
from cvmfs_objstore.hashes import Suffix
from tests.care.collecting import Past


@pytest.fixture
def past(tmp_path: Path, keys: str) -> Past:
    return Past(str(tmp_path / "root"), keys)


def test_replace(past: Past) -> None:
    repository = past.repository()
    assert read_meta_info(repository)["administrator"] == ""
    before = repository.head()
    head = replace_meta_info(repository, b'{"administrator": "Jo"}', past.now + 1)
    assert read_meta_info(past.repository()) == {"administrator": "Jo"}
    assert (head.root_hash, head.revision) == (before.root_hash, before.revision)
    past.check()
    past.commit({"/f": b"x"})
    assert read_meta_info(past.repository()) == {"administrator": "Jo"}, "commits keep it"
    replace_meta_info(past.repository(), b'{"administrator": "Jo"}', past.now + 1)
    past.check()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'"' + b"x" * MAX_SIZE + b'"'])
def test_what_is_none(past: Past, data: bytes) -> None:
    before = past.repository().head()
    with pytest.raises(ConfigurationError):
        replace_meta_info(past.repository(), data, past.now)
    assert past.repository().head() == before


def test_one_that_is_gone_is_replaced(past: Past) -> None:
    repository = past.repository()
    name = repository.head().meta_info
    assert name is not None
    repository.objects.delete(name)
    with pytest.raises(MissingObject):
        read_meta_info(repository)
    replace_meta_info(repository, json.dumps({"a": 1}).encode(), past.now)
    assert read_meta_info(repository) == {"a": 1}


def test_failure_leaves_no_object(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = past.repository()
    before = {name for name in past.objects() if name.suffix is Suffix.METAINFO}

    def fail(*_: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(type(repository), "store_reflog", fail)
    with pytest.raises(OSError, match="no space"):
        replace_meta_info(repository, b'{"new": 1}', past.now)
    assert {name for name in past.objects() if name.suffix is Suffix.METAINFO} == before
