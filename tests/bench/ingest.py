"""Taking files in: cutting, tiny files and large ones, in microseconds and MiB of processor time; nothing is published.

Processor time, as the work is divided among all cores: 40 microseconds for each of 50,000 files on two cores are one
second. The reference is measured where it takes part in a publish: by the bench of publishing.
"""

from __future__ import annotations

import io
import os
import random
import resource
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Final

from cvmfs_gw.engine.configure import RepositoryOptions
from cvmfs_gw.engine.create import create_repository
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.ingest.archive import ArchiveSource
from cvmfs_gw.ingest.contents import ContentOptions, Contents
from cvmfs_gw.ingest.directory import DirectorySource
from cvmfs_gw.ingest.gather import gather
from cvmfs_gw.ingest.items import Source
from cvmfs_gw.ingest.overlay import Replace
from cvmfs_gw.ingest.plan import PlanOptions, plan
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.chunking import Chunker
from cvmfs_objstore.chunksizes import DEFAULT_SIZES
from cvmfs_objstore.compression import Compression
from cvmfs_objstore.local import LocalStorage
from tests.bench.servers import MEMORY
from tests.bench.table import Row

_MIB: Final = 1 << 20
_FILES: Final = 50_000
_LARGE: Final = 512 * _MIB
_FQRN: Final = "bench.example.org"


def rows(rounds: int) -> list[Row]:
    """Everything in memory, and every contents stored anew in each round."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as name:
        folder = Path(name)
        tiny, archive = _tiny_files(folder / "tiny"), folder / "tiny.tar"
        with tarfile.open(archive, "w") as made:
            made.add(tiny, ".")
        found = [_cutting("cut noise", random.Random(1).randbytes, rounds), _cutting("cut zeros", bytes, rounds)]
        found.append(_tiny(folder, "50,000 tiny files of a directory", lambda: DirectorySource(str(tiny)), rounds))
        found.append(_tiny(folder, "50,000 tiny files of a tar", lambda: ArchiveSource(_opened(archive)), rounds))
        large = _large_file(folder / "large")
        for what, options in (
            ("512 MiB, stock zlib", ContentOptions()),
            ("512 MiB, fast encoder", ContentOptions(fast=True)),
            ("512 MiB, not compressed", ContentOptions(compression=Compression.NONE)),
        ):
            found.append(_large(folder, what, large, options, rounds))
    return found


def _opened(path: Path) -> io.BytesIO:
    """The archive, so that no file stays open."""
    return io.BytesIO(path.read_bytes())


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _measured(work: Callable[[], object], rounds: int) -> float:
    """The median of the processor time of *work*, in seconds, after a round that does not count."""
    times = []
    for _ in range(rounds + 1):
        before = _cpu()
        work()
        times.append(_cpu() - before)
    return median(times[1:])


def _cutting(what: str, make: Callable[[int], bytes], rounds: int) -> Row:
    data = memoryview(make(128 * _MIB))

    def cut() -> None:
        chunker = Chunker(DEFAULT_SIZES)
        for at in range(0, len(data), _MIB):
            chunker.feed(data[at : at + _MIB])

    return Row(what, 128 / _measured(cut, rounds), None, "MiB/s", "several 100")


def _tiny_files(folder: Path) -> Path:
    generator = random.Random(1)
    for number in range(_FILES):
        if number % 100 == 0:
            (folder / f"d{number // 100}").mkdir(parents=True)
        (folder / f"d{number // 100}/f{number}").write_bytes(generator.randbytes(generator.randrange(20, 200)))
    return folder


def _large_file(path: Path) -> Path:
    """Half of it noise, half of it repetition, in turns of 8 MiB."""
    generator = random.Random(1)
    with path.open("wb") as file:
        for number in range(0, _LARGE, 8 * _MIB):
            file.write(
                generator.randbytes(8 * _MIB) if number // (8 * _MIB) % 2 else b"many words, " * (8 * _MIB // 12)
            )
    return path


def _tiny(folder: Path, what: str, source: Callable[[], Source], rounds: int) -> Row:
    """Reading, storing and planning."""
    paths = SystemPaths(str(folder / "system"))
    if not os.path.exists(paths.repository_storage(_FQRN)):
        create_repository(_FQRN, paths, {}, RepositoryOptions("http://localhost/"), 1)
    repository = Repository(_FQRN, paths, {}, durable=False)

    def work() -> None:
        with closing(_storage(folder)) as storage, Contents(storage) as contents:
            gathered = gather(source(), contents)
        with closing(CatalogTree(repository.catalogs, repository.head().root_hash)) as tree:
            assert len(plan(tree, [Replace(gathered, "/tiny")], PlanOptions(1)).changes) > _FILES

    return Row(what, _measured(work, rounds) / _FILES * 1e6, None, "us each", "40", smaller_is_better=True)


def _large(folder: Path, what: str, path: Path, options: ContentOptions, rounds: int) -> Row:
    def work() -> None:
        with closing(_storage(folder)) as storage, Contents(storage, options) as contents, path.open("rb") as file:
            contents.add(file, _LARGE)
            contents.finish()

    return Row(what, _LARGE / _MIB / _measured(work, rounds), None, "MiB/s of a core")


def _storage(folder: Path) -> LocalStorage:
    shutil.rmtree(folder / "storage", ignore_errors=True)
    return LocalStorage.create(str(folder / "storage"), durable=False)
