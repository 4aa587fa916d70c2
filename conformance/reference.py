"""The reference's own stack on one machine: ``cvmfs_server mkfs``, Apache as it configures that, ``cvmfs_gateway``.

The reference listens on every interface and lives in system paths, so it gets a machine of its own made of namespaces
(network, mounts, processes), with copies of ``/etc`` and empty folders for the rest. That takes root. The suite runs in
there, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from conformance.outcomes import Failed
from conformance.servers import FQRN, OTHER, access_file, described, room
from conformance.session import install, load_all
from conformance.target import Target

PROGRAMS: Final = (
    "cvmfs_gateway",
    "cvmfs_receiver",
    "cvmfs_server",
    "cvmfs_swissknife",
    "apache2",
    "unshare",
    "nsenter",
)
GATEWAY: Final = "http://127.0.0.1:4929"
STRATUM0: Final = "http://localhost/cvmfs"
_PRIVATE: Final = (
    "cvmfs",
    "srv",
    "var/spool/cvmfs",
    "var/lib/cvmfs",
    "var/lib/cvmfs-server",
    "var/lib/cvmfs-gateway",
    "run/cvmfs",
    "run/apache2",
    "var/log/apache2",
    "etc",
)

# Inside, with the folder in $1: everything private is mounted, then Apache and the repositories are made.
_BOOT: Final = """
ip link set lo up
tac /proc/self/mounts | while read -r dev place kind rest; do
  case "$kind" in fuse|fuse.*|overlay) umount -l "$place" 2>/dev/null || true;; esac
done
for place in {private}; do mkdir -p "/$place"; mount --bind "$1/$place" "/$place"; done
ulimit -n 65536 || true
apache2ctl start
for name in {names}; do cvmfs_server mkfs -z -o root "$name"; done
"""

# Ends the gateway and its workers, if they are there, and starts it (again).
_START: Final = """
if [ -s /run/cvmfs/gateway.pid ]; then
  old=$(cat /run/cvmfs/gateway.pid)
  workers=$(pgrep -P "$old" || true)
  for pid in $old $workers; do kill -9 "$pid" 2>/dev/null || true; done
  while [ -d "/proc/$old" ] && ! grep -q '^State:.Z' "/proc/$old/status"; do sleep 0.05; done
fi
ulimit -n 65536 2> /dev/null || true
start() {
  setsid nohup cvmfs_gateway --log_level error > /run/cvmfs/gateway.log 2>&1 < /dev/null &
  echo $! > /run/cvmfs/gateway.pid
}
start
for turn in $(seq 1200); do
  curl -sf http://127.0.0.1:4929/api/v1/repos > /dev/null && exit 0
  grep -qs '^State:.[^Z]' "/proc/$(cat /run/cvmfs/gateway.pid)/status" || start
  sleep 0.05
done
cat /run/cvmfs/gateway.log >&2
exit 1
"""


def missing() -> str:
    """Why the reference cannot be run here; ``""`` if it can."""
    if absent := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"not on PATH: {', '.join(absent)}"
    return "" if os.geteuid() == 0 else "needs root, for namespaces"


@contextlib.contextmanager
def reference(sessions: Path | None = None, *, small: bool = False) -> Iterator[tuple[Target, list[str]]]:
    """The reference, running, and what to put before a command that is to reach it; see :func:`servers.room`."""
    # Who enters a mount namespace leaves the working directory behind.
    sessions = sessions.resolve() if sessions is not None else None
    with room("conformance-reference-", small=small) as root:
        root.chmod(0o755)
        _lay_out(root)
        (root / "start").write_text(_START)
        boot = _BOOT.format(private=" ".join(_PRIVATE), names=f"{FQRN} {OTHER}")
        space = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        script = f"{boot}\necho ready >&3\nexec sleep infinity"
        reading, writing = os.pipe()
        with (root / "boot.log").open("wb") as log:
            process = subprocess.Popen(
                [*space, "--propagation", "private", "bash", "-euc", f"exec 3>&{writing}\n{script}", "boot", str(root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(writing,),
            )
        os.close(writing)
        try:
            with os.fdopen(reading) as ready:
                if ready.readline() != "ready\n":
                    raise Failed("the reference does not start:\n" + (root / "boot.log").read_text()[-3000:])
            inner = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
            enter = ["nsenter", f"--target={inner}", "--net", "--mount", "--uts", "--pid", "--"]
            yield _configure(root, enter, sessions), enter
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _lay_out(root: Path) -> None:
    """The folders that are private to the machine."""
    for place in _PRIVATE:
        (root / place).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(root / "etc")
    subprocess.run(["cp", "-a", "/etc", str(root / "etc")], check=True)
    for place in ("etc/cvmfs/repositories.d", "etc/cvmfs/keys", "etc/cvmfs/gateway"):
        shutil.rmtree(root / place, ignore_errors=True)
        (root / place).mkdir(parents=True)
    for pattern in ("etc/apache2/conf-*/*cvmfs*", "etc/apache2/conf.d/*cvmfs*"):
        for path in root.glob(pattern):
            path.unlink()


def _configure(root: Path, enter: list[str], sessions: Path | None) -> Target:
    """Keys, recorded repositories and the first start of the gateway."""
    names = []
    if sessions is not None:
        names = install(sessions, root)
        for session in load_all(sessions).values():
            conf = root / f"etc/cvmfs/repositories.d/{session.fqrn}/server.conf"
            conf.write_text(conf.read_text().replace(str(root), ""))
        _serve(root, names)
    (root / "etc/cvmfs/gateway/repo.json").write_text(json.dumps(access_file(names)))
    (root / "etc/cvmfs/gateway/user.json").write_text("{}")
    subprocess.run([*enter, "apache2ctl", "restart"], check=False, capture_output=True)
    start = ["bash", "-eu", str(root / "start")]
    done = subprocess.run([*enter, *start], check=False, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"the reference's gateway does not start: {done.stderr}")
    return described(
        "cvmfs_gateway (reference)", GATEWAY, STRATUM0, root, sessions=sessions, restart_command=" ".join(start)
    )


def _serve(root: Path, names: list[str]) -> None:
    """Have Apache serve more repositories, with the configuration that it has for the first one."""
    for path in root.glob(f"etc/apache2/conf-*/*{FQRN}*"):
        if path.is_symlink():
            continue
        for name in names:
            made = path.with_name(path.name.replace(FQRN, name))
            made.write_text(path.read_text().replace(FQRN, name))
            enabled = root / "etc/apache2/conf-enabled" / made.name
            if path.parent.name == "conf-available" and not enabled.exists():
                enabled.symlink_to(f"../conf-available/{made.name}")


def main() -> None:
    """``python -m conformance.reference COMMAND``: run a command beside the reference, for trying things."""
    with reference() as (_, enter):
        sys.exit(subprocess.run([*enter, *sys.argv[1:]], check=False).returncode)


if __name__ == "__main__":
    main()
