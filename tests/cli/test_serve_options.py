"""What ``serve`` makes of its options before it serves."""

from __future__ import annotations

import argparse

import pytest

from cvmfs_gw.cli.serve import _assignment


@pytest.mark.parametrize(
    ("text", "pair"), [("A=b", ("A", "b")), ("A_1=", ("A_1", "")), ("A=1 hour=x", ("A", "1 hour=x"))]
)
def test_an_assignment(text: str, pair: tuple[str, str]) -> None:
    assert _assignment(text) == pair


@pytest.mark.parametrize("text", ["A", "=b", "a=b", "A B=c", 'A="b"', "A=$(id)", "A=`id`", "A=b\nC=d", "A=\\"])
def test_no_assignment(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not KEY=VALUE"):
        _assignment(text)
