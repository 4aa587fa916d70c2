"""Garbage collection: a million objects, half of them garbage, beside the program that ``cvmfs_server gc`` runs.

Seconds, and seconds of the processors (user and system, of all processes), which say more where others are at work.

The storage lies in memory and its objects are empty, as no collector reads them; catalogs are real. The reference gets
its catalogs from a web server, as always.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from cvmfs_gw.engine.configure import RepositoryOptions
from cvmfs_gw.engine.create import create_repository, write_whitelist
from cvmfs_gw.engine.publish import Publication, TagChanges
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.entry import FLAG_DIRECTORY, FLAG_FILE, FLAG_MOUNTPOINT, Counters, Entry
from cvmfs_objstore.hashes import Algorithm
from tests.bench.servers import FQRN, MEMORY
from tests.bench.table import Row

OBJECTS: Final = 1_000_000
CATALOGS: Final = 20
PROGRAM: Final = "cvmfs_swissknife"
PAST: Final = 1_700_000_000
# the reference looks for its statistics below /var/spool/cvmfs
_ENTER: Final = """
mkdir -p /var/spool/cvmfs /etc/cvmfs
mount --bind "$1/etc/cvmfs" /etc/cvmfs
mount --bind "$1/var/spool/cvmfs" /var/spool/cvmfs
shift
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What a command took: seconds, seconds of processors, MiB; and what it printed."""

    seconds: float
    processors: float
    memory: float
    output: bytes


def rows(rounds: int) -> list[Row]:
    """One row each for time, processor time and memory. A round takes a minute to prepare, so there are few."""
    runs: dict[str, list[Run]] = {"ours": [], "reference": []}
    for _ in range(max(1, rounds // 5)):
        for name, found in runs.items():
            if name == "reference" and (os.geteuid() or not all(map(shutil.which, (PROGRAM, "unshare")))):
                continue
            with tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as folder:
                repository = prepare(SystemPaths(folder), OBJECTS)
                before = count(repository)
                with served(repository.paths.storage) as url:
                    found.append(measure(ours(folder) if name == "ours" else reference(repository, url)))
                left = count(repository)
                assert before - left >= OBJECTS // 2, f"{name} removed {before - left} of {before} objects"
    for run in runs["ours"]:
        report = json.loads(run.output)
        inside = sum(report["seconds"].values())
        phases = {"start and end": run.seconds - inside, **report["seconds"]}
        print("ours: " + ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in phases.items()))
    what = f"{OBJECTS:,} objects, half of them garbage"
    return [
        _row(f"collect: {what}", runs, lambda run: run.seconds, "s", "2x"),
        _row(f"processors: {what}", runs, lambda run: run.processors, "s", ""),
        _row(f"peak memory: {what}", runs, lambda run: run.memory, "MiB", "below 400"),
    ]


def _row(what: str, runs: dict[str, list[Run]], value: Callable[[Run], float], unit: str, target: str) -> Row:
    medians = {name: statistics.median(map(value, found)) if found else None for name, found in runs.items()}
    assert medians["ours"] is not None
    return Row(what, medians["ours"], medians["reference"], unit, target, smaller_is_better=True)


def _directory(name: str, links: int, flags: int = 0) -> Entry:
    return Entry(links, None, 4096, 0o040755, PAST, 0, FLAG_DIRECTORY | flags, name, "", 0, 0, None)


def prepare(paths: SystemPaths, objects: int) -> Repository:
    """A repository whose second revision has half of the objects, and the third and fourth the other half."""
    options = RepositoryOptions("http://localhost/", garbage_collection=True, auto_tag=False)
    create_repository(FQRN, paths, {}, options, PAST)
    repository = Repository(FQRN, paths, {}, durable=False)
    write_whitelist(repository, time.time())
    share = objects // 2 // CATALOGS
    for revision, label in ((2, "garbage"), (3, "kept"), (4, "kept")):
        with Catalog.create("", _directory("", 2 + CATALOGS)) as root:
            below = Counters()
            for number in range(CATALOGS):
                top = f"/n{number}"
                with Catalog.create(top, _directory(top[1:], 2)) as nested:
                    digests = [hashlib.sha1(b"%s %d %d" % (label.encode(), number, n)).digest() for n in range(share)]
                    nested.put_new_rows(
                        Catalog.row(
                            f"{top}/f{n}", Entry(1, d, 0, 0o100644, PAST, 0, FLAG_FILE, f"f{n}", "", 0, 0, None)
                        )
                        for n, d in enumerate(digests)
                    )
                    own = nested.count_rows()
                    nested.set_counters(own, Counters())
                    ref = repository.catalogs.store(nested, Algorithm.SHA1)
                if revision < 4:
                    _plant(paths.repository_storage(FQRN), digests)
                root.put(top, _directory(top[1:], 2, FLAG_MOUNTPOINT))
                root.set_nested(top, ref)
                below.add(own)
            root.set_counters(root.count_rows(), below)
            root.set_property("revision", revision)
            root.set_property("last_modified", PAST + revision)
            head = repository.head()
            root.set_property("previous_revision", head.root_hash.bare)
            ref = repository.catalogs.store(root, Algorithm.SHA1)
        with closing(Publication(repository, head, TagChanges(), PAST + revision)) as publication:
            publication.publish(ref, revision, 240)
    for folder, _, names in os.walk(os.path.join(paths.repository_storage(FQRN), "data")):
        for path in (*(os.path.join(folder, name) for name in names), folder):
            os.utime(path, (PAST, PAST))
    return repository


def _plant(storage: str, digests: list[bytes]) -> None:
    for digest in digests:
        name = digest.hex()
        os.close(os.open(f"{storage}/data/{name[:2]}/{name[2:]}", os.O_CREAT | os.O_WRONLY, 0o644))


def count(repository: Repository) -> int:
    """How many objects there are."""
    return sum(1 for _ in repository.storage.list("data"))


def ours(root: str) -> list[str]:
    return [sys.executable, "-m", "cvmfs_gw", "--root", root, "gc", "--json", "-r", "0", FQRN]


def reference(repository: Repository, url: str) -> list[str]:
    paths = repository.paths
    storage, spool = paths.repository_storage(FQRN), paths.repository_spool(FQRN)
    return [
        "unshare", "--mount", "--propagation", "private", "bash", "-euc", _ENTER, "-", paths.root,
        PROGRAM, "gc", "-r", f"{url}/{FQRN}", "-u", f"local,{storage}/data/txn,{storage}", "-n", FQRN,
        "-k", paths.key_file(FQRN, "pub"), "-t", f"{spool}/tmp", "-R", f"{spool}/reflog.chksum", "-h", "0",
    ]  # fmt: skip


def measure(command: list[str]) -> Run:
    """Run a command that succeeds."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        taken = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        for file in (output, errors):
            file.seek(0)
        if process.returncode:
            said = output.read() + errors.read()
            raise RuntimeError(f"{command[0]}: {said[-2000:].decode(errors='replace')}")
        return Run(taken, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output.read())


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: str) -> Iterator[str]:
    """A web server for *folder* on loopback; yields its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
