from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from cvmfs_gw.gateway.config import Config, parse_flags
from cvmfs_gw.gateway.errors import ConfigError
from cvmfs_gw.paths import SystemPaths
from tests.gateway.support import write

PATHS = SystemPaths("/r")


def merge(file: dict[str, Any], **flags: Any) -> Config:
    return Config.merge(file, flags, PATHS)


def test_defaults() -> None:
    config = merge({})
    assert config == Config("/r/etc/cvmfs/gateway/repo.json", "/r/var/lib/cvmfs-gateway")
    assert (config.port, config.max_lease_time, config.max_lease_ms) == (4929, 7200, 7_200_000)
    assert config.lease_database == "/r/var/lib/cvmfs-gateway/gw.db"
    assert not config.enable_key_endpoint


def test_precedence() -> None:
    assert merge({"port": 1}).port == 1
    assert merge({"port": 1}, port=2).port == 2
    assert merge({"fe_tcp_port": 3, "port": 1}, port=2).port == 3
    old = {"receiver_config": {"size": 4}, "receiver_worker_config": {"executable_path": "/old"}}
    assert (merge(old).num_receivers, merge(old).receiver_path) == (4, "/old")
    assert merge({**old, "num_receivers": 5}).num_receivers == 4
    assert merge(old, num_receivers=6, receiver_path="/new").num_receivers == 6


def test_lenient_types_and_unknown_names() -> None:
    config = merge({"port": "80", "mock_receiver": "true", "log_timestamps": "F", "novelty": {}})
    assert (config.port, config.mock_receiver, config.log_timestamps) == (80, True, False)


@pytest.mark.parametrize(
    "file",
    [
        {"port": "eighty"},
        {"port": 70_000},
        {"port": -1},
        {"port": True},
        {"port": 1.5},
        {"port": None},
        {"max_lease_time": 0},
        {"work_dir": ""},
        {"work_dir": 5},
        {"mock_receiver": "maybe"},
        {"fe_tcp_port": []},
    ],
)
def test_unusable(file: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        merge(file)


def test_flags(paths: SystemPaths) -> None:
    write(paths.user_config, {"port": 1, "max_lease_time": 10, "log_level": "debug"})
    config = parse_flags(["--port=2", "--work_dir", "/w", "--mock_receiver", "--pprof_port", "6060"], paths)
    assert (config.port, config.max_lease_time, config.log_level) == (2, 10, "debug")
    assert (config.work_dir, config.mock_receiver) == ("/w", True)
    assert parse_flags(["--mock_receiver=false"], paths).mock_receiver is False


def test_what_nobody_reads_is_told(paths: SystemPaths) -> None:
    write(
        paths.user_config,
        {
            "max_lease_tme": 1,
            "novelty": {},
            "_comment": "ours",
            "pprof_port": 6060,
            "fe_tcp_port": 4929,
            "receiver_config": {"size": 1, "sise": 2},
        },
    )
    where = paths.user_config
    assert [str(member) for member in Config.load(paths).unknown] == [
        f"{where}: max_lease_tme: not known here, so without effect; max_lease_time?",
        f"{where}: novelty: not known here, so without effect",
        f"{where}: receiver_config.sise: not known here, so without effect; size?",
    ]
    # all that there is, is known
    write(paths.user_config, {**asdict(Config("/repo.json", "/work")), "tls_key": "", "unknown": ""})
    assert [member.place for member in Config.load(paths).unknown] == [f"{where}: unknown"]


def test_another_file(paths: SystemPaths) -> None:
    other = write(paths.user_config + ".other", {"port": 7})
    assert parse_flags(["--user_config_file", other], paths).port == 7


def test_names_count_in_any_case(paths: SystemPaths) -> None:
    write(paths.user_config, '{"Port": 1, "PORT": 2, "Receiver_Config": {"Size": 3}}')
    config = Config.load(paths)
    assert (config.port, config.num_receivers, config.unknown) == (2, 3, ())


def test_missing_and_broken_files(paths: SystemPaths) -> None:
    assert Config.load(paths).port == 4929
    for text in ("{", "[]"):
        write(paths.user_config, text)
        with pytest.raises(ConfigError):
            Config.load(paths)


@pytest.mark.parametrize("argv", [["--unknown"], ["--port"], ["--port=x"], ["--mock_receiver=maybe"]])
def test_wrong_flags(paths: SystemPaths, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_flags(argv, paths)
    assert argv[0].partition("=")[0] in capsys.readouterr().err
