"""The suite itself: its cases, its reports, its recorder, its proxy and its command line."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from conformance import known, registry
from conformance.bench.measure import Job, measure, render
from conformance.chaos import Fault, chaos
from conformance.cli import main
from conformance.gateway import Gateway
from conformance.model import Case, Report, Verdict
from conformance.options import dump, load
from conformance.outcomes import Deviates, Failed, NotApplicable, expect
from conformance.pack import Pack
from conformance.probe import Probe, accepted, restart
from conformance.recorder import recording
from conformance.replay import Player
from conformance.report import files
from conformance.report.junit import junit
from conformance.report.page import page
from conformance.runner import run
from conformance.servers import KEYS, own
from conformance.session import SHIPPED, Exchange, Session, load_all
from conformance.stream import Notifications
from conformance.target import Target
from conformance.websocket import WebSocketSubscriber
from conformance.wire import Key
from tests.conformance.broken import fake, refuse


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with own() as found:
        yield found


def test_cases() -> None:
    cases = registry.all_cases()
    assert len(cases) >= 150
    assert {case.group for case in cases} == set(registry.GROUPS)
    assert len({case.requirement for case in cases}) == len(cases), "requirements are distinct"
    assert all(case.requirement and case.source for case in cases)


def test_known_faults_are_of_cases() -> None:
    ids = [case.id for case in registry.all_cases()]
    for name in known.REFERENCE_2_12:
        assert any(id == name or id.startswith(name + ".") for id in ids), name


def test_selection() -> None:
    assert {case.group for case in registry.select(["tags"])} == {"tags"}
    assert [case.id for case in registry.select(["leases.grant"])] == ["leases.grant"]
    with pytest.raises(ValueError, match="no such case"):
        registry.select(["nothing"])


def _raise(error: BaseException | None) -> Case:
    def function(probe: Probe) -> None:
        if error is not None:
            raise error

    return Case(f"leases.{type(error).__name__}", "<something> & more", "somewhere", function)


TARGET = Target("http://127.0.0.1:9", "http://127.0.0.1:9/cvmfs", "a.example.org", Key("k", b"s"))


def _report() -> Report:
    errors = [
        None,
        Failed("bad <b>\0"),
        Deviates("sound"),
        NotApplicable("nothing there"),
        OSError("gone"),
        ZeroDivisionError(),
    ]
    return run(TARGET, [_raise(error) for error in errors], known={"leases.Failed": "cvmfs#1"})


def test_verdicts() -> None:
    report = _report()
    found = [result.verdict for result in report.results]
    assert found == [
        Verdict.PASS,
        Verdict.FAIL,
        Verdict.DEVIATES,
        Verdict.NOT_APPLICABLE,
        Verdict.FAIL,
        Verdict.FAIL,
    ]
    assert [result.id for result in report.unexpected] == ["leases.OSError", "leases.ZeroDivisionError"]
    assert "ZeroDivisionError" in report.results[-1].evidence


def test_reports(tmp_path: Path) -> None:
    report = _report()
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report.to_json()))
    assert files.read(path) == [report]
    tree = ElementTree.fromstring(junit([report, replace(report, target="another")]))
    assert (tree.get("tests"), tree.get("failures")) == ("12", "6")
    assert [(suite.get("name"), suite.get("failures")) for suite in tree] == [(TARGET.gateway, "3"), ("another", "3")]
    assert len({(case.get("classname"), case.get("name")) for case in tree.iter("testcase")}) == 12
    text = page([report, report])
    assert "bad &lt;b&gt;" in text
    assert "https://github.com/cvmfs/cvmfs/issues/1'" in text
    assert not any(word in text for word in ("src=", "<link", "@import", "url(")), "there is nothing to load"
    main(["compare", str(path), str(path), "--html", str(tmp_path / "page.html"), "--markdown", str(tmp_path / "md")])
    assert (tmp_path / "page.html").read_text() == text
    tables = (tmp_path / "md").read_text()
    assert "| cases | 6 | 6 |" in tables
    assert "| [#1](https://github.com/cvmfs/cvmfs/issues/1) | `leases.Failed` |" in tables
    assert "| not known before | `leases.OSError`, `leases.ZeroDivisionError` |" in tables
    assert main(["compare", str(path)]) == 2
    path.write_text("{}")
    assert main(["compare", str(path), "--html", str(tmp_path / "page.html")]) == 2


def test_the_last_requests_are_evidence(target: Target) -> None:
    tokens: list[str] = []

    def wrong(probe: Probe) -> None:
        token = probe.acquire("/a")
        tokens.append(token)
        probe.repository.read(".cvmfspublished")
        accepted(probe.gateway.payload(token, Pack.of([])), "payload")
        accepted(probe.gateway.drop(token + "x"), "drop")

    case = Case("leases.wrong", "x", "x", wrong)
    (result,) = run(target, [case]).results
    said = result.requests.splitlines()
    assert said[0].startswith('POST /api/v1/leases {"path": "conf.example.org/a"')
    assert said[2] == "GET /cvmfs/conf.example.org/.cvmfspublished"
    assert re.fullmatch(r"  HTTP 200 \([\d,]+ bytes\)", said[3])
    assert re.fullmatch(r"DELETE /api/v1/leases/\w{4}\.\.\.", said[6])
    assert '"invalid lease"' in said[7]
    assert tokens[0][:8] not in result.requests
    assert re.search(r'"session_token":"\w{4}\.\.\.', said[1])
    report = replace(_report(), results=(result,))
    assert "The last requests" in page([report])
    assert "DELETE /api/v1/leases/" in junit([report])
    assert run(target, [Case("leases.right", "x", "x", lambda probe: None)]).results[0].requests == ""


def test_what_was_tried_before_an_interrupt_is_reported(tmp_path: Path) -> None:
    cases = [_raise(None), _raise(KeyboardInterrupt()), _raise(Failed("never tried"))]
    report = run(TARGET, cases)
    assert [result.verdict for result in report.results] == [Verdict.PASS]
    assert report.was_interrupted
    assert report.cut == "interrupted after 1 of 3 cases"
    assert report.cut in page([report])


def test_a_gateway_that_is_gone_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not tried hundreds of times more; with a command to start it, that is tried."""
    monkeypatch.setattr("conformance.runner._COMES_BACK_S", 0.0)
    never = _raise(Failed("never tried"))
    with ExitStack() as stack:
        url = stack.enter_context(fake(refuse))
        kills = Case("leases.kills", "it ends", "somewhere", lambda probe: _fail(stack.close))
        report = run(replace(TARGET, gateway=url), [kills, never])
    assert [result.id for result in report.results] == ["leases.kills"]
    assert report.cut == "stopped after 1 of 2 cases: after leases.kills nothing answers any more"
    with ExitStack() as stack:
        url = stack.enter_context(fake(refuse))
        kills = Case("leases.kills", "it ends", "somewhere", lambda probe: _fail(stack.close))
        report = run(replace(TARGET, gateway=url, restart_command="false"), [kills, never])
    assert report.cut.startswith("stopped after 1 of 2 cases: the restart command failed")


