"""Pins of copies: seen while they are held, gone with their owner, and never half-made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cvmfs_gw.care.pins import pinned, read_pins
from cvmfs_gw.engine.errors import StorageError
from cvmfs_gw.engine.locking import collecting, pins_folder
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix

FQRN = "pins.example.org"
NAMES = [ContentHash.of(b"%d" % algorithm, algorithm, Suffix.CATALOG) for algorithm in Algorithm]


@pytest.fixture
def paths(tmp_path: Path) -> SystemPaths:
    return SystemPaths(str(tmp_path))


def test_held_and_let_go(paths: SystemPaths) -> None:
    assert read_pins(paths, FQRN) == {}
    with pinned(paths, FQRN, NAMES), pinned(paths, FQRN, NAMES[:1]):
        assert sorted(read_pins(paths, FQRN).values()) == [NAMES[:1], NAMES]
        assert len(read_pins(paths, FQRN)) == 2, "looking does not remove them"
        with collecting(paths, FQRN) as alone:
            assert alone, "the collector and copies do not keep each other away"
            with collecting(paths, FQRN) as another:
                assert not another
    assert read_pins(paths, FQRN) == {}
    assert os.listdir(pins_folder(paths, FQRN)) == []


def test_owner_was_killed(paths: SystemPaths) -> None:
    script = (
        "import os, sys; from cvmfs_gw.care.pins import pinned; from cvmfs_gw.paths import SystemPaths\n"
        "with pinned(SystemPaths(sys.argv[1]), sys.argv[2], []): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, paths.root, FQRN], check=False, timeout=60)
    assert len(os.listdir(pins_folder(paths, FQRN))) == 1
    assert read_pins(paths, FQRN) == {}
    assert os.listdir(pins_folder(paths, FQRN)) == []


def test_what_cannot_be_known(paths: SystemPaths) -> None:
    """A collector that cannot tell what copies need must not go on."""
    with pinned(paths, FQRN, NAMES):
        (name,) = os.listdir(pins_folder(paths, FQRN))
        with open(os.path.join(pins_folder(paths, FQRN), name), "a", encoding="ascii") as file:
            file.write("what\n")
        with pytest.raises(StorageError, match="copies"):
            read_pins(paths, FQRN)


def test_failing_leaves_nothing(paths: SystemPaths) -> None:
    def fail() -> object:
        raise OSError(28, "no space left on device")

    with pytest.raises(OSError, match="no space"), pinned(paths, FQRN, (fail() for _ in "x")):  # type: ignore[misc]
        pass
    assert os.listdir(pins_folder(paths, FQRN)) == []
