"""A machine with the deployed publisher's programs, set up for one repository through the gateway."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from conformance.machines.machine import Finished, Machine
from conformance.machines.snapshot import Tree, snapshot
from conformance.repository import Repository
from conformance.target import Target

BUSY = 16
"""``EBUSY``: how ``cvmfs_server transaction`` ends where somebody else holds the lease."""


class Publisher:
    """Publishes at and below *base* (``a/b``); all paths are below that.

    *options* are those of ``cvmfs_server mkfs``, *settings* further lines of ``server.conf``.
    """

    def __init__(
        self, machine: Machine, target: Target, options: tuple[str, ...] = (), settings: str = "", base: str = ""
    ) -> None:
        self.machine, self.target, self.base = machine, target, base
        self.fqrn = fqrn = target.fqrn
        key = target.key
        machine.write(f"/srv/keys/{fqrn}.pub", target.public_key, 0o600)
        machine.write(f"/srv/keys/{fqrn}.gw", f"plain_text {key.id} {key.secret.decode()}\n", 0o600)
        certificate = Repository(target.stratum0, fqrn, target.timeout).certificate()
        machine.write(f"/srv/keys/{fqrn}.crt", certificate, 0o600)
        upstream = f"gw,/srv/cvmfs/{fqrn}/data/txn,{target.api}"
        where = ("-k", "/srv/keys", "-u", upstream, "-w", target.web)
        machine.run("cvmfs_server", "mkfs", "-o", "root", *where, *options, fqrn)
        with machine.path(f"/etc/cvmfs/repositories.d/{fqrn}/server.conf").open("a") as file:
            file.write(f"CVMFS_INCLUDE_XATTRS=true\n{settings}")

    @property
    def name(self) -> str:
        return self.machine.name

    @property
    def top(self) -> Path:
        """Where its machine has the repository, as the host sees it. Writable in a transaction."""
        return self.machine.path(f"/cvmfs/{self.fqrn}") / self.base

    @property
    def token_file(self) -> Path:
        """Where the programs keep the session token of an open transaction."""
        return self.machine.path(f"/var/spool/cvmfs/{self.fqrn}/session_token")

    def place(self, subpath: str) -> str:
        """*subpath* of the base as a path of the repository: ``a/b``."""
        return f"{self.base}/{subpath}".strip("/")

    def begin(self, subpath: str = "", *, expect: int | None = 0) -> Finished:
        """``cvmfs_server transaction`` on *subpath* (``a/b``)."""
        target = f"{self.fqrn}/{self.place(subpath)}".rstrip("/")
        return self.machine.run("cvmfs_server", "transaction", target, expect=expect)

    def commit(self, *options: str, expect: int | None = 0) -> Finished:
        """``cvmfs_server publish``."""
        return self.machine.run("cvmfs_server", "publish", *options, self.fqrn, expect=expect)

    def abort(self) -> Finished:
        """``cvmfs_server abort``."""
        return self.machine.run("cvmfs_server", "abort", "-f", self.fqrn)

    def publish(self, change: Callable[[Path], object], subpath: str = "", *options: str) -> Tree:
        """One transaction on *subpath* in which *change* works on :attr:`top`; returns what that was made."""
        self.begin(subpath)
        change(self.top)
        tree = snapshot(self.top)
        self.commit(*options)
        return tree

    def ingest(self, archive: bytes, subpath: str, *options: str, expect: int | None = 0) -> Finished:
        """``cvmfs_server ingest`` of an archive at *subpath*."""
        self.machine.write("/srv/archive.tar", archive)
        where = ("-t", "/srv/archive.tar", "-b", self.place(subpath))
        return self.machine.run("cvmfs_server", "ingest", *where, *options, self.fqrn, expect=expect)

    def take_out(self, subpath: str) -> Finished:
        """``cvmfs_server ingest -d``."""
        return self.machine.run("cvmfs_server", "ingest", "-d", self.place(subpath), self.fqrn)

    def enter(self, script: str, *, commit: bool = False) -> Finished:
        """Run *script* at the base in a shell of ``cvmfs_publish enter``, then ``cvmfs_publish commit``."""
        machine, fqrn = self.machine, self.fqrn
        trust = f"CVMFS_SERVER_URL={self.target.web}\nCVMFS_PUBLIC_KEY=/etc/cvmfs/keys/{fqrn}.pub\n"
        machine.write(f"/etc/cvmfs/config.d/{fqrn}.conf", trust)
        machine.path(f"/srv/cvmfs/{fqrn}/data/txn").mkdir(parents=True, exist_ok=True)  # for its temporary files
        lines = ["#!/bin/bash", "set -eu", f"cd /cvmfs/{fqrn}/{self.base}", script]
        if commit:
            lines += ["cd /", f"exec cvmfs_publish commit {fqrn}"]
        machine.write("/srv/script", "\n".join(lines) + "\n", 0o755)
        where = ("--transaction", "--repo-config", "/etc/cvmfs/repositories.d", fqrn)
        return machine.run("cvmfs_publish", "enter", *where, "--", "/srv/script")
