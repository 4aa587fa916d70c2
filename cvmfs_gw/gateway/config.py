"""The daemon's settings: ``user.json`` and command-line flags.

Flags override the file, the file overrides the defaults. Of the names used by older releases, ``fe_tcp_port`` overrides
even ``--port``; ``receiver_config.size`` and ``receiver_worker_config.executable_path`` override the file's new names.

Source: the reference's flags (with underscores) and file; ``num_receivers``, ``receiver_path`` and the ``pprof``
ports are accepted but have no effect, as there are no receiver processes.

Ours alone: ``log_format`` (``text``, or ``json`` with the field names of the reference's log), ``tls_certificate`` and
``tls_key`` (PEM files; both or neither).

Divergence: a ``user.json`` that is there but cannot be read stops the start; the reference silently takes the
defaults. ``enable_key_endpoint`` is known to later releases only; ``strict_objects`` and ``fsync`` are ours.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from cvmfs_gw.gateway.errors import ConfigError
from cvmfs_gw.gateway.members import UnknownMember, parse_members, unknown_members
from cvmfs_gw.paths import SystemPaths

MAX_PORT: Final = 65535
LOG_FORMATS: Final = ("text", "json")
LOG_LEVELS: Final = ("debug", "info", "warn", "error", "fatal", "panic")
_LEGACY: Final = (
    ("receiver_config", "size", "num_receivers"),
    ("receiver_worker_config", "executable_path", "receiver_path"),
)
"""Section and old name of a setting, and its new name."""
_IGNORED: Final = ("pprof_port", "pprof_port_range_max")


@dataclass(frozen=True, slots=True)
class Config:
    """The settings in force. ``max_lease_time`` is in seconds."""

    access_config_file: str
    work_dir: str
    port: int = 4929
    max_lease_time: int = 7200
    log_level: str = "info"
    log_timestamps: bool = False
    num_receivers: int = 1
    receiver_path: str = "/usr/bin/cvmfs_receiver"
    mock_receiver: bool = False
    enable_key_endpoint: bool = False
    log_format: str = "text"
    tls_certificate: str = ""
    tls_key: str = ""
    strict_objects: bool = False
    """Refuse commits that refer to objects which are not in the storage."""
    fsync: bool = True
    """Wait for the disk before a commit is acknowledged."""
    unknown: tuple[UnknownMember, ...] = ()
    """Names in ``user.json`` that are not known and have no effect."""

    @property
    def max_lease_ms(self) -> int:
        return self.max_lease_time * 1000

    @property
    def lease_database(self) -> str:
        return os.path.join(self.work_dir, "gw.db")

    @classmethod
    def load(
        cls, paths: SystemPaths, flags: Mapping[str, Any] | None = None, user_config_file: str | None = None
    ) -> Config:
        """Combine the file and *flags* (by setting name; None: not given); raises :exc:`ConfigError`.

        A missing *user_config_file* counts as empty.
        """
        given = {name: value for name, value in (flags or {}).items() if value is not None}
        path = user_config_file or paths.user_config
        file = _read(path)
        return replace(cls.merge(file, given, paths), unknown=tuple(_unknown(file, f"{path}: ")))

    @classmethod
    def merge(cls, file: Mapping[str, Any], flags: Mapping[str, Any], paths: SystemPaths) -> Config:
        """The settings by their order of precedence; raises :exc:`ConfigError`."""
        defaults = cls(paths.access_config, paths.work_dir)
        stated = {**_legacy(file), **flags}
        if "fe_tcp_port" in file:
            stated["port"] = file["fe_tcp_port"]
        tls_certificate, tls_key = (_optional(stated, name) for name in ("tls_certificate", "tls_key"))
        if bool(tls_certificate) != bool(tls_key):
            raise ConfigError("tls_certificate and tls_key: one without the other")
        log_format = _text(stated, "log_format", defaults.log_format)
        if log_format not in LOG_FORMATS:
            raise ConfigError(f"log_format: not one of {', '.join(LOG_FORMATS)}: {log_format!r}")
        return cls(
            access_config_file=_text(stated, "access_config_file", defaults.access_config_file),
            work_dir=_text(stated, "work_dir", defaults.work_dir),
            port=_number(stated, "port", defaults.port, minimum=0, maximum=MAX_PORT),
            max_lease_time=_number(stated, "max_lease_time", defaults.max_lease_time),
            log_level=_text(stated, "log_level", defaults.log_level),
            log_timestamps=_flag(stated, "log_timestamps", defaults.log_timestamps),
            num_receivers=_number(stated, "num_receivers", defaults.num_receivers, minimum=0),
            receiver_path=_text(stated, "receiver_path", defaults.receiver_path),
            mock_receiver=_flag(stated, "mock_receiver", defaults.mock_receiver),
            enable_key_endpoint=_flag(stated, "enable_key_endpoint", defaults.enable_key_endpoint),
            log_format=log_format,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            strict_objects=_flag(stated, "strict_objects", defaults.strict_objects),
            fsync=_flag(stated, "fsync", defaults.fsync),
        )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare every flag of the reference's daemon; each stays None unless it is given."""
    parser.add_argument("--user_config_file", metavar="FILE", help="settings (default: /etc/cvmfs/gateway/user.json)")
    parser.add_argument("--access_config_file", metavar="FILE", help="keys and repositories (repo.json)")
    parser.add_argument("--port", type=int, metavar="N", help="HTTP port (default: 4929)")
    parser.add_argument("--max_lease_time", type=int, metavar="SECONDS", help="life of a lease (default: 7200)")
    parser.add_argument("--log_level", metavar="LEVEL", help="|".join(LOG_LEVELS))
    parser.add_argument("--log_timestamps", **_SWITCH, help="print the time with each line of the log")
    parser.add_argument("--num_receivers", type=int, metavar="N", help="accepted and ignored")
    parser.add_argument("--receiver_path", metavar="FILE", help="accepted and ignored")
    parser.add_argument("--pprof_port", type=int, metavar="N", help="accepted and ignored")
    parser.add_argument("--pprof_port_range_max", type=int, metavar="N", help="accepted and ignored")
    parser.add_argument("--work_dir", metavar="FOLDER", help="where the lease database lies")
    parser.add_argument("--log_format", choices=LOG_FORMATS, help="default: text")
    parser.add_argument("--tls_certificate", metavar="FILE", help="serve HTTPS with this chain of certificates (PEM)")
    parser.add_argument("--tls_key", metavar="FILE", help="and this key (PEM)")
    parser.add_argument("--mock_receiver", **_SWITCH, help="commit nothing, for tests")


