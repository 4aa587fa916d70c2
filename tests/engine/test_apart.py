from __future__ import annotations

import logging
import operator
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from cvmfs_gw.engine.apart import NICE, ProcessEnded, call_apart
from cvmfs_gw.engine.errors import LimitExceeded, MergeError

WAITS = """
import subprocess, time
from cvmfs_gw.engine import apart

class Seen(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        print(self.pid, flush=True)

subprocess.Popen = Seen
apart.call_apart(time.sleep, 60)
"""


def test_result() -> None:
    assert call_apart(operator.add, "a", "b") == "ab"
    assert call_apart(os.getpid) != os.getpid()
    assert call_apart(os.nice, 0) == min(os.nice(0) + NICE, 19)


def test_error() -> None:
    with pytest.raises(ValueError, match="invalid literal") as caught:
        call_apart(int, "x")
    assert "wanted.function" in caught.value.__notes__[0]


@pytest.mark.parametrize("make", [LimitExceeded, MergeError])
def test_errors_of_the_engine(make: Callable[[str], Exception]) -> None:
    """As what they are, and with what they say."""
    error = call_apart(make, "what is wrong")
    assert type(error) is make
    assert str(error) == "what is wrong"


def test_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        call_apart(logging.info, "%d entries", 3)
        call_apart(logging.debug, "details")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("INFO", "3 entries")]


def test_killed() -> None:
    with pytest.raises(ProcessEnded, match="status 3"):
        call_apart(os._exit, 3)
    with pytest.raises(ProcessEnded, match="status -9"):
        call_apart(signal.raise_signal, signal.SIGKILL)


def test_asked_to_end() -> None:
    """That is said to whoever started it, who may wish to see it through."""
    assert call_apart(signal.raise_signal, signal.SIGTERM) is None


def test_ends_with_whoever_started_it() -> None:
    with subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        descriptor = os.pidfd_open(int(process.stdout.readline()))
        begun = time.monotonic()
        process.kill()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(30_000)
        assert time.monotonic() - begun < 30
        os.close(descriptor)
