"""Recorded publishers against this gateway: the same requests get the same replies and make the same repository.

The sessions were recorded by :mod:`tests.traffic.record`; no CernVM-FS program is needed here. Only what cannot be the
same is made anew: tokens are those that this server grants, and requests are signed again.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from conformance.machines.snapshot import Tree, differences, snapshot
from conformance.session import Exchange
from cvmfs_gw.engine.create import write_whitelist
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.gateway.authorization import sign
from cvmfs_gw.paths import SystemPaths
from tests.traffic.repository import StoredRepository
from tests.traffic.session import FIXTURES, Session

_STARTS_IN: Final = 30.0
_DURATION: Final = re.compile(r"(\d+h)?(\d+m)?\d+(\.\d+)?s")
_HASH: Final = re.compile(r"[0-9a-f]{40}(-rmd160|-shake128)?C?")
_CHANGING: Final = {"time_remaining": _DURATION, "root_hash": _HASH, "tag_name": re.compile(r"(generic-.*Z)?")}
"""Parts of replies that are not the same twice, and what they look like."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Gateway:
    """A running gateway, and the tokens that it granted in place of the recorded ones."""

    def __init__(self, port: int, web_port: int, session: Session) -> None:
        self.url = f"http://127.0.0.1:{port}/api/v1"
        self.stratum0 = f"http://127.0.0.1:{web_port}/cvmfs/{session.fqrn}"
        self._port, self._key = port, session.key
        self._tokens: dict[str, str] = {}

    def ask(self, exchange: Exchange) -> tuple[int, dict[str, Any]]:
        """Send a recorded request as it must be now; returns status and reply."""
        path, text = self._now(exchange.path), self._now(exchange.text).encode()
        headers = {name: value for name, value in exchange.headers.items() if name != "Expect"}
        if exchange.signed:
            signed = {"body": text, "head": text, "token": path.rpartition("/")[2].encode()}[exchange.signed]
            headers["Authorization"] = sign(self._key, signed)
        if exchange.pack is not None:
            headers["Message-Size"] = str(len(text))
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(exchange.method, path, text + (exchange.pack or b""), headers)
            reply = connection.getresponse()
            content = json.loads(reply.read())
        finally:
            connection.close()
        assert isinstance(content, dict)
        if "session_token" in exchange.reply and "session_token" in content:
            self._tokens[exchange.reply["session_token"]] = content["session_token"]
        return reply.status, content

    def _now(self, text: str) -> str:
        for old, new in self._tokens.items():
            text = text.replace(old, new)
        return text


@contextmanager
def running(session: Session, root: Path) -> Iterator[Gateway]:
    """The gateway as its users start it, on the repository as it was when the recording began."""
    session.unpack(root)
    port, web_port = _free_port(), _free_port()
    where = ("--host", "127.0.0.1", "--port", str(port), "--web-port", str(web_port))
    log = root / "log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            _program(root, "serve", "--no-fsync", *where),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={name: value for name, value in os.environ.items() if not name.startswith(("CVMFS_", "TEST_CVMFS_"))},
        )
    try:
        deadline = time.monotonic() + _STARTS_IN
        while not (_listens(port) and _listens(web_port)):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.01)
        yield Gateway(port, web_port, session)
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        print(log.read_text())


def _program(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "cvmfs_gw", "--root", str(root), *arguments]


def _listens(port: int) -> bool:
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def assert_same(recorded: dict[str, Any], reply: dict[str, Any], ahead: int) -> None:
    """*reply* says what was *recorded*. It may say more than that: members that publishers do not know do no harm.

    The repository is so many revisions *ahead* of the recorded one.
    """
    assert set(recorded) <= set(reply)
    for name, value in recorded.items():
        if name == "session_token":
            assert isinstance(reply[name], str)
        elif name in ("revision", "final_revision"):
            assert reply[name] == value + ahead, name
        elif name in _CHANGING:
            assert _CHANGING[name].fullmatch(value), (name, value)
            assert _CHANGING[name].fullmatch(reply[name]), (name, reply[name])
        else:
            assert reply[name] == value, name


def _replay(session: Session, gateway: Gateway, ahead: int) -> None:
    for exchange in session.exchanges:
        status, reply = gateway.ask(exchange)
        assert status == exchange.status, (exchange.method, exchange.path, reply)
        assert_same(dict(exchange.reply), reply, ahead)
        if "final_revision" in reply:
            # A reply can be lost on its way: who asks again gets it again, and nothing else happens.
            assert gateway.ask(exchange) == (status, reply)


def _check(root: Path, session: Session, expected: Tree, ahead: int) -> None:
    repository = StoredRepository(root, session.fqrn)
    assert repository.manifest.revision == session.revision + ahead
    assert repository.nested == set(session.catalogs)
    wrong = differences(expected, repository.tree)
    assert not wrong, "\n".join(wrong)


# Those with subscribers are the conformance suite's.
_PATHS: Final = [path for path in sorted(FIXTURES.glob("*.zip")) if not Session.load(path).streams]
_EACH: Final = pytest.mark.parametrize("path", _PATHS, ids=lambda path: path.stem)


@_EACH
def test_replay(path: Path, tmp_path: Path) -> None:
    """On the very revision that the publishers worked on."""
    session = Session.load(path)
    with running(session, tmp_path) as gateway:
        _replay(session, gateway, 0)
    _check(tmp_path, session, session.tree, 0)


@_EACH
def test_replay_on_a_later_revision(path: Path, tmp_path: Path) -> None:
    """After somebody else's commit, of which the publishers knew nothing: all that they send has to be merged."""
    session = Session.load(path)
    root, source = tmp_path / "root", tmp_path / "source"
    (source / "below").mkdir(parents=True)
    (source / "below/file").write_text("somebody else's")
    with running(session, root) as gateway:
        _renew_whitelist(root, session.fqrn)
        target = ("--gateway", gateway.url, "--stratum0", gateway.stratum0, f"{session.fqrn}/elsewhere", str(source))
        subprocess.run(_program(root, "publish", *target), check=True, capture_output=True, timeout=60)
        _replay(session, gateway, 1)
    others = {f"elsewhere/{path}".rstrip("/"): node for path, node in snapshot(source).items()}
    _check(root, session, session.tree | others, 1)


def _renew_whitelist(root: Path, fqrn: str) -> None:
    """Our own publisher, unlike the recorded ones, looks at the whitelist, and the recorded one is out of date."""
    write_whitelist(Repository(fqrn, SystemPaths(str(root)), {}), time.time())


def test_there_is_something_to_replay() -> None:
    sessions = [Session.load(path) for path in FIXTURES.glob("*.zip")]
    assert len(sessions) >= 10
    assert sum(path.stat().st_size for path in FIXTURES.glob("*.zip")) < 3_000_000
    requests = {(exchange.method, exchange.path.partition("<")[0]) for s in sessions for exchange in s.exchanges}
    assert {("POST", "/api/v1/leases"), ("POST", "/api/v1/leases/"), ("DELETE", "/api/v1/leases/")} <= requests
    assert any(exchange.reply["status"] == "path_busy" for s in sessions for exchange in s.exchanges)


@_EACH
def test_a_recording_survives_being_saved(path: Path, tmp_path: Path) -> None:
    session = Session.load(path)
    session.save(tmp_path / "again.zip")
    assert Session.load(tmp_path / "again.zip") == session