def test_restart_commands_are_for_a_shell(tmp_path: Path) -> None:
    restart(f"echo stopped > {tmp_path}/said; sleep 30 & echo $! > {tmp_path}/pid")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert (tmp_path / "said").read_text() == "stopped\n"
    with pytest.raises(Failed, match="the restart command failed: no such service"):
        restart("echo no such service; exit 3")


def _fail(first: Callable[[], object]) -> None:
    first()
    raise Failed("after that")


def test_what_is_late_is_tried_again() -> None:
    tries: list[int] = []

    def late(probe: Probe) -> None:
        tries.append(1)
        expect(len(tries) > 1, "late")

    cases = [Case(f"{group}.late", "in time", "people wait", late) for group in ("timing", "leases")]
    verdicts = [result.verdict for result in run(TARGET, cases[:1]).results]
    assert verdicts == [Verdict.PASS]
    tries.clear()
    assert run(TARGET, cases[1:]).unexpected


def test_destructive_cases_are_off() -> None:
    case = Case("leases.x", "x", "x", lambda probe: None, destructive=True)
    assert run(TARGET, [case]).results[0].verdict is Verdict.NOT_APPLICABLE
    assert run(TARGET, [case], destructive=True).results[0].verdict is Verdict.PASS


def test_what_spoils_a_repository_comes_last() -> None:
    tried: list[str] = []

    def made(id: str, **how: bool) -> Case:
        return Case(id, "x", "x", lambda probe: tried.append(id), **how)

    spoils = made("leases.spoils", destructive=True, spoils=True)
    cases = [spoils, made("leases.kills", destructive=True), made("tags.plain"), made("programs.x", destructive=True)]
    report = run(TARGET, cases, destructive=True)
    assert tried == ["programs.x", "tags.plain", "leases.kills", "leases.spoils"]
    assert [result.id for result in report.results] == [case.id for case in cases]
    assert all(case.destructive for case in registry.all_cases() if case.spoils)


