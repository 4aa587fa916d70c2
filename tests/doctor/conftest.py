from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_gw.cli import main
from cvmfs_gw.paths import SystemPaths
from tests.doctor.patients import Patient, Say, Site
from tests.engine.repositories import FQRN, make_keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> str:
    paths = SystemPaths(str(tmp_path_factory.mktemp("keys")))
    make_keys(FQRN, paths)
    return paths.keys


@pytest.fixture
def patient(tmp_path: Path, keys: str) -> Iterator[Patient]:
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever)
    thread.start()
    yield Patient(str(tmp_path / "root"), keys, site)
    site.server.shutdown()
    thread.join()
    site.server.server_close()


@pytest.fixture
def say(patient: Patient, capsys: pytest.CaptureFixture[str]) -> Say:
    def ask(*arguments: str) -> tuple[int, list[dict[str, str]]]:
        capsys.readouterr()
        code = main(["--root", patient.paths.root, "doctor", "--json", *arguments])
        return code, json.loads(capsys.readouterr().out)["findings"]

    return ask
