"""Object packs: throughput over loopback into a store in memory."""

from __future__ import annotations

import itertools
import shutil
from typing import Final

from tests.bench.compare import both, medians, together
from tests.bench.servers import FQRN, Server
from tests.bench.table import Row

_MIB: Final = 1 << 20
_serial = itertools.count()


def rows(rounds: int) -> list[Row]:
    """The cases of the table; each sends about 200 MiB at a time."""
    result = []
    with both() as servers:
        for what, connections, count, size, unit, target in (
            ("200 KB objects, 1 connection", 1, 1000, 200_000, "MiB/s", "2.5x"),
            ("200 KB objects, 4 connections", 4, 300, 200_000, "MiB/s", "2.5x"),
            ("2 KB objects, 1 connection", 1, 50_000, 2_000, "objects/s", "1.5x"),
            ("2 KB objects, 4 connections", 4, 15_000, 2_000, "objects/s", ""),
            ("20 MB objects, 1 connection", 1, 10, 20_000_000, "MiB/s", ""),
        ):
            field = "bytes" if unit == "MiB/s" else "objects"
            scale = _MIB if unit == "MiB/s" else 1

            def measure(
                server: Server,
                connections: int = connections,
                count: int = count,
                size: int = size,
                field: str = field,
                scale: int = scale,
            ) -> float:
                value = _send(server, connections, count, size, field) / scale
                _empty(server)
                return value

            result.append(Row(what, *medians(servers, measure, rounds), unit, target))
    return result


def _send(server: Server, connections: int, count: int, size: int, field: str) -> float:
    """The sum of *field* for each second of the slowest connection."""
    clients = [server.client("payload", f"p{next(_serial)}", count=count, size=size) for _ in range(connections)]
    results = together(clients)
    return sum(result[field] for result in results) / max(result["seconds"] for result in results)


def _empty(server: Server) -> None:
    """Throw the objects away, and keep the folders and what is not an object of this benchmark."""
    data = server.root / "srv/cvmfs" / FQRN / "data"
    for path in data.iterdir():
        if len(path.name) == 2:
            shutil.rmtree(path)
            path.mkdir(mode=0o755)