def test_with_what_is_needed_and_nothing_else(target: Target) -> None:
    """What the other options make applicable is not applicable without, at once, and leaves nothing behind."""
    bare = Target(target.gateway, target.stratum0, target.fqrn, target.key, timeout=10.0)
    names = ("admin", "authorisation", "restart", "replay", "leases.renew", "faults.lease", "objectstore.disk")
    report = run(bare, registry.select(names))
    assert not report.unexpected
    assert {result.verdict for result in report.results if result.group == "restart"} == {Verdict.NOT_APPLICABLE}
    assert all(result.evidence for result in report.results if result.verdict is Verdict.NOT_APPLICABLE)
    assert next(Probe.sequence(bare)).listing() == {}


def test_target_as_text(target: Target) -> None:
    assert load(dump(target)) == target


def test_command_line(target: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "key"
    key.write_text(f"plain_text {target.key.id} {target.key.secret.decode()}\n")
    given = ["--gateway", f"{target.gateway}/api/v1", "--stratum0", target.stratum0, "--repo", target.fqrn]
    given += [
        "--key",
        str(key),
        "--json",
        str(tmp_path / "json"),
        "--junit",
        str(tmp_path / "xml"),
        "leases.grant",
        "admin",
    ]
    assert main(given) == 0
    out = capsys.readouterr().out
    assert "leases.grant" in out
    assert "n/a" in out, "without an administrator's key"
    assert (tmp_path / "xml").exists()
    assert main(["--gateway", "x"]) == 2
    assert main(["list", "leases.grant"]) == 0
    assert "POST /leases" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["forward", "delay", "trickle", "duplicate"])
def test_chaos_that_passes(target: Target, kind: str) -> None:
    with chaos(target.gateway) as proxy:
        proxy.next(Fault(kind, 50))
        assert Gateway(proxy.url, target.key).get("/repos").json["status"] == "ok"


@pytest.mark.parametrize("kind", ["cut_request", "cut_reply", "truncate"])
def test_chaos_that_does_not(target: Target, kind: str) -> None:
    with chaos(target.gateway) as proxy:
        proxy.next(Fault(kind, 30))
        with pytest.raises((OSError, Failed)):
            Gateway(proxy.url, target.key, 5.0).get("/repos")
        assert Gateway(proxy.url, target.key).get("/repos").status == 200


def test_recorded_and_replayed(target: Target, tmp_path: Path) -> None:
    with recording(target.gateway, target.key) as recorder:
        recorded = Target(recorder.url, target.stratum0, target.fqrn, target.key)
        probe = next(Probe.sequence(recorded))
        top = probe.path()
        probe.publish(top, lambda tree: tree.put_file(top, b"x"))
        busy = probe.acquire(top)
        probe.ask(top)
        probe.gateway.drop(busy)
    path = tmp_path / "session.zip"
    recorder.session("a publish").save(path)
    session = Session.load(path)
    assert session.fqrn == target.fqrn
    assert session.key is None
    assert busy not in json.dumps([exchange.reply for exchange in session.exchanges])
    assert KEYS["main"].secret not in path.read_bytes()
    assert [exchange.signed for exchange in session.exchanges] == ["body", "head", "token", "body", "body", "token"]
    # What is committed is the head already, so that it is the same revision.
    Player(Gateway(target.gateway, target.key), session, target.key).play()


