"""How long a commit takes, from its POST to the reply, beside the reference where its programs are on PATH.

Run ``python -m tests.bench.commit`` (as root, to have the reference measured: it wants the system's paths and its port,
and gets them in name spaces of its own). Both stores are on tmpfs, both gateways are asked by this one client, turn
and turn about; the table shows medians. Below each line is what our commits' time was spent on, on average.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Final

from cvmfs_gw.client.gateway import GatewayClient
from cvmfs_gw.client.keys import read_key_file
from cvmfs_gw.client.remote import RemoteStorage
from cvmfs_gw.client.spool import Spool, SpoolPack
from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.configure import RepositoryOptions
from cvmfs_gw.engine.create import create_repository
from cvmfs_gw.engine.phases import PHASES
from cvmfs_gw.engine.publish import Publication, TagChanges
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.compression import deflate
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.entry import FLAG_FILE, FLAG_MOUNTPOINT, Counters, Entry
from cvmfs_objstore.formats.manifest import SignedManifest
from cvmfs_objstore.hashes import Algorithm, ContentHash
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.objects import ObjectStore

SCRATCH: Final = "/dev/shm/cvmfs-gw-bench"
INSIDE: Final = "CVMFS_GW_BENCH_INSIDE"
WEB: Final = 18080
PORTS: Final = {"ours": 14929, "reference": 4929}
NOW: Final = 1_700_000_000


@dataclass(frozen=True)
class Scenario:
    """A repository's state and the commit that is measured on it."""

    name: str
    title: str
    target: float
    """The most that ours may take of the reference's time."""
    rounds: int
    lease: str
    files: int = 1

    @property
    def repositories(self) -> list[str]:
        """One for all rounds, or one for each where a commit would leave a much larger one."""
        if self.files == 1:
            return [f"{self.name}.example.org"]
        return [f"{self.name}{number}.example.org" for number in range(self.rounds + 1)]


SCENARIOS: Final = (
    Scenario("small", "one new file, small repository", 1 / 3, 15, ""),
    Scenario("root", "one new file, root catalog of 150,000 entries, lease on the root", 1 / 10, 7, ""),
    Scenario("deep", "the same with a lease three levels down", 1 / 5, 7, "/d1/e1/g1"),
    Scenario("nested", "one new file in one of 20 nested catalogs of 50,000 entries", 1 / 3, 9, "/n7"),
    Scenario("many", "100,000 new files in one commit", 1 / 2, 3, "", 100_000),
)
WRITERS: Final = 20


def directory_entry(name: str, subdirectories: int = 0) -> Entry:
    """A directory."""
    return Entry(2 + subdirectories, None, 4096, 0o040755, NOW, 0, 1, name, "", 0, 0, None)


def file_entry(name: str, content: ContentHash) -> Entry:
    """A small file."""
    return Entry(1, content.digest, 8, 0o100644, NOW, 0, FLAG_FILE, name, "", 0, 0, None)


def fill(catalog: Catalog, top: str, folders: int, files: int, content: ContentHash) -> int:
    """Put *folders* directories below *top*, each with two more levels and *files* files; returns how many."""
    rows = []
    for number in range(folders):
        path = f"{top}/d{number}"
        rows.append(Catalog.row(path, directory_entry(f"d{number}", 1)))
        rows.append(Catalog.row(f"{path}/e1", directory_entry("e1", 1)))
        rows.append(Catalog.row(f"{path}/e1/g1", directory_entry("g1")))
        rows += [Catalog.row(f"{path}/e1/g1/f{n}", file_entry(f"f{n}", content)) for n in range(files)]
    catalog.put_new_rows(rows)
    return folders


def build(fqrn: str, paths: SystemPaths, scenario: Scenario) -> None:
    """Make the repository and its first revision on disk."""
    options = RepositoryOptions(f"http://127.0.0.1:{WEB}/{'o' if paths.root != '/' else 'r'}/{fqrn}")
    repository = create_repository(fqrn, paths, {}, options, time.time())
    content = repository.objects.add(b"content\n", Algorithm.SHA1, deflate=deflate)
    with Catalog.create("", directory_entry("")) as root:
        below = Counters()
        subdirectories = 0
        if scenario.name in ("root", "deep"):
            subdirectories = fill(root, "", 150, 997, content)
        elif scenario.name == "nested":
            subdirectories = 20
            for number in range(20):
                path = f"/n{number}"
                entry = directory_entry(f"n{number}", 50)
                with Catalog.create(path, entry) as nested:
                    fill(nested, path, 50, 997, content)
                    own = nested.count_rows()
                    nested.set_counters(own, Counters())
                    ref = repository.catalogs.store(nested, Algorithm.SHA1)
                    below.add(own)
                root.put(path, entry._replace(flags=1 | FLAG_MOUNTPOINT))
                root.set_nested(path, ref)
        else:
            subdirectories = WRITERS
            root.put_new_rows(Catalog.row(f"/w{n:02}", directory_entry(f"w{n:02}")) for n in range(WRITERS))
        root.put("", directory_entry("", subdirectories))
        root.set_counters(root.count_rows(), below)
        root.set_property("revision", 2)
        root.set_property("TTL", 240)
        head = repository.head()
        ref = repository.catalogs.store(root, Algorithm.SHA1)
    with closing(Publication(repository, head, TagChanges(), time.time())) as publication:
        publication.publish(ref, 2, 240)


