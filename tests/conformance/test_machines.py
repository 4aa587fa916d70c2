"""What the scenarios with machines rest on, without machines: trees, models, full disks."""

from __future__ import annotations

import os
import random
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from conformance import disk
from conformance.disk import full
from conformance.entry import link, special, xattr_blob
from conformance.machines.changes import Maker
from conformance.machines.published import Published
from conformance.machines.snapshot import Node, Tree, differences, snapshot
from conformance.machines.trees import empty, inside, marked, merged
from conformance.outcomes import Failed, NotApplicable
from conformance.probe import Probe
from conformance.servers import own
from conformance.tree import Tree as CatalogTree


def _node(kind: int = stat.S_IFREG, **members: object) -> Node:
    return replace(Node(kind | 0o644, 0, 0, 10**9), **members)  # type: ignore[arg-type]


def test_published() -> None:
    with own() as target:
        probe = next(Probe.sequence(target))
        top = probe.path()

        def make(tree: CatalogTree) -> None:
            tree.make_directories(f"{top}/nested/deep")
            tree.nest(f"{top}/nested")
            entry = tree.put_file(f"{top}/nested/file", b"content")
            tree.put(f"{top}/nested/file", replace(entry, mtime=7, mtimens=8, xattr=xattr_blob({"user.a": b"\0"})))
            tree.put_chunked(f"{top}/large", [b"one", b"two"])
            tree.put(f"{top}/link", link("target"))
            tree.put(f"{top}/fifo", special(stat.S_IFIFO))

        probe.publish(top, make)
        reader = Published(probe.repository, top)
        tree, nested = reader.read()
        assert nested == {"nested"}
        assert set(tree) == {
            "", "nested", "nested/deep", "nested/file", "nested/.cvmfscatalog", "large", "link", "fifo"
        }  # fmt: skip
        file = tree["nested/file"]
        assert (file.size, file.mtime, file.xattrs) == (7, 7 * 10**9 + 8, (("user.a", b"\0"),))
        assert file.sha1 == "040f06fd774092478d450774f5ba30c5da78acc8"
        assert tree["large"].sha1 == "30ae97492ce1da88d0e7117ace0a60a6f9e1e0bc"
        assert tree["link"].target == "target"
        assert stat.S_ISFIFO(tree["fifo"].mode)
        assert reader.previous_root() != probe.repository.manifest().root
        with pytest.raises(Failed, match="is not there"):
            Published(probe.repository, "/nowhere").read()


def test_merged() -> None:
    folder, file = _node(stat.S_IFDIR), _node(size=1)
    base: Tree = {**empty(), "a": folder, "a/x": file, "b": folder, "b/y": file}
    result = {**base, "a/new": file, "b/not-leased": file}
    del result["a/x"]
    present = {**base, "a/others": file}
    assert set(merged(base, result, present, "a")) == {"", "a", "a/new", "a/others", "b", "b/y"}


@pytest.mark.parametrize("seed", range(20))
def test_plain_changes_are_plain(seed: int) -> None:
    """What release 2.12 passes on: no other kinds of entries, none replaced by another kind, no owner changed alone."""
    maker = Maker(random.Random(seed), {}, plain=True)
    tree = empty()
    for _ in range(10):
        result = maker.edited(tree, "")
        assert result != tree
        for path, node in result.items():
            assert stat.S_IFMT(node.mode) in (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK)
            old = tree.get(path)
            if old is not None and path:
                assert stat.S_IFMT(old.mode) == stat.S_IFMT(node.mode)
                same = (old.mode, old.mtime, old.size, old.sha1) == (node.mode, node.mtime, node.size, node.sha1)
                assert not same or old == node
        tree = result
    assert all(inside(path, "") for path in marked(tree))


def test_snapshot_and_differences(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to("file")
    before = snapshot(tmp_path)
    assert differences(before, snapshot(tmp_path), nanoseconds=True) == []
    (tmp_path / "file").write_text("CONTENT")
    os.utime(tmp_path / "file", ns=(1, before["file"].mtime or 0))
    (tmp_path / "link").unlink()
    (tmp_path / "new").mkdir()
    found = differences(before, snapshot(tmp_path), nanoseconds=True)
    assert found[:2] == ["missing: link", "not to be there: new"]
    assert len(found) == 3
    assert found[2].startswith("file: sha1 is")


def test_only_small_disks_are_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "LARGEST", 1)
    with pytest.raises(NotApplicable, match="fills a storage of at most"), full(tmp_path):
        pass
    with pytest.raises(NotApplicable, match="--store"), full(tmp_path / "nowhere"):
        pass
    assert list(tmp_path.iterdir()) == []
