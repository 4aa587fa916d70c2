"""Checking, collecting, tagging and signing from the command line: what is said, and the exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cvmfs_gw.cli import main
from cvmfs_gw.when import parse_time
from tests.care.collecting import Past
from tests.engine.repositories import FQRN
from tests.engine.trees import NOW


@pytest.fixture
def past(tmp_path: Path, keys: str) -> Past:
    """Three revisions, long ago, and a whitelist that is good today."""
    made = Past(str(tmp_path / "root"), keys)
    made.commit({"/f": b"2"}, "two")
    made.commit({"/f": b"3"})
    made.commit({"/f": b"4"})
    made.commit({"/f": b"5"})
    assert run(made, "resign") == 0
    return made


def run(past: Past, command: str, *arguments: str) -> int:
    words = command.split()
    return main(["--root", past.paths.root, *words, FQRN, *arguments])


def test_check(past: Past, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(past, "check", "-i") == 0
    assert capsys.readouterr().out.endswith("no problems found\n")
    os.unlink(os.path.join(past.paths.repository_spool(FQRN), "reflog.chksum"))
    assert run(past, "check") == 1
    said = capsys.readouterr().out
    assert "reflog-checksum-missing" in said
    assert "remedy for reflog-checksum-missing: cvmfs-gw check --repair" in said
    assert run(past, "check", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["errors"], report["faults"][0]["kind"]) == (False, 1, "reflog-checksum-missing")
    assert run(past, "check", "--repair", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert report["repaired"]
    assert run(past, "check", "-t", "none") == 1
    assert run(past, "check", "-t", "two", "-v") == 0


def test_gc(past: Past, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    capsys.readouterr()
    assert run(past, "gc", "-r", "0", "-d", "-l") == 0
    listed = capsys.readouterr().out.splitlines()[:-1]
    assert past.has(b"3")
    assert run(past, "gc", "-r", "0", "-L", str(log), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert not past.has(b"3")
    assert past.has(b"2")
    lines = log.read_text().splitlines()
    assert lines[0].startswith("# Garbage Collection started at ")
    assert lines[-2].startswith("# Garbage Collection finished at ")
    assert sorted(lines[1:-2]) == sorted(listed)
    assert report["condemned_objects"] == len(listed)
    assert run(past, "gc", "-t", "3 days ago") == 0
    with pytest.raises(SystemExit):
        run(past, "gc", "-t", "some day")
    with pytest.raises(SystemExit):
        run(past, "gc", "-t", "3 days ago", "-r", "1")


def test_gc_of_all(past: Past, capsys: pytest.CaptureFixture[str]) -> None:
    """One that cannot be collected keeps nobody else from it."""
    root = ["--root", past.paths.root]
    for name, text in (
        ("a.example.org", "CVMFS_UPSTREAM_STORAGE=local,/nowhere/data/txn,/nowhere\nCVMFS_GARBAGE_COLLECTION=true\n"),
        ("b.example.org", "CVMFS_UPSTREAM_STORAGE=gw,/tmp,http://localhost\nCVMFS_GARBAGE_COLLECTION=true\n"),
        ("c.example.org", "CVMFS_UPSTREAM_STORAGE=local,/nowhere/data/txn,/nowhere\n"),
        ("d.example.org", ""),
    ):
        path = Path(past.paths.server_conf(name))
        path.parent.mkdir()
        path.write_text(text)
    capsys.readouterr()
    assert main([*root, "gc", "--all", "-r", "0"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith(f"{FQRN}: kept")
    assert not past.has(b"3")
    assert [line.split()[1].rstrip(":") for line in said.err.splitlines()] == ["a.example.org", "d.example.org"]
    for wrong in ((), ("--all", FQRN)):
        with pytest.raises(SystemExit):
            main([*root, "gc", *wrong])


def test_tags(past: Past, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", past.paths.root]
    assert main([*root, "tag", "add", FQRN, "here", "-m", "a note"]) == 0
    assert main([*root, "tag", "move", FQRN, "here", "two"]) == 0
    assert main([*root, "tag", "add", FQRN, "trunk"]) == 1
    capsys.readouterr()
    assert main([*root, "tag", "list", FQRN, "--json"]) == 0
    tags = {tag["name"]: tag for tag in json.loads(capsys.readouterr().out)}
    assert (tags["here"]["revision"], tags["here"]["description"]) == (2, "a note")
    assert main([*root, "tag", "show", FQRN, "here", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == tags["here"]
    assert main([*root, "tag", "show", FQRN, "here"]) == 0
    assert "branch       (default)\ndescription  a note\n" in capsys.readouterr().out
    assert main([*root, "tag", "show", FQRN, "none"]) == 1
    assert main([*root, "tag", "branches", FQRN]) == 0
    assert capsys.readouterr().out == "(default)  @0\n"
    assert main([*root, "tag", "branches", FQRN, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main([*root, "tag", "remove", FQRN, "here"]) == 0
    assert main([*root, "tag", "list", FQRN]) == 0
    assert "here" not in capsys.readouterr().out.splitlines()[-1]
    assert main([*root, "diff", FQRN, "two"]) == 0
    assert capsys.readouterr().out == "M /f (content)\n0 added, 0 removed, 1 modified\n"
    assert main([*root, "diff", FQRN, "two", "trunk", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == "/f"
    assert main([*root, "rollback", FQRN, "-t", "two"]) == 0
    assert main([*root, "rollback", FQRN]) == 1


def test_resign(past: Past, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(past, "resign", "--show") == 0
    assert "in 29 days" in capsys.readouterr().out
    assert run(past, "resign", "--manifest") == 0
    assert run(past, "resign", "-d", "7", "--only-own") == 0
    assert run(past, "resign", "--show") == 0
    assert "in 6 days" in capsys.readouterr().out


def test_meta_info(past: Past, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "info.json"
    file.write_text('{"administrator": "Jo"}')
    assert run(past, "repoinfo", "-f", str(file)) == 0
    capsys.readouterr()
    assert run(past, "repoinfo") == 0
    assert json.loads(capsys.readouterr().out) == {"administrator": "Jo"}
    file.write_text("none")
    assert run(past, "repoinfo", "-f", str(file)) == 1


def test_times() -> None:
    assert parse_time("@17", NOW) == 17
    assert parse_time("3 days ago", NOW) == NOW - 3 * 86_400
    assert parse_time("a week ago", NOW) == NOW - 7 * 86_400
    assert parse_time("yesterday", NOW) == NOW - 86_400
    assert parse_time("2023-11-14T22:13:20+00:00", NOW) == NOW
    assert parse_time("tomorrow", NOW) == NOW + 86_400
    assert parse_time("next week", NOW) == NOW + 7 * 86_400
    assert parse_time("2 days", NOW) == NOW + 2 * 86_400
    for text in ("Tue Nov 14 22:13:20 UTC 2023", "Tue Nov 14 10:13:20 PM UTC 2023"):
        assert parse_time(text, 0) == NOW
    for text in ("", "3 moons ago", "next week ago", "@x"):
        with pytest.raises(ValueError, match="not a"):
            parse_time(text, NOW)


def test_inspect(past: Past, capsys: pytest.CaptureFixture[str]) -> None:
    def say(action: str, *arguments: str) -> list[str]:
        capsys.readouterr()
        assert run(past, f"inspect {action}", *arguments) == 0
        return capsys.readouterr().out.splitlines()

    assert [line.split()[-1] for line in say("tree")] == ["/", "/f"]
    listed = [json.loads(line) for line in say("tree", "f", "--json", "-t", "two")]
    assert [(entry["path"], entry["kind"], entry["size"]) for entry in listed] == [("/f", "file", 1)]
    assert json.loads(say("du", "--json")[0]) == {"path": "/", "entries": 1, "size": 1}
    assert say("largest") == ["       1 B  /f"]
    assert json.loads(say("catalogs", "--json")[0])["entries"] == 2
    assert say("object", listed[0]["hash"], "-t", "two") == ["content of /f"]
    assert say("duplicates")[0].endswith("1.00 times")
    assert run(past, "inspect object", "0" * 40) == 1
    assert run(past, "inspect tree", "/none") == 1


def test_export_and_import(past: Past, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy, archive, other = str(tmp_path / "copy"), str(tmp_path / "copy.tar"), str(tmp_path / "other")
    assert run(past, "export", copy) == 0
    capsys.readouterr()
    assert run(past, "export", copy, "--json") == 0
    assert json.loads(capsys.readouterr().out)["copied"] == 0
    assert run(past, "export", archive) == 0
    assert not os.path.exists(f"{archive}.part")
    assert f"{FQRN} revision 5" in capsys.readouterr().out
    words = ["--root", other, "import", FQRN, "--from", copy, "-k", past.paths.keys]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "taken: CVMFS_GARBAGE_COLLECTION=true\n" in said
    assert "no meaning here: CVMFS_UNION_FS_TYPE=overlayfs (nothing is mounted here)\n" in said
    assert f"{FQRN} revision 5: " in said.splitlines()[-1]
    third = ["--root", str(tmp_path / "fourth"), *words[2:], "--link", "--trust-objects", "--json"]
    assert main(third) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["copied"] == report["objects"]
    assert {setting["fate"] for setting in report["settings"]} == {"taken", "decided anew", "no meaning here"}
    assert main(words) == 1, "it is there"
    assert main(["--root", other, "check", "-i", FQRN]) == 0
    assert main(["--root", other, "doctor", "--no-web", FQRN]) == 0
    os.unlink(os.path.join(past.paths.repository_storage(FQRN), past.repository().head().root_hash.path))
    assert run(past, "export", str(tmp_path / "third")) == 1
