from __future__ import annotations

import json
from typing import Any

import pytest

from cvmfs_gw.gateway.access import Access, AccessConfig, read_key_file
from cvmfs_gw.gateway.authorization import Key, sign
from cvmfs_gw.gateway.errors import (
    ConfigError,
    InvalidAuthorizationHeader,
    InvalidHmac,
    InvalidKey,
    KeyNotAllowed,
    NoAdminKey,
    PathNotAllowed,
    RepositoryNotAllowed,
)
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.paths import SystemPaths
from tests.gateway.support import ADMIN, FQRN, KEY, UNKNOWN, write

PATHS = SystemPaths("/nowhere")


def reader(path: str) -> tuple[str, str]:
    return {
        "/nowhere/etc/cvmfs/keys/a.org.gw": ("fromfile", "s1"),
        "/keys/two.gw": ("two", "s2"),
    }[path]


def parse(content: Any) -> AccessConfig:
    return AccessConfig.parse(json.dumps(content).encode(), PATHS, reader)


def allowed(config: AccessConfig, key_id: str, path: str) -> bool:
    try:
        config.check(key_id, LeasePath.parse(path))
    except (KeyNotAllowed, PathNotAllowed, RepositoryNotAllowed):
        return False
    return True


def test_version_2() -> None:
    config = parse(
        {
            "version": 2,
            "repos": [
                "a.org",
                {
                    "domain": "b.org",
                    "keys": [{"id": "one", "path": "/", "admin": True}, {"id": "two", "path": "/x/y"}],
                },
            ],
            "keys": [
                {"type": "plain_text", "id": "one", "secret": "s", "repo_subpath": "/ignored"},
                {"type": "file", "file_name": "/keys/two.gw", "admin": True},
            ],
        }
    )
    assert config.repositories["a.org"] == {"fromfile": "/"}
    assert config.repositories["b.org"] == {"one": "/", "two": "/x/y"}
    assert {key.id: key.admin for key in config.keys.values()} == {"one": False, "two": True, "fromfile": False}
    assert config.keys["two"].secret == b"s2"


def test_names_count_in_any_case() -> None:
    keys = [{"Type": "plain_text", "ID": "one", "Secret": "s", "Admin": True}]
    config = parse({"Version": 2, "repos": [{"Domain": "b.org", "Keys": [{"Id": "one", "Path": "/x"}]}], "Keys": keys})
    assert config.repositories == {"b.org": {"one": "/x"}}
    assert config.keys["one"].admin


def test_version_1() -> None:
    config = parse(
        {
            "repos": [{"domain": "b.org", "keys": ["one", "two", "missing"]}],
            "keys": [
                {"type": "plain_text", "id": "one", "secret": "s"},
                {"type": "file", "file_name": "/keys/two.gw", "repo_subpath": "/x"},
            ],
        }
    )
    assert config.repositories["b.org"] == {"one": "", "two": "/x", "missing": ""}
    assert allowed(config, "one", "b.org/anything")
    assert allowed(config, "two", "b.org/x/y")
    assert not allowed(config, "two", "b.org/y")


def test_the_key_called_default() -> None:
    repo = {"domain": "a.org", "keys": [{"id": "default", "path": "/x"}]}
    assert parse({"version": 2, "repos": [repo]}).repositories["a.org"] == {"fromfile": "/"}


def test_a_key_file_does_not_replace_a_key() -> None:
    keys = [{"type": "plain_text", "id": "fromfile", "secret": "own", "admin": True}]
    config = parse({"version": 2, "repos": ["a.org"], "keys": keys})
    assert (config.keys["fromfile"].secret, config.keys["fromfile"].admin) == (b"own", True)


def test_empty() -> None:
    for content in ({}, {"version": 1}, {"version": 2}, {"version": 2, "repos": None, "keys": None}):
        assert not parse(content).repositories


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"repos": {}},
        {"repos": ["name"]},
        {"repos": [{"domain": "a.org", "keys": [{"id": "x"}]}]},
        {"version": 2, "repos": [5]},
        {"version": 2, "repos": [{"keys": []}]},
        {"version": 2, "repos": [{"domain": "a/b"}]},
        {"version": 2, "repos": [{"domain": "a.org", "keys": ["x"]}]},
        {"version": 2, "repos": [{"domain": "a.org", "keys": [{"id": "x", "path": 5}]}]},
        {"version": 2, "repos": [{"domain": "a.org", "keys": [{"id": "x", "path": "/a/../b"}]}]},
        {"keys": [{"type": "rot13", "id": "x", "secret": "y"}]},
        {"keys": [{"type": "plain_text", "id": "x"}]},
        {"keys": ["x"]},
    ],
)
def test_unusable(content: Any) -> None:
    with pytest.raises(ConfigError):
        parse(content)


def test_not_json() -> None:
    for data in (b"", b"{", b"\xff"):
        with pytest.raises(ConfigError):
            AccessConfig.parse(data, PATHS, reader)


@pytest.mark.parametrize("granted", ["/x/y", "x/y", "/x/y/", "//x//y//"])
def test_paths_by_component(granted: str) -> None:
    config = parse({"version": 2, "repos": [{"domain": "b.org", "keys": [{"id": "k", "path": granted}]}]})
    assert allowed(config, "k", "b.org/x/y")
    assert allowed(config, "k", "b.org/x/y/z")
    assert not allowed(config, "k", "b.org/x/yz")
    assert not allowed(config, "k", "b.org/x")
    assert not allowed(config, "k", "b.org/")
    assert not allowed(config, "other", "b.org/x/y")
    assert not allowed(config, "k", "c.org/x/y")


