"""Access control: ``repo.json``, the gateway's keys, and the repositories and paths that they give access to.

Version 2::

    {"version": 2,
     "repos": ["a.org",                                      its key is /etc/cvmfs/keys/a.org.gw, for all of it
               {"domain": "b.org", "keys": [{"id": "k1", "path": "/"}, {"id": "k2", "path": "/restricted"}]}],
     "keys": [{"type": "plain_text", "id": "k1", "secret": "...", "admin": true},
              {"type": "file", "file_name": "/etc/cvmfs/keys/k2.gw"}]}

Version 1 (no ``version``)::

    {"repos": [{"domain": "b.org", "keys": ["k1"]}],
     "keys": [{"type": "file", "file_name": "...", "repo_subpath": "/restricted"}]}

A ``.gw`` key file is one line ``plain_text <id> <secret>`` with any white space.

While a key is rotated, two secrets are valid: the new one, and ``"previous_secret"`` beside ``"secret"``, or that of a
second line in the ``.gw`` file with the same id. The reference and publishers ignore both.

Source: the reference's loader, with its corner cases: ``admin`` counts only in the top-level ``keys``, the last of two
equal names wins, the key id ``default`` stands for the repository's own key file, a key without a path is valid for the
whole repository.

Divergence: a key's path is compared by component and without trailing slashes; there, ``/below/`` matches nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from cvmfs_gw.gateway.authorization import Key, parse_header, verify
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
from cvmfs_gw.gateway.members import UnknownMember, entries, parse_members, unknown_members
from cvmfs_gw.paths import SystemPaths

KeyPaths = Mapping[str, str]
"""Key id -> the path at and below which the key is valid, as in the file."""
KeyReader = Callable[[str], tuple[str, ...]]
"""File name -> key id and secret, and the secret before if the key is being rotated."""

_DEFAULT_KEY: Final = "default"
_KEY_MEMBERS: Final = ("type", "id", "secret", "previous_secret", "file_name", "admin")
_KEY_MEMBERS_1: Final = (*_KEY_MEMBERS, "repo_subpath")


def read_key_file(path: str) -> tuple[str, ...]:
    """Key id and secret of a ``.gw`` file, and the previous secret if there is one; raises :exc:`ConfigError`."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            words = file.readline(65536).split()
            before = file.readline(65536).split()
    except OSError as error:
        raise ConfigError(f"cannot read key file {path}: {error.strerror}") from error
    if len(words) != 3 or words[0] != "plain_text":
        raise ConfigError(f"not a gateway key file (plain_text <id> <secret>): {path}")
    if len(before) == 3 and before[:2] == words[:2]:
        return words[1], words[2], before[2]
    return words[1], words[2]


@dataclass(frozen=True, slots=True)
class AccessConfig:
    """The content of ``repo.json`` and of the key files that it names."""

    repositories: Mapping[str, KeyPaths] = field(default_factory=dict)
    keys: Mapping[str, Key] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    """The key files that were read."""
    unknown: tuple[UnknownMember, ...] = ()
    """Names in ``repo.json`` that are not known and have no effect."""

    @classmethod
    def load(cls, path: str, paths: SystemPaths) -> AccessConfig:
        """Read the file at *path*; raises :exc:`ConfigError`."""
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        files: list[str] = []

        def read_key(name: str) -> tuple[str, ...]:
            files.append(name)
            return read_key_file(name)

        try:
            config = cls.parse(data, paths, read_key)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        unknown = tuple(replace(member, place=f"{path}: {member.place}") for member in config.unknown)
        return replace(config, files=tuple(files), unknown=unknown)

    @classmethod
    def parse(cls, data: bytes, paths: SystemPaths, read_key: KeyReader) -> AccessConfig:
        """Read the text of a ``repo.json``; raises :exc:`ConfigError`."""
        try:
            document = parse_members(data)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        first = _is_version_1(document)
        keys, subpaths = _parse_keys(document.get("keys"), read_key)
        if first:
            repositories = _parse_repositories_v1(document.get("repos"), subpaths)
        else:
            repositories = _parse_repositories_v2(document.get("repos"))
            for fqrn, grants in repositories.items():
                if grants.pop(_DEFAULT_KEY, None) is not None:
                    key_id, *secrets = read_key(paths.key_file(fqrn, "gw"))
                    keys.setdefault(key_id, _key(key_id, *secrets, admin=False))
                    grants[key_id] = "/"
        for fqrn, grants in repositories.items():
            for granted in grants.values():
                _check_subpath(fqrn, granted)
        return cls(
            MappingProxyType({name: MappingProxyType(grants) for name, grants in repositories.items()}),
            MappingProxyType(keys),
            unknown=tuple(_unknown(document, _KEY_MEMBERS_1 if first else _KEY_MEMBERS)),
        )

    def check(self, key_id: str, path: LeasePath) -> None:
        """Check that the key may change what is at and below *path*; raises :exc:`AccessDenied`."""
        grants = self.repositories.get(path.fqrn)
        if grants is None:
            raise RepositoryNotAllowed
        granted = grants.get(key_id)
        if granted is None:
            raise KeyNotAllowed
        if not path.within(LeasePath(path.fqrn, _normalise(granted))):
            raise PathNotAllowed


