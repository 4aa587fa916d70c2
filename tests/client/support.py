"""What the client's tests share: servers in a thread, and directories to publish."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from cvmfs_gw.api.app import make_app, make_runner
from cvmfs_gw.api.server import head_of
from cvmfs_gw.client.gateway import GatewayClient
from cvmfs_gw.client.keys import read_key_file
from cvmfs_gw.client.publish import publish
from cvmfs_gw.client.reader import RepositoryReader
from cvmfs_gw.client.request import Destination, PublishOptions, PublishReport, PublishRequest, Step
from cvmfs_gw.engine.commit import Engine
from cvmfs_gw.engine.configure import RepositoryOptions
from cvmfs_gw.engine.create import create_repository
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.gateway.config import Config
from cvmfs_gw.gateway.service import GatewayService
from cvmfs_gw.ingest.directory import DirectorySource
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.formats.entry import Kind
from cvmfs_objstore.hashes import Algorithm
from cvmfs_objstore.web import web_app
from tests.engine.repositories import FQRN

_DEADLINE = 30


class Server:
    """One repository, its gateway and its web server. As a context manager it serves, from a thread."""

    def __init__(self, root: str, keys: str, algorithm: Algorithm = Algorithm.SHA1) -> None:
        self.paths = SystemPaths(root)
        create_repository(
            FQRN, self.paths, {}, RepositoryOptions("http://localhost/", algorithm=algorithm, keys=keys), time.time()
        )
        self.repository = Repository(FQRN, self.paths, {}, durable=False)
        self.gateway = self.stratum0 = ""
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="server")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(_DEADLINE)
        if self._error is not None:
            raise self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_DEADLINE)
        assert not self._thread.is_alive()

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        engine = Engine(self.paths, {}, durable=False)
        config = Config.load(self.paths)
        os.makedirs(config.work_dir)
        service = GatewayService.open(
            config,
            self.paths,
            engine=engine,
            stores=lambda fqrn: engine.repository(fqrn).objects,
            head=lambda fqrn: head_of(engine, fqrn),
        )
        runners = [make_runner(make_app(service), 1), web.AppRunner(web_app(self.paths.storage), access_log=None)]
        await service.start()
        try:
            ports = []
            for runner in runners:
                await runner.setup()
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                ports.append(runner.addresses[0][1])
            self.gateway = f"http://127.0.0.1:{ports[0]}/api/v1"
            self.stratum0 = f"http://127.0.0.1:{ports[1]}/cvmfs/{FQRN}"
            self._ready.set()
            await self._stop.wait()
        finally:
            for runner in runners:
                await runner.cleanup()
            await service.close()

    # -- what clients do

    def request(self, directory: Path, target: str = "/t", **changes: object) -> PublishRequest:
        """A publish of *directory* at *target*; *changes* are fields that shall be others."""
        step = Step(target, DirectorySource(str(directory)))
        return self.steps(step, **changes)

    def steps(self, *steps: Step, **changes: object) -> PublishRequest:
        """A publish of *steps*; *changes* are fields of request, destination or options that shall be others."""
        key = read_key_file(self.paths.key_file(FQRN, "gw"))
        parts: dict[str, Any] = {
            "destination": Destination(FQRN, self.gateway, self.stratum0, key, self.public_keys),
            "options": PublishOptions(),
        }
        for name in list(changes):
            for part, value in parts.items():
                if name in {field.name for field in fields(value)}:
                    parts[part] = replace(value, **{name: changes.pop(name)})
        return replace(PublishRequest(parts["destination"], steps, options=parts["options"]), **changes)  # type: ignore[arg-type]

    def publish(self, directory: Path, target: str = "/t", **changes: object) -> PublishReport:
        return publish(self.request(directory, target, **changes))

    @property
    def public_keys(self) -> bytes:
        return Path(self.paths.key_file(FQRN, "pub")).read_bytes()

    def client(self) -> GatewayClient:
        return GatewayClient(self.gateway, read_key_file(self.paths.key_file(FQRN, "gw")), patience_s=0)

    def reader(self) -> RepositoryReader:
        return RepositoryReader(FQRN, self.stratum0, self.public_keys)

    def read(self, top: str = "") -> dict[str, bytes | None]:
        """Every path below *top* as clients see it: the content of files, the target of links, None for the rest."""
        found: dict[str, bytes | None] = {}
        with self.reader() as reader:
            queue = [top]
            while queue:
                directory = queue.pop()
                for entry in reader.entries(directory):
                    path = f"{directory}/{entry.name}"
                    found[path] = None
                    if entry.is_directory:
                        queue.append(path)
                    elif entry.kind is Kind.SYMLINK:
                        found[path] = os.fsencode(entry.symlink)
                    elif entry.kind is Kind.FILE:
                        found[path] = reader.read(path)
        return found

    @property
    def revision(self) -> int:
        return self.repository.head().revision

    def storage_file(self, name: str) -> Path:
        """A file of the repository's storage on disk."""
        return Path(self.paths.repository_storage(FQRN)) / name


def fill(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write *files*, by relative path, below *folder*."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