class Target:
    """One gateway with the repositories that it serves."""

    def __init__(self, name: str, root: str) -> None:
        self.name = name
        self.paths = SystemPaths(root)
        self.url = f"http://127.0.0.1:{PORTS[name]}/api/v1"
        self._serial = 0

    def prepare(self, fqrn: str, scenario: Scenario, label: str) -> tuple[ContentHash, ContentHash, list[SpoolPack]]:
        """What a publisher with a fresh mount would upload: the new files, and catalogs made from the head."""
        storage = LocalStorage(self.paths.repository_storage(fqrn), durable=False)
        head = SignedManifest.parse(storage.read(".cvmfspublished")).manifest.root_hash
        storage.close()
        spool = Spool(SCRATCH)
        side = "o" if self.name == "ours" else "r"
        objects = ObjectStore(RemoteStorage(f"http://127.0.0.1:{WEB}/{side}/{fqrn}", spool))
        self._serial += 1
        with closing(CatalogTree(CatalogStore(objects), head)) as tree:
            top = scenario.lease
            if scenario.files > 1:
                top = f"/many{self._serial}"
                tree.put(top, directory_entry(top[1:]), (), None)
            for number in range(scenario.files):
                data = b"%s %d %d\n" % (label.encode(), self._serial, number)
                content = objects.add(data, Algorithm.SHA1, deflate=deflate)
                name = f"new-{label}-{self._serial}-{number}"
                tree.put(f"{top}/{name}", file_entry(name, content)._replace(size=len(data)), (), None)
            root, _ = tree.store(int(time.time()), Algorithm.SHA1)
        return head, root.hash, [SpoolPack(spool, [*spool.items()])]

    def commit(self, fqrn: str, scenario: Scenario, label: str = "x") -> float:
        """One whole publish; returns the seconds from the POST of the commit to its reply."""
        old, new, ready = self.prepare(fqrn, scenario, label)
        with closing(GatewayClient(self.url, read_key_file(self.paths.key_file(fqrn, "gw")))) as gateway:
            token = gateway.acquire(f"{fqrn}{scenario.lease or '/'}")
            for pack in ready:
                gateway.upload(token, pack)
            started = time.perf_counter()
            gateway.commit(token, old, new, "generic-")
            return time.perf_counter() - started