class Access:
    """The access configuration in force. :meth:`reload` replaces it atomically, from any thread."""

    def __init__(self, config: AccessConfig, path: str = "", paths: SystemPaths | None = None) -> None:
        self._config = config
        self._path = path
        self._paths = paths or SystemPaths()
        self._seen = self._look(config.files)

    @classmethod
    def load(cls, path: str, paths: SystemPaths) -> Access:
        """Read ``repo.json`` at *path*; raises :exc:`ConfigError`."""
        return cls(AccessConfig.load(path, paths), path, paths)

    def reload(self) -> None:
        """Reload the files; if they are unusable, raises :exc:`ConfigError` and changes nothing."""
        before = self._look(self._config.files)
        try:
            self._config = AccessConfig.load(self._path, self._paths)
        except ConfigError:
            self._seen = before  # so that files that cannot be used are not read again and again
            raise
        self._seen = self._look(self._config.files)

    def changed(self) -> bool:
        """Whether a file has changed since it was read: by name, time, size and inode."""
        return self._look(self._config.files) != self._seen

    def _look(self, key_files: tuple[str, ...]) -> tuple[object, ...]:
        return tuple(_look(name) for name in (self._path, *key_files))

    @property
    def config(self) -> AccessConfig:
        return self._config

    def authorize(self, header: str | None, message: bytes) -> Key:
        """The key that signed *message*; raises :exc:`InvalidHmac`, whatever is wrong."""
        parsed = parse_header(header)
        key_id, claimed = parsed or ("", b"")
        key = self._config.keys.get(key_id)
        if not verify(key, claimed, message) or key is None:
            raise InvalidHmac
        return key

    def authorize_admin(self, header: str | None, message: bytes) -> Key:
        """The administrator's key that signed *message*; raises :exc:`AuthorizationError`.

        Source: the reference's admin routes say what is wrong, before they check the MAC.
        """
        parsed = parse_header(header)
        if parsed is None:
            raise InvalidAuthorizationHeader
        key = self._config.keys.get(parsed[0])
        right = verify(key, parsed[1], message)
        if key is None:
            raise InvalidKey
        if not key.admin:
            raise NoAdminKey
        if not right:
            raise InvalidHmac
        return key

    def check_owner(self, key: Key, owner: str, path: LeasePath) -> None:
        """Check that *key* may use the lease on *path* held by the key *owner*; raises :exc:`AccessDenied`.

        A lease may be used by the key that acquired it, as long as that key is still valid for it, and by
        administrators.

        Divergence: in the reference, any key may upload to, commit or cancel any lease whose token it knows.
        """
        if key.admin:
            return
        if key.id != owner:
            raise KeyNotAllowed
        self._config.check(key.id, path)


