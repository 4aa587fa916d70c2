"""A Stratum 0 that ``cvmfs_server`` has made and publishes to, whose storage our server sees, too.

Both keep the reflog's checksum in a spool folder of their own: who has changed the reflog hands it over.
"""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path
from typing import Final

from conformance.machines.machine import Finished
from tests.e2e.world import NOBODY, Repository, World

USER: Final = pwd.getpwuid(NOBODY).pw_name


class Stratum0:
    """Made with ``cvmfs_server mkfs`` on a machine of its own. The world's server must be up: it is the web server."""

    def __init__(self, world: World, fqrn: str, *options: str) -> None:
        self._world, self.fqrn = world, fqrn
        storage = world.root / "srv/cvmfs"
        self.machine = world.machine(fqrn.partition(".")[0], {"/srv/cvmfs": str(storage)})
        web = f"http://127.0.0.1:{world.web_port}/cvmfs/{fqrn}"
        # it wants an Apache to be there, though it is told not to use it
        self.machine.write("/srv/keys/service", "#!/bin/sh\n", 0o755)
        self.machine.shell("mount --bind /srv/keys/service /usr/sbin/service")
        self.machine.run("cvmfs_server", "mkfs", "-p", "-w", web, "-o", USER, *options, fqrn)
        self.repository = Repository(fqrn, web, world.gateway, world.root)
        self._checksum = f"/var/spool/cvmfs/{fqrn}/reflog.chksum"

    def __call__(self, *words: str, expect: int | None = 0) -> Finished:
        """Run ``cvmfs_server``; what it made of the reflog is handed over."""
        finished = self.machine.run("cvmfs_server", *words, expect=expect)
        ours = Path(f"{self._world.root}{self._checksum}")
        if ours.parent.exists():
            ours.unlink(missing_ok=True)
            ours.write_bytes(self.machine.path(self._checksum).read_bytes())
            shutil.chown(ours, NOBODY, NOBODY)
        return finished

    def take_reflog(self) -> None:
        """Be told that we have changed the reflog."""
        path = self.machine.path(self._checksum)
        path.write_bytes(Path(f"{self._world.root}{self._checksum}").read_bytes())
        shutil.chown(path, NOBODY, NOBODY)

    def publish(self, script: str, tag: str) -> None:
        """Run a script in the repository's folder, within a transaction, and publish it with a tag."""
        self("transaction", self.fqrn)
        self.machine.shell(f"cd /cvmfs/{self.fqrn}\n{script}")
        self("publish", "-a", tag, self.fqrn)

    @property
    def settings(self) -> Path:
        """A copy of its ``server.conf`` that our server may read."""
        copy = self._world.folder / "server.conf"
        copy.write_bytes(self.machine.path(f"/etc/cvmfs/repositories.d/{self.fqrn}/server.conf").read_bytes())
        return copy

    @property
    def keys(self) -> Path:
        """A folder with copies of its keys that our server may read."""
        folder = self._world.folder / "keys"
        folder.mkdir(exist_ok=True)
        for kind in ("pub", "crt", "key", "masterkey"):
            path = folder / f"{self.fqrn}.{kind}"
            if not path.exists():
                path.write_bytes(self.machine.path(f"/etc/cvmfs/keys/{self.fqrn}.{kind}").read_bytes())
                shutil.chown(path, NOBODY, NOBODY)
        return folder

    def adopt(self, *options: str, root: str = "") -> Finished:
        """Take it over with ours; in place, if nothing else is said."""
        storage = str(self.repository.storage)
        words = ["import", self.fqrn, "--from", storage, "-k", str(self.keys), *(options or ("--in-place",))]
        finished = self._world.program(*(("--root", root) if root else ()), *words, "--settings", str(self.settings))
        if not root:
            self.share()
        return finished

    def share(self) -> None:
        """Let our server, which has no rights, write all that the other has written."""
        for folder, _, names in os.walk(self.repository.storage):
            os.chown(folder, NOBODY, NOBODY)
            for name in names:
                os.chown(os.path.join(folder, name), NOBODY, NOBODY)

    def close(self) -> None:
        """Unmount it. The machine's end would do, but for the storage, which is not in it."""
        self.machine.run("cvmfs_server", "rmfs", "-f", self.fqrn)
