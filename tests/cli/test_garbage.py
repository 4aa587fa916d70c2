"""How often garbage is looked for, while much is made and afterwards."""

from __future__ import annotations

import gc

from cvmfs_gw.cli.garbage import rare_collections


def test_rarely_for_a_while() -> None:
    before = gc.get_threshold()
    with rare_collections():
        assert gc.get_threshold()[0] > before[0]
    assert gc.get_threshold() == before
