"""The key files of a repository: made, or imported from a folder. Existing ones are never replaced.

Source: ``cvmfs_server mkfs -k``; the names and modes in ``/etc/cvmfs/keys``.
"""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from typing import Final

from cvmfs_gw.engine.errors import ConfigurationError
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.formats.keychain import Certificate, MasterKey, RepositoryKey, write_key_file

KEY_MODES: Final = {"masterkey": 0o400, "pub": 0o444, "key": 0o400, "crt": 0o444, "gw": 0o600}
"""The kinds of key files, with their modes."""


def make_keys(fqrn: str, paths: SystemPaths, imported: str, now: float) -> None:
    """Make sure that all five key files exist: from the folder *imported* (if not ``""``), from an earlier run, or new.

    The certificate begins *now*, in seconds since the epoch. Raises :exc:`ConfigurationError`.
    """

    def path(kind: str) -> str:
        return paths.key_file(fqrn, kind)

    if imported:
        import_keys(fqrn, paths, imported)
        if not os.path.exists(path("masterkey")):
            raise ConfigurationError(f"no {fqrn}.masterkey in {imported}: nothing could sign the whitelist")
    try:
        if not os.path.exists(path("masterkey")):
            master = MasterKey.generate()
            master.write(path("masterkey"))
        if not os.path.exists(path("pub")):
            write_key_file(path("pub"), MasterKey.load(path("masterkey")).public_pem, KEY_MODES["pub"])
        if not os.path.exists(path("crt")):
            if not os.path.exists(path("key")):
                RepositoryKey.generate().write(path("key"))
            key = RepositoryKey.load(path("key"))
            certificate = Certificate.self_signed(key, fqrn, datetime.fromtimestamp(now, UTC))
            write_key_file(path("crt"), certificate.pem, KEY_MODES["crt"])
        make_gateway_key(fqrn, paths)
    except ObjectStoreError as error:
        raise ConfigurationError(str(error)) from error


def make_gateway_key(fqrn: str, paths: SystemPaths) -> None:
    """Make the secret that publishers and the gateway share, unless there is one."""
    path = paths.key_file(fqrn, "gw")
    if not os.path.exists(path):
        line = f"plain_text gw-{secrets.token_hex(4)} {secrets.token_urlsafe(32)}\n"
        write_key_file(path, line.encode(), KEY_MODES["gw"])


def import_keys(fqrn: str, paths: SystemPaths, folder: str) -> None:
    """Copy the repository's key files from *folder*, except existing ones; raises :exc:`ConfigurationError`."""
    found = False
    for kind, mode in KEY_MODES.items():
        source = os.path.join(folder, f"{fqrn}.{kind}")
        if os.path.exists(source) and not os.path.exists(paths.key_file(fqrn, kind)):
            with open(source, "rb") as file:
                write_key_file(paths.key_file(fqrn, kind), file.read(), mode)
        found = found or os.path.exists(source)
    if not found:
        raise ConfigurationError(f"no keys of {fqrn} in {folder}")