def _look(name: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(name)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev


# --- the file's parts -----------------------------------------------------------------------------------------


def _is_version_1(document: Mapping[str, Any]) -> bool:
    version = document.get("version", 1)
    return version == 1 or not isinstance(version, int)


def _unknown(document: Mapping[str, Any], key_members: tuple[str, ...]) -> Iterator[UnknownMember]:
    yield from unknown_members(document, ("version", "repos", "keys"))
    for spec, where in entries(document.get("keys"), "keys"):
        yield from unknown_members(spec, key_members, where)
    for spec, where in entries(document.get("repos"), "repos"):
        yield from unknown_members(spec, ("domain", "keys"), where)
        for grant, inside in entries(spec.get("keys") if isinstance(spec, dict) else None, f"{where}keys"):
            yield from unknown_members(grant, ("id", "path"), inside)


def _parse_keys(specs: Any, read_key: KeyReader) -> tuple[dict[str, Key], dict[str, str]]:
    """Keys by id, and the ``repo_subpath`` of each."""
    keys: dict[str, Key] = {}
    subpaths: dict[str, str] = {}
    for spec in _list(specs, "keys"):
        if not isinstance(spec, dict):
            raise ConfigError("keys: an entry is not an object")
        kind = spec.get("type")
        if kind == "plain_text":
            key_id, secrets = _string(spec, "id"), [_string(spec, "secret"), _string(spec, "previous_secret")]
            if not key_id or not secrets[0]:
                raise ConfigError("keys: a plain_text key needs an id and a secret")
        elif kind == "file":
            key_id, *secrets = read_key(_string(spec, "file_name"))
        else:
            raise ConfigError(f"keys: unknown key type {kind!r}")
        keys[key_id] = _key(key_id, *secrets, admin=spec.get("admin") is True)
        subpaths[key_id] = _string(spec, "repo_subpath")
    return keys, subpaths


def _parse_repositories_v1(specs: Any, subpaths: Mapping[str, str]) -> dict[str, dict[str, str]]:
    repositories: dict[str, dict[str, str]] = {}
    for spec in _list(specs, "repos"):
        if not isinstance(spec, dict):
            raise ConfigError("repos: an entry is not an object (version 1)")
        ids = _list(spec.get("keys"), "keys of a repository")
        if not all(isinstance(key_id, str) for key_id in ids):
            raise ConfigError("repos: keys are a list of key ids (version 1)")
        repositories[_domain(spec)] = {key_id: subpaths.get(key_id, "") for key_id in ids}
    return repositories


def _parse_repositories_v2(specs: Any) -> dict[str, dict[str, str]]:
    repositories: dict[str, dict[str, str]] = {}
    for spec in _list(specs, "repos"):
        if isinstance(spec, str):
            repositories[spec] = {_DEFAULT_KEY: "/"}
        elif isinstance(spec, dict):
            grants: dict[str, str] = {}
            for key in _list(spec.get("keys"), "keys of a repository"):
                if not isinstance(key, dict):
                    raise ConfigError("repos: keys are a list of objects (version 2)")
                grants[_string(key, "id")] = _string(key, "path")
            repositories[_domain(spec)] = grants
        else:
            raise ConfigError("repos: an entry is neither a name nor an object")
    return repositories


def _key(key_id: str, secret: str, previous: str = "", *, admin: bool) -> Key:
    return Key(key_id, secret.encode("utf-8", "surrogateescape"), admin, previous.encode("utf-8", "surrogateescape"))


def _list(value: Any, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ConfigError(f"{what}: not a list")
    return value


def _string(spec: Mapping[str, Any], name: str) -> str:
    value = spec.get(name, "")
    if not isinstance(value, str):
        raise ConfigError(f"{name}: not a string")
    return value


def _domain(spec: Mapping[str, Any]) -> str:
    domain = _string(spec, "domain")
    if not domain or "/" in domain:
        raise ConfigError("repos: an entry without a usable domain")
    return domain


def _check_subpath(fqrn: str, granted: str) -> None:
    if any(name in (".", "..") for name in granted.split("/")):
        raise ConfigError(f"{fqrn}: a key's path is not a path of the repository: {granted!r}")


def _normalise(granted: str) -> str:
    names = [name for name in granted.split("/") if name]
    return "/" + "/".join(names) if names else ""
