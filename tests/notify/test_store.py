from __future__ import annotations

from pathlib import Path

import pytest

from cvmfs_notify.broker import Event
from cvmfs_notify.store import EventStore
from tests.notify.support import FQRN, OTHER, publication


def test_across_processes(tmp_path: Path) -> None:
    path = str(tmp_path / "events.db")
    store = EventStore(path)
    events = [Event(1, publication(1)), Event(2, publication(5, OTHER)), Event(3, publication(2))]
    for event in events:
        store.save([event])
    epoch = store.epoch
    # not closed: the process is killed
    again = EventStore(path)
    assert again.load() == events[1:]
    assert again.epoch == epoch != ""
    store.close()
    again.close()


def test_an_older_event_does_not_replace_a_newer() -> None:
    store = EventStore(None)
    store.save([Event(7, publication(3))])
    store.save([Event(6, publication(2))])
    assert store.load() == [Event(7, publication(3))]
    # made anew: a later event of an older revision
    store.save([Event(8, publication(1))])
    assert store.load() == [Event(8, publication(1))]
    store.close()


def test_a_file_that_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "events.db"
    path.write_bytes(b"no database" * 1000)
    store = EventStore(str(path))
    assert store.load() == []
    assert "put aside" in caplog.text
    assert (tmp_path / "events.db.broken").exists()
    store.save([Event(1, publication(1, FQRN))])
    store.close()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot open"):
        EventStore(str(tmp_path / "no" / "events.db"))
