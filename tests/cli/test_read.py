"""Looking into a repository from the command line: what is printed, the exit codes, and whom it trusts."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cvmfs_gw.cli import main
from cvmfs_gw.paths import SystemPaths
from tests.care.collecting import Past
from tests.cli.support import run
from tests.engine.repositories import FQRN, make_keys


@pytest.fixture
def past(tmp_path: Path, keys: str) -> Past:
    """Revisions long ago, and a whitelist that is good today."""
    made = Past(str(tmp_path / "root"), keys)
    made.commit({"/f": b"2"}, "two")
    made.commit({"/f": b"3"})
    made.commit({"/f": b"4", "/g": b"4"}, "four")
    assert main(["--root", made.paths.root, "resign", FQRN]) == 0
    return made


@pytest.fixture
def web(past: Past) -> Iterator[str]:
    """The storage and the public key over HTTP."""
    root = past.paths.root

    class Handler(SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            if path == f"/cvmfs-meta/{FQRN}.pub":
                return past.paths.key_file(FQRN, "pub")
            return os.path.join(root, "srv", path.lstrip("/"))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/cvmfs/{FQRN}"
    server.shutdown()
    thread.join()
    server.server_close()


class Cli:
    def __init__(self, past: Past, capsys: pytest.CaptureFixture[str]) -> None:
        self._past, self._capsys = past, capsys
        capsys.readouterr()

    def __call__(self, command: str, *arguments: str, code: int = 0) -> str:
        assert main(["--root", self._past.paths.root, command, *arguments]) == code
        out, err = self._capsys.readouterr()
        return out if code == 0 else out + err


@pytest.fixture
def cli(past: Past, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(past, capsys)


@pytest.mark.parametrize("by", ["name", "url"])
def test_ls(cli: Cli, web: str, by: str) -> None:
    where = FQRN if by == "name" else web
    assert cli("ls", where) == "f\ng\n"
    assert cli("ls", f"{where}@two") == "f\n"
    assert cli("ls", where, "f") == "/f\n"
    assert cli("ls", "-d", where) == "/\n"
    assert cli("ls", "-l", where, "f").startswith("-rw-r--r--   1 ")
    listed = [json.loads(line) for line in cli("ls", "-R", "--json", where).splitlines()]
    assert [(entry["path"], entry["kind"], entry["size"]) for entry in listed] == [("/f", "file", 1), ("/g", "file", 1)]
    assert "/nothing is not in the repository" in cli("ls", where, "/nothing", code=1)
    assert "no tag, revision" in cli("ls", f"{where}@never", code=1)
    assert "no tag is as old" in cli("ls", f"{where}@1999-01-01", code=1)
    assert cli("ls", f"{where}@yesterday") == "f\ng\n"
    assert "not a repository" in cli("ls", "http://", code=1)


def test_cat_and_get(past: Past, web: str, tmp_path: Path) -> None:
    arguments = ("--pub", past.paths.key_file(FQRN, "pub"))
    done = run("cvmfs-gw", "cat", f"{web}@two", "/f", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2", "")
    done = run("cvmfs-gw", "cat", web, "/", *arguments)
    assert done.returncode == 1
    assert "not a file" in done.stderr
    copy = tmp_path / "copy"
    done = run("cvmfs-gw", "get", web, "/", copy, *arguments)
    assert (done.returncode, done.stdout) == (0, f"{copy}: 2 files, 2 bytes; 0 were there\n")
    assert (copy / "g").read_bytes() == b"4"
    (copy / "f").unlink()
    done = run("cvmfs-gw", "get", f"{web}@two", "f", copy, "--json", *arguments)
    assert json.loads(done.stdout) == {"files": 1, "bytes": 1, "kept": 0, "skipped": []}
    assert (copy / "f").read_bytes() == b"2"


def test_history(cli: Cli, web: str) -> None:
    names = [json.loads(line)["name"] for line in cli("history", web, "--json").splitlines()]
    assert names[0] == "four"
    assert "two" in names
    assert "trunk" not in names
    assert [line.split()[4] for line in cli("history", web, "/g").splitlines()] == ["four"]


def test_diff(cli: Cli, web: str) -> None:
    expected = "M /f (content)\nA /g\n1 added, 0 removed, 1 modified\n"
    assert cli("diff", web, "two") == expected
    assert cli("diff", f"{web}@two") == expected
    assert cli("diff", f"{web}@two", "four") == expected
    assert cli("diff", f"{web}@two", f"{FQRN}@four") == expected
    assert cli("diff", web, "two", "four", "--path", "/g") == "A /g\n1 added, 0 removed, 0 modified\n"
    assert cli("diff", web, "two", "--exit-code", code=1) == expected
    assert cli("diff", web, "four", "--exit-code") == "0 added, 0 removed, 0 modified\n"


def test_trust(past: Past, web: str, tmp_path: Path) -> None:
    """Nobody is trusted unasked; a key that was accepted counts from then on, and another one does not."""
    settings = {"root": tmp_path / "elsewhere", "XDG_CONFIG_HOME": str(tmp_path / "config")}

    def ls(*more: str) -> tuple[int, str]:
        done = run("cvmfs-gw", "ls", web, *more, **settings)  # type: ignore[arg-type]
        return done.returncode, done.stderr

    assert ls()[0] == 4
    assert "--accept-key" in ls()[1]
    code, said = ls("--accept-key")
    assert (code, "trusting the key" in said) == (0, True)
    assert ls() == (0, "")
    make_keys(FQRN, SystemPaths(str(tmp_path / "other")))
    kept = tmp_path / "config/cvmfs-gw/keys" / f"{FQRN}.pub"
    kept.write_bytes(Path(SystemPaths(str(tmp_path / "other")).key_file(FQRN, "pub")).read_bytes())
    assert ls()[0] == 4
    assert ls("--accept-key")[0] == 4
    assert ls("--pub", str(tmp_path / "missing"))[0] == 1


def test_unreachable(cli: Cli) -> None:
    assert "cannot read http://127.0.0.1:1/" in cli("ls", f"http://127.0.0.1:1/cvmfs/{FQRN}", code=3)
