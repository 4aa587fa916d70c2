"""What is wrong with a target is said in one line, before anything is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.preflight import look
from conformance.probe import Probe
from conformance.servers import KEYS, OTHER, free_port, own
from conformance.target import Target
from conformance.wire import Key
from tests.conformance.broken import fake, rubbish


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with own() as found:
        yield found


def test_what_is_right(target: Target) -> None:
    look(target)
    assert next(Probe.sequence(target)).listing() == {}, "it leaves nothing behind"


def test_what_is_wrong(target: Target) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    stranger, wrong = Key("stranger", b"s"), Key("main", b"wrong")
    for changed, words in (
        (replace(target, gateway=nobody), "--gateway: nothing answers"),
        (replace(target, gateway=target.stratum0), "is no gateway"),
        (replace(target, fqrn="no.example.org"), "does not serve no.example.org, but conf.example.org, other"),
        (replace(target, key=stranger), "no key 'stranger' for conf.example.org"),
        (replace(target, key=wrong), "another secret for the key 'main'"),
        (replace(target, stratum0=nobody), "--stratum0: no repository can be read"),
        (replace(target, stratum0=f"{target.stratum0}/elsewhere"), "--stratum0: no repository can be read"),
    ):
        with pytest.raises(ValueError, match=words):
            look(changed)
    with fake(rubbish) as url, pytest.raises(ValueError, match="is no gateway"):
        look(replace(target, gateway=url))


def test_other_peoples_repositories_are_left_alone(target: Target, tmp_path: Path) -> None:
    other = replace(target, fqrn=OTHER, key=KEYS["foreign"])
    probe = next(Probe.sequence(other))
    probe.publish("/precious", lambda tree: tree.make_directories("/precious"))
    with pytest.raises(ValueError, match=r"holds what this suite has not made \(precious\).*--force"):
        look(other)
    look(other, force=True)
    key = tmp_path / "key"
    key.write_text(f"plain_text {other.key.id} {other.key.secret.decode()}\n")
    given = ["--gateway", other.gateway, "--stratum0", other.stratum0, "--repo", OTHER, "--key", str(key)]
    before = probe.repository.manifest().revision
    assert main([*given, "commits.reply"]) == 2
    assert probe.repository.manifest().revision == before
    assert main([*given, "--force", "commits.reply"]) == 0


def test_somebody_is_at_work(target: Target) -> None:
    probe = next(Probe.sequence(target))
    probe.acquire("")
    with pytest.raises(ValueError, match="somebody holds a lease on all"):
        look(target)
    probe.close()
    probe.acquire("/a/b")
    with pytest.raises(ValueError, match=r"somebody holds a lease on conf\.example\.org/a/b:"):
        look(target)
    look(target, force=True)
    probe.close()
