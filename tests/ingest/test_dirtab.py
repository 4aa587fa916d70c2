"""Rules of ``.cvmfsdirtab``."""

from __future__ import annotations

import pytest

from cvmfs_gw.ingest.dirtab import Dirtab
from cvmfs_gw.ingest.errors import BadConfiguration

TEXT = r"""
# releases
/software/releases/*
  /data/runs/run-????/
/odd\*name/a\?
/a//b

! *.svn
!*/.git
! /software/releases/old*
"""


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/software/releases/1.0", True),
        ("/software/releases/.hidden", True),
        ("/software/releases", False),
        ("/software/releases/1.0/lib", False),
        ("/software/releases/x.svn", False),
        ("/software/releases/.git", False),
        ("/software/releases/old-1", False),
        ("/data/runs/run-0001", True),
        ("/data/runs/run-001", False),
        ("/data/runs/run-00/1", False),
        ("/odd*name/a?", True),
        ("/oddXname/ab", False),
        ("/a/b", True),
        ("/software/releases/new\nline", True),
    ],
)
def test_rules(path: str, wanted: bool) -> None:
    assert Dirtab.parse(TEXT.splitlines())(path) is wanted


def test_exceptions_reach_below_what_they_name() -> None:
    """There a star is also a slash."""
    found = Dirtab.parse(["/a/*", "/a/*/*", "! /a/not*"])
    assert [found(path) for path in ("/a/b/c", "/a/not/c", "/a/nothing")] == [True, False, False]


def test_nothing() -> None:
    assert not Dirtab.parse(["", "# /a"])("/a")


@pytest.mark.parametrize("line", ["relative/*", "*", "/", "! /", "!", "/a\\b", "/a\\"])
def test_rules_that_make_no_sense(line: str) -> None:
    with pytest.raises(BadConfiguration):
        Dirtab.parse([line])


def test_yes_and_no() -> None:
    with pytest.raises(BadConfiguration, match="both yes and no"):
        Dirtab.parse(["/a/*", "! /a/*/"])
