"""The deployed subscribers against our gateway. ``CVMFS_TEST_RESTARTS=20`` makes the long run of restarts."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.notify.real import Mount, Subscriber, need, relay_of, running_gateway, wait_for

RESTARTS = int(os.environ.get("CVMFS_TEST_RESTARTS", "4"))
LONG = 8
"""From so many restarts on they must lie apart: a deployed client gives up after ten failures within a minute."""


def test_swissknife_hears_every_commit(tmp_path: Path) -> None:
    need("cvmfs_swissknife")
    with running_gateway(tmp_path) as (gateway, stack):
        forever = Subscriber(gateway, tmp_path / "c.log", "-c")
        stack.callback(forever.stop)
        wait_for("it hears of the first revision", lambda: forever.revisions() == [1])
        later = Subscriber(gateway, tmp_path / "m.log", "-m", "2")
        stack.callback(later.stop)
        for revision in range(2, 12):
            assert gateway.publish() == revision
            wait_for("it hears of the commit", lambda revision=revision: forever.revisions()[-1] == revision, 2)  # type: ignore[misc]
        assert later.process.wait(5) == 0
        assert later.revisions() == [3]
        forever.stop()
        assert forever.revisions() == list(range(1, 12))
        assert "Retrying" not in forever.text()


def test_swissknife_publishes_after_us(tmp_path: Path) -> None:
    need("cvmfs_swissknife")
    with running_gateway(tmp_path) as (gateway, stack):
        subscriber = Subscriber(gateway, tmp_path / "c.log", "-c")
        stack.callback(subscriber.stop)
        wait_for("it hears of the first revision", lambda: subscriber.revisions() == [1])
        publish = ["cvmfs_swissknife", "notify", "-p", "-u", gateway.url, "-r", gateway.stratum0]
        assert subprocess.run(gateway.in_namespace(*publish), capture_output=True).returncode == 0
        gateway.publish()
        assert subprocess.run(gateway.in_namespace(*publish), capture_output=True).returncode == 0
        wait_for("it hears of the commit", lambda: subscriber.revisions() == [1, 2])
        assert "/notifications/publish" in gateway.log.read_text()


def test_a_mounted_client_sees_commits(tmp_path: Path) -> None:
    need("cvmfs2", "fusermount3")
    with running_gateway(tmp_path) as (gateway, stack):
        mount = Mount(gateway, tmp_path / "client")
        stack.callback(mount.close)
        times = []
        for _ in range(int(os.environ.get("CVMFS_TEST_COMMITS", "10"))):
            revision = gateway.publish()
            times.append(wait_for("the mount shows it", lambda revision=revision: mount.content() == revision, 5))  # type: ignore[misc]
        print("seconds from the reply to the content in the mount:", [round(t, 2) for t in sorted(times)])
        assert max(times) < 2
        for _ in range(20):
            revision = gateway.publish()
        wait_for("it ends on the newest", lambda: mount.content() == revision, 5)
        assert mount.heard() == sorted(mount.heard())
        assert "could not decode" not in mount.log.read_text()


def test_bursts_end_on_the_newest(tmp_path: Path) -> None:
    """Twenty revisions within a second, three times."""
    need("cvmfs_swissknife", "cvmfs2", "fusermount3")
    with running_gateway(tmp_path) as (gateway, stack):
        mount = Mount(gateway, tmp_path / "client")
        stack.callback(mount.close)
        subscriber = Subscriber(gateway, tmp_path / "c.log", "-c")
        stack.callback(subscriber.stop)
        wait_for("it hears of the first revision", lambda: subscriber.revisions() == [1])
        for burst in range(3):
            for number in range(1, 21):
                due = time.monotonic() + 0.05
                newest = 1 + 20 * burst + number
                gateway.send(gateway.write_manifest(newest))
                time.sleep(max(0.0, due - time.monotonic()))
            wait_for("the subscriber ends on it", lambda newest=newest: subscriber.revisions()[-1:] == [newest], 5)  # type: ignore[misc]
            wait_for("the mount ends on it", lambda newest=newest: mount.heard()[-1:] == [newest], 5)  # type: ignore[misc]
        assert subscriber.revisions() == sorted(set(subscriber.revisions()))
        assert "Retrying" not in subscriber.text()
        print("of 60 revisions heard:", len(subscriber.revisions()), "and in the mount", len(mount.heard()))


def test_nobody_is_lost_by_restarts(tmp_path: Path) -> None:
    need("cvmfs_swissknife", "cvmfs2", "fusermount3")
    with running_gateway(tmp_path) as (gateway, stack):
        mount = Mount(gateway, tmp_path / "client")
        stack.callback(mount.close)
        subscriber = Subscriber(gateway, tmp_path / "c.log", "-c")
        stack.callback(subscriber.stop)
        wait_for("it hears of the first revision", lambda: subscriber.revisions() == [1])
        for number in range(RESTARTS):
            started = time.monotonic()
            gateway.restart_worker(kill=bool(number % 2))
            revision = gateway.publish()
            wait_for("the subscriber hears", lambda revision=revision: subscriber.revisions()[-1:] == [revision], 5)  # type: ignore[misc]
            wait_for("the mount shows it", lambda revision=revision: mount.content() == revision, 5)  # type: ignore[misc]
            if RESTARTS >= LONG:
                time.sleep(max(0.0, 10.5 - (time.monotonic() - started)))
        print(subscriber.text().count("Retrying"), "reconnects; heard", subscriber.revisions()[-1])


@pytest.mark.parametrize("kill", [False, True])
def test_what_was_published_without_a_gateway_is_heard_on_return(tmp_path: Path, kill: bool) -> None:
    """The manifest changes while there is no worker, or without it knowing."""
    need("cvmfs_swissknife")
    with running_gateway(tmp_path) as (gateway, stack):
        subscriber = Subscriber(gateway, tmp_path / "c.log", "-c")
        stack.callback(subscriber.stop)
        wait_for("it hears of the first revision", lambda: subscriber.revisions() == [1])
        gateway.write_manifest(2)
        gateway.restart_worker(kill=kill)
        wait_for("it hears of the new one", lambda: subscriber.revisions() == [1, 2])


def test_the_stand_alone_server(tmp_path: Path) -> None:
    """A relay between gateway and subscriber, restarted by a signal and by a kill."""
    need("cvmfs_swissknife")
    with running_gateway(tmp_path) as (gateway, stack):
        edge = stack.enter_context(relay_of(gateway, tmp_path))
        subscriber = Subscriber(gateway, tmp_path / "c.log", "-c", url=edge.url)
        stack.callback(subscriber.stop)
        wait_for("it hears of the first revision", lambda: subscriber.revisions() == [1])
        for number in (signal.SIGUSR2, signal.SIGKILL):
            old = edge.worker
            os.kill(old if number == signal.SIGKILL else edge.parent, number)
            wait_for("there is a new worker", lambda old=old: edge.worker not in (0, old))  # type: ignore[misc]
            revision = gateway.publish()
            wait_for("it hears", lambda revision=revision: subscriber.revisions()[-1:] == [revision], 10)  # type: ignore[misc]
        assert subscriber.revisions() == [1, 2, 3]