def parse_flags(argv: Sequence[str], paths: SystemPaths, prog: str = "cvmfs_gateway") -> Config:
    """The settings that a daemon started with *argv* has; raises :exc:`ConfigError`, or exits on a wrong flag."""
    parser = argparse.ArgumentParser(prog=prog, allow_abbrev=False)
    add_flags(parser)
    flags = vars(parser.parse_args(argv))
    return Config.load(paths, flags, flags.pop("user_config_file"))


def to_flag(value: Any) -> bool:
    """Read a switch as the reference does; raises :exc:`ValueError`."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in ("1", "t", "true"):
        return True
    if text in ("0", "f", "false", ""):
        return False
    raise ValueError(f"neither true nor false: {value!r}")


# a switch may stand alone or carry its value: --mock_receiver, --mock_receiver=false
_SWITCH: Final[dict[str, Any]] = {"nargs": "?", "const": True, "type": to_flag, "metavar": "BOOL"}


# --- the file -------------------------------------------------------------------------------------------------


def _read(path: str) -> Mapping[str, Any]:
    try:
        with open(path, "rb") as file:
            return parse_members(file.read())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _unknown(file: Mapping[str, Any], where: str) -> Iterator[UnknownMember]:
    settings = {field.name for field in fields(Config)} - {"unknown"}
    yield from unknown_members(
        file, {*settings, "fe_tcp_port", *_IGNORED, *(section for section, _, _ in _LEGACY)}, where
    )
    for section, old, _ in _LEGACY:
        yield from unknown_members(file.get(section), (old,), f"{where}{section}.")


def _legacy(file: Mapping[str, Any]) -> dict[str, Any]:
    """The file's settings with the old names of two of them translated."""
    settings = dict(file)
    for section, old, new in _LEGACY:
        value = settings.get(section)
        if isinstance(value, dict) and old in value:
            settings[new] = value[old]
    return settings


def _text(settings: Mapping[str, Any], name: str, default: str) -> str:
    value = settings.get(name, default)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name}: not a text: {value!r}")
    return value


def _optional(settings: Mapping[str, Any], name: str) -> str:
    value = settings.get(name, "")
    if not isinstance(value, str):
        raise ConfigError(f"{name}: not a text: {value!r}")
    return value


def _number(settings: Mapping[str, Any], name: str, default: int, *, minimum: int = 1, maximum: int = 2**31 - 1) -> int:
    """A number from *minimum* to *maximum*, which may also be written as text."""
    value = settings.get(name, default)
    try:
        number = int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None or not minimum <= number <= maximum:
        raise ConfigError(f"{name}: not a number from {minimum} to {maximum}: {value!r}")
    return number


def _flag(settings: Mapping[str, Any], name: str, default: bool) -> bool:
    try:
        return to_flag(settings.get(name, default))
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error
