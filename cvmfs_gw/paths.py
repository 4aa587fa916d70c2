"""Where things lie on the system, below one changeable root.

Every path that this product reads or writes by itself comes from here, so that tests and unprivileged containers
can put the whole tree elsewhere. Paths that a configuration file spells out are used as they are.

Source: the layout that ``cvmfs_server`` and the reference gateway use.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SystemPaths:
    """The system's paths below ``root``."""

    root: str = "/"

    def _below(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    # --- configuration -----------------------------------------------------------------------------------------

    @property
    def access_config(self) -> str:
        """Keys and the repositories that they may change."""
        return self._below("etc/cvmfs/gateway/repo.json")

    @property
    def user_config(self) -> str:
        """The daemon's settings."""
        return self._below("etc/cvmfs/gateway/user.json")

    @property
    def upload_config(self) -> str:
        """Repositories that take uploads, and the tokens of those who may upload."""
        return self._below("etc/cvmfs/gateway/uploads.json")

    @property
    def notify_config(self) -> str:
        """Webhooks, and keys of those who publish notifications."""
        return self._below("etc/cvmfs/notify/config.json")

    @property
    def client_configuration(self) -> str:
        """The folder of what clients on this machine are told, as ``default.local``."""
        return self._below("etc/cvmfs")

    @property
    def keys(self) -> str:
        """The folder of all repositories' keys."""
        return self._below("etc/cvmfs/keys")

    def key_file(self, fqrn: str, kind: str) -> str:
        """A repository's key file; *kind* is ``pub``, ``crt``, ``key``, ``masterkey`` or ``gw``."""
        return os.path.join(self.keys, f"{fqrn}.{kind}")

    @property
    def repositories(self) -> str:
        """The folder with one folder of configuration for each repository."""
        return self._below("etc/cvmfs/repositories.d")

    def server_conf(self, fqrn: str) -> str:
        return os.path.join(self.repositories, fqrn, "server.conf")

    # --- data --------------------------------------------------------------------------------------------------

    @property
    def storage(self) -> str:
        """What the web server shows as ``/cvmfs``: one folder for each repository."""
        return self._below("srv/cvmfs")

    def repository_storage(self, fqrn: str) -> str:
        """Where a repository lies by default; the truth is ``CVMFS_UPSTREAM_STORAGE`` in its ``server.conf``."""
        return os.path.join(self.storage, fqrn)

    @property
    def spool(self) -> str:
        return self._below("var/spool/cvmfs")

    def repository_spool(self, fqrn: str) -> str:
        """``reflog.chksum``, ``client.local``, ``stats.db`` and temporary files of a repository."""
        return os.path.join(self.spool, fqrn)

    @property
    def work_dir(self) -> str:
        """The gateway's own state: the lease database."""
        return self._below("var/lib/cvmfs-gateway")
