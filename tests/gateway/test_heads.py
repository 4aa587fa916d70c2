from __future__ import annotations

import asyncio
import threading

import pytest

from cvmfs_gw.gateway import heads as module
from cvmfs_gw.gateway.heads import Head, Heads
from tests.gateway.support import FQRN, NEW, OTHER


class Disk:
    """Counts the looks at it; each finds the revision of its number, and may have to wait for a gate."""

    def __init__(self) -> None:
        self.looks: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def look(self, fqrn: str) -> Head | None:
        self.looks.append(fqrn)
        revision = len(self.looks)
        self.begun.set()
        assert self.gate.wait(20)
        return Head(revision, NEW)


async def test_one_look_serves_all_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH_S", 1000.0)
    disk = Disk()
    heads = Heads(disk.look)
    assert [await heads.get(fqrn) for fqrn in (FQRN, FQRN, OTHER)] == [Head(1, NEW), Head(1, NEW), Head(2, NEW)]
    monkeypatch.setattr(module, "FRESH_S", 0.0)
    assert await heads.get(FQRN) == Head(3, NEW)


async def test_what_was_read_before_a_move_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH_S", 1000.0)
    disk = Disk()
    heads = Heads(disk.look)
    await heads.get(FQRN)
    heads.moved(FQRN)
    disk.gate.clear()
    disk.begun.clear()
    slow = asyncio.create_task(heads.get(FQRN))
    await asyncio.to_thread(disk.begun.wait, 20)
    heads.moved(FQRN)
    disk.gate.set()
    assert await slow == Head(2, NEW)
    assert await heads.get(FQRN) == Head(3, NEW)


async def test_a_head_that_cannot_be_read_is_none() -> None:
    assert await Heads(dict[str, Head]().__getitem__).get(FQRN) is None
