"""Leases: how many pairs of acquire and drop in a second."""

from __future__ import annotations

import itertools

from tests.bench.compare import both, medians, together
from tests.bench.servers import Server
from tests.bench.table import Row

_PAIRS = 400
_serial = itertools.count()


def rows(rounds: int) -> list[Row]:
    """One client and eight at once on paths of their own; with the lease database on disk and in memory."""
    result = []
    for memory in (False, True):
        with both(memory=memory) as servers:
            for connections in (1, 8):

                def measure(server: Server, connections: int = connections) -> float:
                    clients = [
                        server.client("leases", f"l{next(_serial)}", count=_PAIRS // connections)
                        for _ in range(connections)
                    ]
                    results = together(clients)
                    return sum(found["pairs"] for found in results) / max(found["seconds"] for found in results)

                where = "in memory" if memory else "on disk"
                what = f"acquire and drop, {where}, {connections} connection{'s' * (connections > 1)}"
                result.append(Row(what, *medians(servers, measure, rounds), "pairs/s", "" if memory else "3x"))
    return result
