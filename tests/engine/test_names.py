"""What a repository may be called."""

from __future__ import annotations

import pytest

from cvmfs_gw.engine.errors import ConfigurationError
from cvmfs_gw.engine.names import check_fqrn


@pytest.mark.parametrize("fqrn", ["a.b", "software.example.org", "x-1.y_2.z3", "A.Example.org"])
def test_names(fqrn: str) -> None:
    assert check_fqrn(fqrn) == fqrn


@pytest.mark.parametrize(
    "fqrn",
    ["", "a", "a.", ".a", "a..b", "a/b.c", "../a.b", "a.b\n", "a b.c", "-a.b", "ä.b", "a.b/", "a." + "b" * 64, "\0.a"],
)
def test_no_names(fqrn: str) -> None:
    with pytest.raises(ConfigurationError, match="not a fully qualified"):
        check_fqrn(fqrn)
