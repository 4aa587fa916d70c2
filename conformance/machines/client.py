"""A machine in which repositories are mounted and checked with the deployed programs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from conformance.machines.machine import CommandFailed, Machine
from conformance.machines.snapshot import Tree, snapshot
from conformance.target import Target

STORE = "/mnt/store"
"""Where the client's machine sees the repository's storage, if it does at all."""
PATIENCE_S = 1800
"""How long the checks of a large repository may take, in seconds."""


class Client:
    """Mounts and checks what targets publish; *machine* is its own."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._mounts = 0

    @contextlib.contextmanager
    def mount(self, target: Target, more: Mapping[str, str] | None = None) -> Iterator[Path]:
        """*target*'s repository, mounted with an empty cache; *more* are further settings of the client."""
        machine, fqrn = self.machine, target.fqrn
        self._mounts += 1
        place = f"/mnt/{self._mounts}"
        machine.write(f"{place}.pub", target.public_key)
        settings = {
            "CVMFS_SERVER_URL": target.web,
            "CVMFS_PUBLIC_KEY": f"{place}.pub",
            "CVMFS_HTTP_PROXY": "DIRECT",
            "CVMFS_CACHE_BASE": f"{place}.cache",
            "CVMFS_SHARED_CACHE": "no",
            "CVMFS_RELOAD_SOCKETS": f"{place}.cache",
            "CVMFS_QUOTA_LIMIT": "2000",
            "CVMFS_CLAIM_OWNERSHIP": "no",
            "CVMFS_MAGIC_XATTRS_VISIBILITY": "never",
            "CVMFS_USYSLOG": f"{place}.log",
            **(more or {}),
        }
        machine.write(f"{place}.conf", "".join(f"{key}={value}\n" for key, value in settings.items()))
        command = f"cvmfs2 -o config={place}.conf,allow_other,fsname=cvmfs2 {fqrn} {place}"
        machine.shell(f"mkdir {place} {place}.cache && {command}")
        try:
            yield machine.path(place)
        finally:
            machine.shell(f"umount {place} || umount -l {place}; rm -rf {place}.cache")

    def remount(self, fqrn: str) -> None:
        """Have the latest mount look for a new revision; it goes there soon after."""
        socket = f"/mnt/{self._mounts}.cache/{fqrn}/cvmfs_io.{fqrn}"
        self.machine.run("cvmfs_talk", "-p", socket, "remount", "sync")

    def mounted(self, target: Target, base: str = "") -> Tree:
        """What a client with an empty cache sees at and below *base* (``a/b``)."""
        with self.mount(target) as top:
            return snapshot(top / base)

    def check(self, target: Target, checksum: str = "") -> None:
        """``cvmfs_swissknife check`` finds nothing wrong; raises :exc:`~conformance.machines.machine.CommandFailed`.

        *checksum* is that of the reflog, in hex; without it the manifest's counts.
        """
        fqrn = target.fqrn
        self.machine.write(f"/mnt/{fqrn}.chksum", checksum)
        self.machine.write(f"/mnt/{fqrn}.pub", target.public_key)
        command = ["cvmfs_swissknife", "check", "-c", "-l", "2", "-r", target.web, "-N", fqrn, "-t", "/tmp"]
        command += ["-k", f"/mnt/{fqrn}.pub", *(("-R", f"/mnt/{fqrn}.chksum") if checksum else ())]
        checked = self.machine.run(*command, timeout=PATIENCE_S)
        if "no problems found" not in checked.output:
            raise CommandFailed(str(checked))

    def scrub(self, storage: str = STORE) -> None:
        """Each object in *storage*, a folder of the machine, has the content that its name says."""
        self.machine.run("cvmfs_swissknife", "scrub", "-r", f"{storage}/data", timeout=PATIENCE_S)

    def nested_catalogs(self, target: Target) -> set[str]:
        """Where the nested catalogs are, as ``cvmfs_swissknife`` tells: ``/a/b``."""
        fqrn = target.fqrn
        self.machine.write(f"/mnt/{fqrn}.pub", target.public_key)
        command = ["cvmfs_swissknife", "lsrepo", "-r", target.web, "-n", fqrn, "-k", f"/mnt/{fqrn}.pub", "-l", "/tmp"]
        return set(self.machine.run(*command).output.splitlines()) - {"/"}