def test_recorded_from_the_command_line(target: Target, tmp_path: Path) -> None:
    key, output = tmp_path / "key", tmp_path / "session.zip"
    key.write_text(f"plain_text {target.key.id} {target.key.secret.decode()}\n")
    command = [sys.executable, "-m", "conformance", "record", "--listen", "0", "--upstream", target.gateway]
    command += ["--key", str(key), "-o", str(output), "--about", "a question"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split()[3]
        assert Gateway(url, target.key).get("/repos").status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, process.stderr.read()
    session = Session.load(output)
    assert (session.about, len(session.exchanges)) == ("a question", 1)
    assert main(["replay", str(output), "--gateway", target.gateway, "--key", str(key)]) == 0


def test_sessions_are_unpacked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unpack", "--root", str(tmp_path)]) == 0
    names = capsys.readouterr().out.splitlines()[-1]
    for session in load_all(SHIPPED).values():
        assert f'"{session.fqrn}"' in names
        assert (tmp_path / f"srv/cvmfs/{session.fqrn}/.cvmfspublished").exists()
        assert (tmp_path / f"etc/cvmfs/keys/{session.fqrn}.gw").stat().st_mode & 0o077 == 0
    assert main(["unpack", str(tmp_path), "--root", str(tmp_path)]) == 2


def test_a_recorder_without_a_gateway(target: Target) -> None:
    with recording("http://127.0.0.1:9", target.key) as recorder:
        reply = Gateway(recorder.url, target.key).get("/repos")
    assert (reply.status, reply.json["status"]) == (502, "error")
    assert recorder.exchanges == []


def test_subscribers_recorded_and_replayed(target: Target, tmp_path: Path) -> None:
    probe = next(Probe.sequence(target))
    fqrn = target.fqrn
    with recording(target.gateway, target.key) as events, recording(target.websocket, target.key) as frames:
        with (
            Notifications(events.url, 10.0).subscribe(fqrn) as subscription,
            WebSocketSubscriber(frames.url, 10.0) as socket,
        ):
            socket.subscribe(fqrn)
            top = probe.path()
            probe.publish(top, lambda tree: tree.make_directories(top))
            manifest = base64.b64encode(probe.repository.read(".cvmfspublished")).decode()
            for message in (subscription.message, socket.message):
                while message(10.0)["manifest"] != manifest:
                    pass
        streams = [*events.told(), *frames.told()]
    assert [(stream.kind, stream.opened) for stream in streams] == [("events", 0), ("websocket", 0)]
    assert all(stream.messages[-1]["manifest"] == manifest for stream in streams)
    revision = probe.repository.manifest().revision
    session = Session("", "", fqrn, revision, [], {}, [_question()], {}, streams)
    session.save(tmp_path / "session.zip")
    session = Session.load(tmp_path / "session.zip")

    def player(session: Session) -> Player:
        gateway = Gateway(target.gateway, target.key)
        return Player(gateway, session, target.key, probe.repository, websocket=target.websocket)

    player(session).play()
    # Nobody will ever be told of a revision that is not there.
    with pytest.raises(Failed, match=r"no message|no frame|told of revisions"):
        player(session).play(ahead=1)


def _question() -> Exchange:
    """A request that changes nothing."""
    return Exchange("GET", "/api/v1/repos", "", {}, "", None, 200, {"status": "ok"})


def test_measuring(target: Target) -> None:
    values = iter([1.0, 1.0, 10.0, 5.0, 20.0, 5.0])
    probes = [next(Probe.sequence(target)), next(Probe.sequence(target))]
    row = measure(Job("x", "things/s", lambda probe: next(values)), probes, 2)
    assert (row.medians, row.ratio, row.ratio_low, row.ratio_high) == ((15.0, 5.0), 3.0, 2.0, 4.0)
    assert "3.00x (2.00 to 4.00)" in render([row])
