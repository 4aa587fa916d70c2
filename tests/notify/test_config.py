from __future__ import annotations

import json
from pathlib import Path

import pytest

from cvmfs_notify.config import NotifyConfig, RelaySource, RepositorySource, WebhookTarget
from cvmfs_notify.errors import NotifyConfigError


def load(path: Path, content: object) -> NotifyConfig:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return NotifyConfig.load(str(path))


def test_the_older_servers_file(tmp_path: Path) -> None:
    content = {"port": 4931, "log_level": "debug", "amqp": {"url": "localhost", "exchange": "x", "port": 5672}}
    config = load(tmp_path / "config.json", content)
    assert (config.port, config.log_level, config.host) == (4931, "debug", "localhost")


def test_everything(tmp_path: Path) -> None:
    content = {
        "publish_keys": {"ci": "secret"},
        "repositories": {"a.b": {"url": "http://x/cvmfs/a.b", "public_key": "/k"}},
        "relay": [{"url": "http://g/api/v1"}, {"url": "http://h/api/v1", "repositories": ["a.b"]}],
        "webhooks": [{"url": "http://ci", "secret": "s", "repositories": ["a.b"]}],
    }
    config = load(tmp_path / "config.json", content)
    assert config.keys == {"ci": b"secret"}
    assert config.repositories == {"a.b": RepositorySource("http://x/cvmfs/a.b", "/k")}
    assert config.relay == [RelaySource("http://g/api/v1", ["*"]), RelaySource("http://h/api/v1", ["a.b"])]
    assert config.webhooks == [WebhookTarget("http://ci", "s", ["a.b"])]


def test_no_file(tmp_path: Path) -> None:
    assert NotifyConfig.load(str(tmp_path / "none")) == NotifyConfig()


@pytest.mark.parametrize("content", ["", "[]", {"port": "x"}, {"relay": [{}]}])
def test_malformed(tmp_path: Path, content: object) -> None:
    with pytest.raises(NotifyConfigError):
        load(tmp_path / "config.json", content)
