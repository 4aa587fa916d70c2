"""External files: what a deployed publisher leaves where it is, and a mounted client and our reader get from there."""

from __future__ import annotations

import os
from pathlib import Path

from conformance.machines import content
from conformance.machines.snapshot import snapshot
from cvmfs_gw.client.reader import RepositoryReader
from tests.client.webfolder import served
from tests.e2e.world import NOBODY, World

FQRN = "external.example.org"
SETTINGS = (
    "CVMFS_EXTERNAL_DATA=true\nCVMFS_COMPRESSION_ALGORITHM=none\n"
    "CVMFS_MIN_CHUNK_SIZE=100000\nCVMFS_AVG_CHUNK_SIZE=200000\nCVMFS_MAX_CHUNK_SIZE=400000\n"
)


def fill(top: Path) -> None:
    content.put(top / "data/small", "small")
    content.put(top / "data/with a space ä", content.noise(1, 3_000_000))
    content.put(top / "data/empty", b"")


def test_external_files(world: World, tmp_path: Path) -> None:
    repository = world.mkfs(FQRN)
    world.serve()
    publisher = world.publisher("alpha", repository, settings=SETTINGS)
    publisher.publish(fill)
    fill(tmp_path / "elsewhere")
    expected = {path: node.sha1 for path, node in snapshot(tmp_path / "elsewhere/data").items()}
    with (
        served(tmp_path / "elsewhere") as url,
        world.client.mount(
            repository.target, {"CVMFS_EXTERNAL_URL": url, "CVMFS_EXTERNAL_HTTP_PROXY": "DIRECT"}
        ) as top,
        RepositoryReader(FQRN, repository.web, repository.key("pub"), [url]) as reader,
    ):
        large = reader.entry("/data/with a space ä")
        assert (large.is_external, large.is_chunked) == (True, True)
        assert {path: node.sha1 for path, node in snapshot(top / "data").items()} == expected
        where = world.folder / "target"
        where.mkdir()
        os.chown(where, NOBODY, NOBODY)
        arguments = ("get", "--external-url", url, "--pub", str(world.root / f"etc/cvmfs/keys/{FQRN}.pub"))
        world.program(*arguments, repository.web, "/data", str(where / "data"))
        assert {path: node.sha1 for path, node in snapshot(where / "data").items()} == expected
