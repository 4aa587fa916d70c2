"""``cvmfs-gw serve`` and ``cvmfs-gw publish``, each in a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import socket
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cvmfs_gw.cli import main
from cvmfs_gw.client.gateway import GatewayClient
from cvmfs_gw.client.keys import read_key_file
from cvmfs_gw.client.reader import RepositoryReader
from cvmfs_gw.paths import SystemPaths
from tests.cli.support import Process, free_ports, run, running, until

FQRN = "cli.example.org"


@dataclass(frozen=True)
class World:
    """A server that runs."""

    root: Path
    port: int
    web_port: int
    process: Process

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.web_port}/cvmfs/{FQRN}"

    def arguments(self, target: str, source: Path | None, *options: str | Path) -> list[str]:
        servers = ("--gateway", self.gateway, "--stratum0", self.web)
        sources = () if source is None else (source,)
        return list(map(str, ("--root", self.root, "publish", target, *sources, *servers, *options)))

    def publish(self, target: str, source: Path | None, *options: str | Path) -> tuple[int, str, str]:
        """Publish from this process; exit code, output, errors."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(self.arguments(target, source, *options))
        return code, out.getvalue(), err.getvalue()

    @property
    def revision(self) -> int:
        with self.reader() as reader:
            return reader.head.revision

    @property
    def waiting(self) -> int:
        """How many wait for a lease."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=20) as reply:
            return int(float(re.search(rb"lease_waiters (\d+)", reply.read())[1]))  # type: ignore[index]

    def reader(self) -> RepositoryReader:
        public_keys = Path(SystemPaths(str(self.root)).key_file(FQRN, "pub")).read_bytes()
        return RepositoryReader(FQRN, self.web, public_keys)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("root")
    port, web_port = free_ports(2)
    assert run("cvmfs-gw", "mkfs", FQRN, root=root).returncode == 0
    ports = ("--port", str(port), "--web-port", str(web_port))
    with running("cvmfs-gw", "serve", "--host", "127.0.0.1", "--no-fsync", *ports, root=root) as process:
        process.wait_for("repositories http")
        yield World(root, port, web_port, process)
        assert process.stop() == 0, process.output
    assert "Traceback" not in process.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/tool").write_bytes(b"#!/bin/sh\n")
    (folder / "data").write_bytes(b"data" * 1000)
    return folder


def test_publish(world: World, folder: Path) -> None:
    done = run("cvmfs-gw", *world.arguments(f"{FQRN}/software/v1", folder, "--tag", "v1", "--description", "first"))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{FQRN}: revision " in done.stdout
    assert "3 new objects" in done.stdout
    with world.reader() as reader:
        assert reader.read("/software/v1/data") == b"data" * 1000
        assert reader.entry("/software/v1/bin/tool").mode & 0o777 == (folder / "bin/tool").stat().st_mode & 0o777
    code, out, _ = world.publish(f"{FQRN}/software/v1", folder, "-q")
    assert code == 0
    assert out == f"{FQRN}: nothing has changed, so revision 2 stays\n"


def test_operations(world: World, folder: Path, tmp_path: Path) -> None:
    """Several in one revision, in their order; said beforehand by a dry run, and in JSON."""
    top = f"{FQRN}/several"
    assert world.publish(top, folder, "--owner", "7:8")[0] == 0
    more = tmp_path / "more"
    more.mkdir()
    (more / "extra").write_bytes(b"extra")
    steps = ("--delete", "bin", "--add-at", more, "/", "--replace", more, "new/place", "--owner", "7:8")
    before = world.revision
    code, out, _ = world.publish(top, None, *steps, "--dry-run")
    assert code == 0
    assert [line for line in out.splitlines() if "several " not in line] == [
        "R /several/bin",
        "R /several/bin/tool",
        "A /several/extra",
        "A /several/new",
        "A /several/new/place",
        "A /several/new/place/extra",
        f"{len(out.splitlines()) - 1} changes; nothing was published",
    ]
    assert world.revision == before
    code, out, _ = world.publish(top, None, *steps, "--json", "--tag", "steps")
    assert code == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events if event["event"] != "sent"] == ["sending", "planned", "published"]
    assert (events[-1]["revision"], events[-1]["tag"], events[-1]["files_read"]) == (before + 1, "steps", 2)
    with world.reader() as reader:
        found = {path: (entry.uid, entry.gid) for path, entry in reader.walk("/several")}
    assert found.keys() == {f"/several/{name}" for name in ("data", "extra", "new", "new/place", "new/place/extra")}
    assert {owner for path, owner in found.items() if path != "/several/new"} == {(7, 8)}
    assert json.loads(world.publish(top, None, "--delete", "bin", "--json")[1])["event"] == "unchanged"
    nobody = ("--gateway", "http://127.0.0.1:1/api/v1")
    code, out, _ = world.publish(top, None, "--delete", "data", "--json", *nobody)
    reason = "no answer from http://127.0.0.1:1/api/v1: Connection refused"
    assert (code, json.loads(out)) == (3, {"event": "failed", "reason": reason, "exit_code": 3})


def test_terminated(world: World, folder: Path) -> None:
    """A publisher that is asked to stop gives its lease back."""
    client = GatewayClient(world.gateway, read_key_file(SystemPaths(str(world.root)).key_file(FQRN, "gw")))
    token = client.acquire(f"{FQRN}/ended")
    arguments = world.arguments(f"{FQRN}/ended", folder, "--wait", "60", "--json")
    with running("cvmfs-gw", *arguments, root=world.root) as process:
        until(lambda: world.waiting == 1)
        assert process.stop(signal.SIGTERM) == 130
    client.release(token)
    until(lambda: world.waiting == 0)
    client.release(client.acquire(f"{FQRN}/ended"))
    client.close()


@pytest.mark.parametrize("target", [f"{FQRN}", f"{FQRN}/", f"{FQRN}//s", f"{FQRN}/s/"])
def test_targets(world: World, folder: Path, target: str) -> None:
    """The whole repository, and a path however many slashes are around it."""
    assert world.publish(target, folder)[0] == 0
    with world.reader() as reader:
        assert reader.read("/s/data" if "s" in target.removeprefix(FQRN) else "/data") == b"data" * 1000


@pytest.mark.parametrize(
    "target", [f"{FQRN}/a//b", f"{FQRN}/../x", f"{FQRN}/a/./b", f"/{FQRN}/a", f"{FQRN}/" + "x" * 300, ""]
)
def test_targets_that_are_none(world: World, folder: Path, target: str) -> None:
    code, out, err = world.publish(target, folder)
    assert (code, out) == (1, "")
    assert err.startswith("cvmfs-gw: ")


def test_busy(world: World, folder: Path) -> None:
    client = GatewayClient(world.gateway, read_key_file(SystemPaths(str(world.root)).key_file(FQRN, "gw")))
    token = client.acquire(f"{FQRN}/busy")
    code, _, err = world.publish(f"{FQRN}/busy/deep", folder)
    client.release(token)
    client.close()
    assert code == 2
    assert "leased by somebody else" in err
    assert token not in err


def test_errors(world: World, folder: Path, tmp_path: Path) -> None:
    """Each with its exit code and one line that says what is wrong."""
    wrong = tmp_path / "wrong.gw"
    wrong.write_text("plain_text id secret\n")
    no_key = tmp_path / "no.pub"
    no_key.write_text("nothing")
    nowhere = f"http://127.0.0.1:{free_ports(1)[0]}"
    cases: list[tuple[int, str, Path, tuple[str | Path, ...]]] = [
        (1, FQRN, tmp_path / "missing", ()),
        (1, FQRN, wrong, ()),
        (1, FQRN, folder, ("--key", wrong)),
        (1, FQRN, folder, ("--key", tmp_path / "missing.gw")),
        (1, FQRN, folder, ("--pub", tmp_path / "missing.pub")),
        (1, "other.example.org", folder, ()),
        (1, FQRN, folder, ("--tag", "trunk")),
        (1, FQRN, folder, ("--tag", "two words")),
        (3, FQRN, folder, ("--gateway", f"{nowhere}/api/v1")),
        (3, FQRN, folder, ("--stratum0", f"http://127.0.0.1:{world.web_port}/cvmfs/missing.example.org")),
        (4, FQRN, folder, ("--pub", no_key)),
    ]
    for expected, target, source, options in cases:
        code, out, err = world.publish(target, source, *options)
        assert (code, out) == (expected, ""), (options, err)
        assert err.startswith("cvmfs-gw: "), err
        assert err.count("\n") == 1, err


def test_servers_answer(world: World) -> None:
    with urllib.request.urlopen(f"{world.gateway}/repos", timeout=20) as reply:
        listed = json.load(reply)
    assert FQRN in listed["data"]
    with urllib.request.urlopen(f"{world.web}/.cvmfspublished", timeout=20) as reply:
        assert reply.headers["Content-Type"] == "application/x-cvmfs"


def test_port_that_is_taken(world: World, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = ("--port", str(port), "--no-web")
        done = run("cvmfs-gw", "--root", tmp_path, "serve", "--host", "127.0.0.1", *ports)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(port) in done.stderr or "in use" in done.stderr


@pytest.mark.parametrize(("number", "more"), [(signal.SIGINT, ()), (signal.SIGTERM, ("--in-process",))])
def test_stop(tmp_path: Path, number: int, more: tuple[str, ...]) -> None:
    """Without a web server; a signal ends it well."""
    (port,) = free_ports(1)
    ports = ("--port", str(port), "--no-web", *more)
    assert main(["--root", str(tmp_path), "mkfs", FQRN]) == 0
    with running("cvmfs-gw", "--root", tmp_path, "serve", "--host", "127.0.0.1", *ports) as process:
        process.wait_for("gateway      http")
        assert process.stop(number) in (0, 130)
        assert "repositories http" not in process.output
        assert "Traceback" not in process.output