@pytest.mark.parametrize(
    "text", ["plain_text id secret", "  plain_text   id  secret  \n", "\tplain_text\tid\tsecret\t\nmore lines"]
)
def test_key_files(paths: SystemPaths, text: str) -> None:
    assert read_key_file(write(paths.key_file("x", "gw"), text)) == ("id", "secret")


@pytest.mark.parametrize("text", ["", "plane_text id secret", "plain_text id", "plain_text a b c", "\nplain_text a b"])
def test_no_key_files(paths: SystemPaths, text: str) -> None:
    with pytest.raises(ConfigError, match="not a gateway key file"):
        read_key_file(write(paths.key_file("x", "gw"), text))


def test_missing_files(paths: SystemPaths) -> None:
    with pytest.raises(ConfigError, match="cannot read key file"):
        read_key_file(paths.key_file("missing", "gw"))
    with pytest.raises(ConfigError, match="cannot read"):
        Access.load(paths.user_config, paths)


def test_errors_say_where_and_never_a_secret(paths: SystemPaths) -> None:
    write(paths.access_config, {"keys": [{"type": "plain_text", "id": 5, "secret": "hush"}]})
    with pytest.raises(ConfigError) as caught:
        Access.load(paths.access_config, paths)
    assert paths.access_config in str(caught.value)
    assert "hush" not in str(caught.value)


def test_what_nobody_reads_is_told(paths: SystemPaths) -> None:
    """Never what it says: it may be a secret."""
    key = {"type": "plain_text", "id": "k", "secret": "hush", "previus_secret": "hush", "repo_subpath": "/a"}
    grants = [{"id": "k", "path": "/"}, {"id": "l", "path": "/", "admin": True}]
    repos = ["y.org", {"domain": "x.org", "keys": grants, "a\nb": 1}]
    write(paths.key_file("y.org", "gw"), "plain_text y hush")
    write(paths.access_config, {"version": 2, "repos": repos, "keys": [key], "repositories": [], "# note": ""})
    unknown = Access.load(paths.access_config, paths).config.unknown
    assert [(member.place.removeprefix(f"{paths.access_config}: "), member.meant) for member in unknown] == [
        ("repositories", ""),
        ("keys[0].previus_secret", "previous_secret"),
        ("keys[0].repo_subpath", ""),
        ("repos[1].a\\nb", ""),
        ("repos[1].keys[1].admin", ""),
    ]
    assert "hush" not in str(unknown)
    first = {"repos": [{"domain": "x.org", "keys": ["k"]}], "keys": [{**key, "secret": "hush"}]}
    write(paths.access_config, first)
    assert [member.meant for member in Access.load(paths.access_config, paths).config.unknown] == ["previous_secret"]


def test_authorize(paths: SystemPaths) -> None:
    access = Access.load(paths.access_config, paths)
    assert access.authorize(sign(KEY, b"m"), b"m") == KEY
    for header in (None, "", "rubbish", sign(KEY, b"other"), sign(UNKNOWN, b"m")):
        with pytest.raises(InvalidHmac):
            access.authorize(header, b"m")


def test_authorize_admin(paths: SystemPaths) -> None:
    access = Access.load(paths.access_config, paths)
    assert access.authorize_admin(sign(ADMIN, b"m"), b"m") == ADMIN
    for header, error in (
        (None, InvalidAuthorizationHeader),
        ("rubbish", InvalidAuthorizationHeader),
        (sign(UNKNOWN, b"m"), InvalidKey),
        (sign(KEY, b"m"), NoAdminKey),
        (sign(ADMIN, b"other"), InvalidHmac),
    ):
        with pytest.raises(error):
            access.authorize_admin(header, b"m")


def test_reload(paths: SystemPaths) -> None:
    access = Access.load(paths.access_config, paths)
    write(paths.access_config, "{")
    with pytest.raises(ConfigError):
        access.reload()
    assert FQRN in access.config.repositories
    write(paths.access_config, {"version": 2})
    access.reload()
    assert not access.config.repositories


def test_rotation_and_changed_files(paths: SystemPaths) -> None:
    key_file = write(paths.key_file("x.org", "gw"), "plain_text id new\nplain_text id old\n")
    write(
        paths.access_config,
        {
            "version": 2,
            "repos": ["x.org"],
            "keys": [{"type": "plain_text", "id": "inline", "secret": "new", "previous_secret": "old"}],
        },
    )
    access = Access.load(paths.access_config, paths)
    for name in ("id", "inline"):
        for secret in (b"new", b"old"):
            assert access.authorize(sign(Key(name, secret), b"message"), b"message").id == name
        for secret in (b"older", b""):
            with pytest.raises(InvalidHmac):
                access.authorize(sign(Key(name, secret), b"message"), b"message")
    assert not access.changed()
    write(key_file, "plain_text id new")
    assert access.changed()
    access.reload()
    assert not access.changed()
    with pytest.raises(InvalidHmac):
        access.authorize(sign(Key("id", b"old"), b"message"), b"message")
    write(paths.access_config, "nonsense")
    assert access.changed()
    with pytest.raises(ConfigError):
        access.reload()
    assert not access.changed()
    assert access.authorize(sign(Key("id", b"new"), b"message"), b"message").id == "id"


def test_a_second_line_for_another_key_means_nothing(paths: SystemPaths) -> None:
    path = write(paths.key_file("x", "gw"), "plain_text id secret\nplain_text other secret2\n")
    assert read_key_file(path) == ("id", "secret")
