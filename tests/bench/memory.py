"""Memory: the largest resident sets of the gateway and its processes while eight payloads of 2 GiB come in together."""

from __future__ import annotations

import itertools
import os
import shutil
from typing import Final

from tests.bench.compare import together
from tests.bench.servers import MEMORY, ours
from tests.bench.table import Row

_PAYLOADS: Final = 8
_SIZE: Final = 2 << 30
_serial = itertools.count()


def rows(rounds: int) -> list[Row]:
    """Once, with one object in each payload. The reference has a process for each receiver and is not measured."""
    # in memory only where there is plenty of it
    roomy = os.path.isdir(MEMORY) and shutil.disk_usage(MEMORY).free > 2 * _PAYLOADS * _SIZE
    with ours(memory=roomy) as server:
        before = server.memory_mib()
        clients = [server.client("payload", f"m{next(_serial)}", count=1, size=_SIZE) for _ in range(_PAYLOADS)]
        results = together(clients)
        seconds = max(result["seconds"] for result in results)
        return [
            Row("before", before, None, "MiB", "", smaller_is_better=True),
            Row("with 8 payloads of 2 GiB", server.memory_mib(), None, "MiB", "150", smaller_is_better=True),
            Row("together", _PAYLOADS * _SIZE / seconds / 2**20, None, "MiB/s"),
        ]
