"""Machines for the deployed CernVM-FS programs, made of namespaces: no container runtime, no virtual machine.

A :class:`Machine` has processes, mounts and a host name of its own, private copies of ``/etc`` and ``/var`` and empty
``/cvmfs``, ``/srv``, ``/root``, ``/mnt``, ``/run`` and ``/tmp``, all in memory. Programs and the network are those of
the host. Everything in it, mounts and daemons included, is gone when it is closed, and also when this process dies: the
machine's first process ends when its standard input does, and the kernel ends all others with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from conformance.outcomes import Failed

PROGRAMS: Final = ("cvmfs_server", "cvmfs_swissknife", "cvmfs_publish", "cvmfs2")
TOOLS: Final = ("bash", "unshare", "nsenter", "setpriv", "mount")
ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/bash",
    "LC_ALL": "C",
    "TERM": "dumb",
}
_NAMESPACES: Final = ("--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--propagation", "private")

# The mounts of the host are dropped only where they are of other repositories: they would keep their daemons alive.
_SET_UP: Final = r"""
name=$1; shift
tac /proc/self/mounts | while read -r _ at kind _; do
  case "$kind $at" in fuse*|overlay\ /cvmfs/*|overlay\ /var/spool/cvmfs/*) umount -l "$at" 2>/dev/null || true;; esac
done
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/cvmfs /run/lock /run/machine
for folder in /etc /var; do
  upper=/run/machine/upper$folder work=/run/machine/work$folder
  mkdir -p $upper $work
  mount -t overlay overlay -o "lowerdir=$folder,upperdir=$upper,workdir=$work" $folder
done
mkdir -p /var/spool/cvmfs /var/lib/cvmfs /var/lib/cvmfs-server/geo /var/log
for folder in /var/spool/cvmfs /var/lib/cvmfs /var/log /srv /cvmfs /root /mnt; do
  mount -t tmpfs -o mode=755 tmpfs $folder
done
chown cvmfs: /var/lib/cvmfs /run/cvmfs 2>/dev/null || true
while [ $# -gt 0 ]; do mkdir -p "$2"; mount --bind "$1" "$2"; shift 2; done
mount -t tmpfs -o mode=1777 tmpfs /tmp
# cvmfs_server takes the mere presence of systemctl for a running systemd.
for program in $(type -ap systemctl); do mount --bind /dev/null "$program"; done
hostname "$name"
printf '127.0.0.1 localhost %s\n' "$name" > /etc/hosts
rm -rf /etc/cvmfs/repositories.d/* /etc/cvmfs/default.local /etc/cvmfs/config.d/*
sed -i '/cvmfs/d' /etc/fstab 2>/dev/null || true
mkdir -p /etc/cvmfs/keys /etc/cvmfs/default.d /etc/cvmfs/config.d /etc/cvmfs/repositories.d
find /etc/cvmfs/keys -maxdepth 1 -type f -delete
echo CVMFS_CONFIG_REPOSITORY= > /etc/cvmfs/default.d/99-machine.conf
printf 'CVMFS_HTTP_PROXY=DIRECT\nCVMFS_QUOTA_LIMIT=2000\nCVMFS_NFILES=%s\n' "$(ulimit -Hn)" > /etc/cvmfs/default.local
echo CVMFS_GEO_DB_FILE=NONE >> /etc/cvmfs/server.local
echo ready
cat > /dev/null
"""


def missing() -> str:
    """Why there can be no machines here; ``""`` if there can."""
    absent = [program for program in (*PROGRAMS, *TOOLS) if shutil.which(program) is None]
    if absent:
        return f"needs the CernVM-FS programs, and these are not on PATH: {', '.join(absent)}"
    if os.geteuid() != 0:
        return "needs root, for mounts"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "needs FUSE, and /dev/fuse cannot be opened"
    probe = "mount -t tmpfs tmpfs /mnt && mkdir /mnt/u /mnt/w && "
    probe += "mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc"
    tried = subprocess.run(["unshare", *_NAMESPACES, "bash", "-c", probe], capture_output=True, text=True, check=False)
    if tried.returncode:
        return (
            f"needs mount and process namespaces with overlayfs: {(tried.stderr.strip() or 'refused').splitlines()[0]}"
        )
    return ""


@dataclass(frozen=True)
class Finished:
    """What became of a command: exit code, and what it said on both streams."""

    command: str
    code: int
    output: str

    def __str__(self) -> str:
        return f"exit code {self.code} of {self.command}\n{self.output}"


class CommandFailed(Failed):
    """A command that had to succeed did not."""


def run_command(command: Sequence[str], *, name: str = "", expect: int | None = 0, timeout: float = 120) -> Finished:
    """Run *command*; raises :exc:`CommandFailed` unless it ends with the code *expect* (None: with any) in time.

    What it says goes through a file: a daemon that it leaves behind may keep a pipe open for ever. *name* is what it
    is called in messages.
    """
    with tempfile.TemporaryFile() as file:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=ENVIRONMENT,
            cwd="/",
        ) as process:
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                code = -signal.SIGKILL
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        file.seek(0)
        finished = Finished(name or " ".join(command), code, file.read().decode(errors="replace"))
    if expect is not None and code != expect:
        raise CommandFailed(str(finished))
    return finished


class Machine:
    """One machine; a context manager. *binds* are folders of the host that it sees: host path by path inside."""

    def __init__(self, name: str, binds: Mapping[str, str] | None = None) -> None:
        self.name = name
        pairs = [part for inside, outside in (binds or {}).items() for part in (outside, inside)]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self._process = subprocess.Popen(
            ["unshare", *_NAMESPACES, "bash", "-euo", "pipefail", "-c", _SET_UP, "machine", name, *pairs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=ENVIRONMENT,
        )
        assert self._process.stdout is not None
        try:
            ready = self._process.stdout.readline()
            if ready != b"ready\n":
                self._log.seek(0)
                raise CommandFailed(f"machine {name} did not start: {self._log.read().decode(errors='replace')}")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the machine and all that is in it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def path(self, inside: str) -> Path:
        """Where the host sees the file that the machine sees at *inside*, an absolute path without symlinks."""
        return Path(f"/proc/{self._process.pid}/root{inside}")

    def write(self, inside: str, content: str | bytes, mode: int = 0o644) -> None:
        """Create or replace a file in the machine."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)

    def command(self, *command: str) -> list[str]:
        """What to run on the host so that *command* runs in the machine, as root, in ``/``."""
        spaces = f"/proc/{self._process.pid}/ns"
        enter = [f"--{kind}={spaces}/{name}" for kind, name in _ENTERED]
        return ["nsenter", *enter, "--", *command]

    def run(self, *command: str, expect: int | None = 0, timeout: float = 120) -> Finished:
        """Run a command in the machine; see :func:`run_command`."""
        name = f"{self.name}: {' '.join(command)}"
        return run_command(self.command(*command), name=name, expect=expect, timeout=timeout)

    def shell(self, script: str, expect: int | None = 0, timeout: float = 120) -> Finished:
        """Run a bash script in the machine that ends at its first failure."""
        return self.run("bash", "-euc", script, expect=expect, timeout=timeout)


_ENTERED: Final = (("mount", "mnt"), ("uts", "uts"), ("ipc", "ipc"), ("pid", "pid_for_children"))
