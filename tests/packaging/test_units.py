"""The unit files, and what they must agree on with the rest of the package."""

from __future__ import annotations

import re
import tomllib
from configparser import ConfigParser
from pathlib import Path
from typing import Final

import pytest

from cvmfs_gw.api.server import GATEWAY
from cvmfs_gw.gateway.config import Config

ROOT: Final = Path(__file__).parents[2]
PACKAGING: Final = ROOT / "packaging"


def unit(name: str) -> ConfigParser:
    parser = ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string((PACKAGING / "systemd" / name).read_text())
    return parser


@pytest.mark.parametrize("name", ["cvmfs-gateway.service", "cvmfs-gateway@.service"])
def test_the_program_is_one_that_is_installed(name: str) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    started = unit(name)["Service"]["ExecStart"]
    assert Path(started).name in scripts
    assert started.startswith("/usr/bin/")


def test_the_template_is_the_service_but_for_its_user() -> None:
    service, template = (
        {(section, key): value for section in each.sections() for key, value in each[section].items()}
        for each in (unit("cvmfs-gateway.service"), unit("cvmfs-gateway@.service"))
    )
    differing = {key for key in service | template if service.get(key) != template.get(key)}
    assert differing == {("Unit", "Description"), ("Service", "User")}
    assert template["Service", "User"] == "%I"


def test_the_socket_is_the_one_that_the_program_asks_for() -> None:
    socket = unit("cvmfs-gateway.socket")["Socket"]
    assert socket["FileDescriptorName"] == GATEWAY
    assert int(socket["ListenStream"]) == Config("", "").port


def test_the_log_that_is_rotated_is_the_one_that_is_written() -> None:
    script = (PACKAGING / "run_cvmfs_gateway.sh").read_text()
    written = re.search(r"CVMFS_GATEWAY_LOG:-([^}]*)}", script)
    assert written is not None
    assert f"\n{written[1]} {{\n" in (PACKAGING / "logrotate/90-cvmfs-gateway-rotate").read_text()
