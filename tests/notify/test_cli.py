"""``cvmfs-notify`` as a process: what people and service managers have of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_notify.cli import api_url, main
from cvmfs_notify.store import EventStore
from tests.notify.real import free_port, wait_for
from tests.notify.support import FQRN, UNKNOWN, Keys, RawClient, within

PROGRAM = [sys.executable, "-m", "cvmfs_notify"]


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A running server: its port, and its (parent's) process."""
    port = free_port()
    command = [*PROGRAM, "serve", "--config", str(folder / "none"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--state", str(folder / "state.db"), *options]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for("it answers", lambda: answers(port))
            yield port, process
        finally:
            if process.poll() is None:
                process.terminate()
            assert process.wait(30) == 0


def answers(port: int) -> bool:
    """Whether the port answers."""
    with contextlib.suppress(OSError):
        asyncio.run(_welcome(port))
        return True
    return False


async def _welcome(port: int) -> None:
    client = await RawClient.get(port, "/api/v1")
    assert client.status == 200
    await RawClient.close_all()


async def _publish(port: int, message: bytes) -> None:
    client = await RawClient.connect(port)
    head = f"POST /api/v1/notifications/publish HTTP/1.1\r\nHost: x\r\nContent-Length: {len(message)}\r\n\r\n"
    client.writer.write(head.encode() + message)
    await client.head()
    assert b'"ok"' in await within(client.reader.readexactly(int(client.headers["content-length"])))
    await RawClient.close_all()


def watch(port: int, *arguments: str) -> str:
    command = [*PROGRAM, "watch", f"http://127.0.0.1:{port}", *arguments, "--once"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize("options", [[], ["--in-process"]])
def test_serve_publish_watch(tmp_path: Path, keys: Keys, options: list[str]) -> None:
    with serving(tmp_path, *options) as (port, _):
        asyncio.run(_publish(port, keys.message(3)))
        line = watch(port, FQRN).split()
        assert line[1:3] == [FQRN, "3"]
    store = EventStore(str(tmp_path / "state.db"))
    assert [(event.fqrn, event.revision) for event in store.load()] == [(FQRN, 3)]
    store.close()
    with serving(tmp_path, *options) as (port, _):
        assert watch(port).split()[1:3] == [FQRN, "3"]


def test_a_worker_that_is_killed(tmp_path: Path, keys: Keys) -> None:
    with serving(tmp_path) as (port, process):
        asyncio.run(_publish(port, keys.message(3)))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        assert watch(port).split()[1:3] == [FQRN, "3"]


def test_relay(tmp_path: Path, keys: Keys) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with serving(tmp_path / "first") as (first, _):
        asyncio.run(_publish(first, keys.message(3, UNKNOWN)))
        with serving(tmp_path / "second", "--relay", f"http://127.0.0.1:{first}/api/v1") as (second, _):
            assert watch(second).split()[1:3] == [UNKNOWN, "3"]


def test_publish_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", "http://127.0.0.1:1", "http://127.0.0.1:1/cvmfs/a.b"]) == 3
    assert "unreachable" in capsys.readouterr().err


def test_urls() -> None:
    for url in ("http://h:1", "http://h:1/", "http://h:1/api/v1", "http://h:1/api/v1/"):
        assert api_url(url) == "http://h:1/api/v1"