def phases(target: Target) -> dict[str, float]:
    """Seconds that the gateway's commits have spent on each phase so far; empty where it does not say."""
    try:
        with urllib.request.urlopen(target.url.removesuffix("/api/v1") + "/metrics", timeout=5) as reply:
            text = reply.read().decode()
    except OSError:
        return {}
    found = re.findall(r'^cvmfs_gateway_commit_seconds_sum\{phase="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return {phase: float(seconds) for phase, seconds in found}


def show_phases(before: dict[str, float], after: dict[str, float], commits: int) -> None:
    """What a commit's time was spent on, on average, in milliseconds."""
    spent = {phase: (seconds - before.get(phase, 0)) / commits * 1000 for phase, seconds in after.items()}
    parts = [f"{phase} {spent[phase]:.1f}" for phase in ("queue", *PHASES) if phase in spent]
    if parts:
        print(f"{'':8}{', '.join(parts)}", flush=True)


def writers(target: Target, fqrn: str, seconds: float) -> float:
    """Commits a second of twenty writers on disjoint paths, one file a commit, each with what it has ready."""
    done = 0
    lock = threading.Lock()
    end = time.perf_counter() + seconds

    def write(number: int) -> None:
        nonlocal done
        scenario = Scenario("", "", 0, 0, f"/w{number:02}")
        while time.perf_counter() < end:
            target.commit(fqrn, scenario, f"w{number}")
            with lock:
                done += 1

    started = time.perf_counter()
    threads = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done / (time.perf_counter() - started)


@contextmanager
def process(*command: str, ready: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """A server for as long as the block lasts."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + 30
        while not ready():
            if time.monotonic() > deadline or server.poll() is not None:
                raise RuntimeError(f"{command[0]} does not start")
            time.sleep(0.05)
        try:
            yield server
        finally:
            server.terminate()
            server.wait()


def answers(url: str) -> bool:
    """Whether anything is served at *url*."""
    try:
        urllib.request.urlopen(url, timeout=1).close()
    except OSError:
        return False
    return True


def serve_files() -> None:
    """A web server for both storages, below ``/o`` and ``/r``."""
    from aiohttp import web

    app = web.Application()
    app.router.add_static("/o", f"{SCRATCH}/ours/srv/cvmfs")
    app.router.add_static("/r", "/srv/cvmfs")
    web.run_app(app, host="127.0.0.1", port=WEB, print=lambda *_: None, access_log=None)


def start(stack: ExitStack, targets: list[Target]) -> dict[str, int]:
    """Start the web server and the gateways; returns process ids by target name."""
    python = sys.executable
    os.makedirs("/srv/cvmfs", exist_ok=True)
    stack.enter_context(
        process(
            python,
            "-m",
            "tests.bench.commit",
            "--files",
            ready=lambda: answers(f"http://127.0.0.1:{WEB}/o/info/v1/meta.json"),
        )
    )
    pids = {}
    for target in targets:
        if target.name == "ours":
            command = [
                python, "-m", "cvmfs_gw", "--root", target.paths.root, "serve", "--host", "127.0.0.1",
                "--port", str(PORTS["ours"]), "--no-web", "--no-fsync",
            ]  # fmt: skip
        else:
            command = ["cvmfs_gateway"]
        pids[target.name] = stack.enter_context(
            process(*command, ready=functools.partial(answers, target.url + "/repos"))
        ).pid
    return pids


def peak_memory(pid: int) -> float:
    """Peak resident memory of a process and its children in MiB."""
    total = 0.0
    for number in [str(pid), *subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()]:
        try:
            with open(f"/proc/{number}/status", encoding="ascii") as status:
                total += next(float(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            continue
    return total


def run(names: list[str]) -> None:
    """Measure and print the table."""
    shutil.rmtree(SCRATCH, ignore_errors=True)
    targets = [Target("ours", f"{SCRATCH}/ours")]
    if os.environ.get(INSIDE) == "reference":
        targets.append(Target("reference", "/"))
    scenarios = [scenario for scenario in SCENARIOS if not names or scenario.name in names]
    for scenario in scenarios:
        for fqrn in scenario.repositories:
            for target in targets:
                build(fqrn, target.paths, scenario)
    for target in targets:
        build("writers.example.org", target.paths, SCENARIOS[0])
        gateway = os.path.dirname(target.paths.access_config)
        with open(f"{gateway}/user.json", "w", encoding="utf-8") as file:
            json.dump({"work_dir": target.paths.work_dir, "log_level": "error"}, file)
        os.makedirs(target.paths.work_dir, exist_ok=True)
    with ExitStack() as stack:
        pids = start(stack, targets)
        print(f"{'change':66} {'ours':>9} {'reference':>10} {'ratio':>7} {'at most':>8}")
        for scenario in scenarios:
            times: dict[str, list[float]] = {target.name: [] for target in targets}
            before: dict[str, float] = {}
            for number in range(scenario.rounds + 1):
                if number == 1:
                    before = phases(targets[0])
                for target in targets:
                    taken = target.commit(scenario.repositories[number % len(scenario.repositories)], scenario)
                    if number:  # the first one warms up
                        times[target.name].append(taken)
            show(
                scenario.title,
                {name: statistics.median(found) * 1000 for name, found in times.items()},
                scenario.target,
            )
            show_phases(before, phases(targets[0]), scenario.rounds)
        if not names or "writers" in names:
            rates = {target.name: writers(target, "writers.example.org", 10) for target in targets}
            show(f"{WRITERS} writers at once, commits/s", rates, 3)
        for name, pid in pids.items():
            print(f"peak memory, {name}: {peak_memory(pid):.0f} MiB")
    shutil.rmtree(SCRATCH, ignore_errors=True)


def show(title: str, values: dict[str, float], target: float) -> None:
    """One line of the table: milliseconds, or whatever the title says."""
    ours, reference = values["ours"], values.get("reference")
    if reference is None:
        print(f"{title:66} {ours:9.1f} {'-':>10}", flush=True)
    else:
        print(f"{title:66} {ours:9.1f} {reference:10.1f} {ours / reference:7.3f} {target:8.3f}", flush=True)


def main() -> None:
    """Run inside of name spaces of our own where the reference can be measured, else as we are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", help="some of: small root deep nested many writers (default: all)")
    parser.add_argument("--files", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.files:
        serve_files()
        return
    if INSIDE in os.environ or os.geteuid() or not shutil.which("cvmfs_gateway") or not shutil.which("unshare"):
        run(arguments.scenarios)
        return
    # The reference insists on its paths and listens on every interface: it gets a file system and a network alone.
    script = (
        "set -e; ip link set lo up; for d in /etc/cvmfs /srv /var/spool/cvmfs /var/lib/cvmfs-gateway; do mkdir -p $d;"
        ' mount -t tmpfs none $d; done; exec "$@"'
    )
    inner = [sys.executable, "-m", "tests.bench.commit", *arguments.scenarios]
    subprocess.run(
        [
            "unshare",
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
            script,
            "-",
            *inner,
        ],
        env={**os.environ, INSIDE: "reference"},
        check=True,
    )


if __name__ == "__main__":
    main()
