"""The whole gateway in processes of its own: commits notify, and nobody is lost by a restart of the worker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import aiohttp
import pytest

from cvmfs_notify.authorization import webhook_signature
from cvmfs_notify.client import Subscriber
from cvmfs_notify.messages import Activity
from cvmfs_objstore.formats.manifest import SignedManifest
from tests.notify.real import FQRN, RealGateway, running_gateway, wait_for
from tests.notify.support import within


def revision(message: bytes) -> int:
    return SignedManifest.parse(Activity.parse(message).manifest).manifest.revision


async def test_commits_and_restarts(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as (gateway, _):
        async with aiohttp.ClientSession() as session:
            messages = Subscriber(session, gateway.url, FQRN).messages()
            # that of the start comes from the disk
            assert revision(await within(anext(messages))) == 1
            for kill in (False, True):
                published = await asyncio.to_thread(gateway.publish)
                assert revision(await within(anext(messages))) == published
                await asyncio.to_thread(gateway.restart_worker, kill=kill)
            # the manifest that was published while nobody knew
            os.kill(gateway.worker, signal.SIGKILL)
            gateway.write_manifest(published + 1)
            assert revision(await within(anext(messages))) == published + 1
            await messages.aclose()


def test_connections_wait_while_there_is_no_worker(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as (gateway, _):
        for kill in (True, False):
            gateway.restart_worker(kill=kill)
            # never refused, whatever moment it is
            assert all(gateway.is_up() for _ in range(20))


def test_webhooks(tmp_path: Path) -> None:
    heard: list[tuple[bytes, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append((body, self.headers["X-CVMFS-Signature-256"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as target:
        thread = threading.Thread(target=target.serve_forever)
        thread.start()
        config = tmp_path / "root/etc/cvmfs/notify/config.json"
        config.parent.mkdir(parents=True)
        url = f"http://127.0.0.1:{target.server_address[1]}/"
        config.write_text(json.dumps({"webhooks": [{"url": url, "secret": "s"}]}))
        with running_gateway(tmp_path) as (gateway, _):
            published = gateway.publish()
            wait_for("the target hears", lambda: json.loads(heard[-1][0])["revision"] == published if heard else False)
            body, signature = heard[-1]
            assert signature == webhook_signature(b"s", body)
        target.shutdown()
        thread.join()


@pytest.mark.parametrize("content", ["{", '{"webhooks": 5}'])
def test_a_configuration_that_cannot_be_used(tmp_path: Path, content: str) -> None:
    """The parent ends with the worker's exit code, instead of starting it for ever."""
    config = tmp_path / "etc/cvmfs/notify/config.json"
    config.parent.mkdir(parents=True)
    config.write_text(content)
    command = [sys.executable, "-m", "cvmfs_gw", "--root", str(tmp_path), "serve", "--port", "0", "--no-web"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "config.json" in done.stderr


_AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="gateway")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("options", [[], ["--in-process"]])
def test_socket_activation(tmp_path: Path, options: list[str]) -> None:
    """The service manager listens, on a port that the configuration does not know."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        access = tmp_path / "etc/cvmfs/gateway/repo.json"
        access.parent.mkdir(parents=True)
        access.write_text('{"version": 2, "repos": []}')
        command = [sys.executable, "-m", "cvmfs_gw", "--root", str(tmp_path), "serve", "--no-web", *options]
        process = subprocess.Popen(
            [sys.executable, "-c", _AS_SYSTEMD, str(listener.fileno()), *command],
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1", timeout=60) as reply:
            assert "welcome" in json.load(reply)
        process.terminate()
        assert process.wait(30) == 0


def test_as_the_first_process_of_a_container(tmp_path: Path) -> None:
    """Signals reach it, and its worker ends with it."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True).returncode:
        pytest.skip("cannot make a process namespace")
    gateway = RealGateway(tmp_path)
    command = [sys.executable, "-m", "cvmfs_gw", "--root", gateway.paths.root, "serve", "--host", "127.0.0.1"]
    command += ["--port", str(gateway.port), "--no-web"]
    space = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    process = subprocess.Popen([*space, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for("it answers", gateway.is_up)
    (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (worker,) = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    assert gateway.is_up()
    os.kill(int(first), signal.SIGTERM)
    assert process.wait(30) == 0
