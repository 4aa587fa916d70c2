"""Nobody waits: how long small requests take while a payload of 2 GiB and commits are under way (99th percentile)."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

from tests.bench.servers import FQRN, Server, ours
from tests.bench.table import Row

_SIZE: Final = 2 << 30
_FILES: Final = 4000


def rows(rounds: int) -> list[Row]:
    """Quiet first, then with a payload after the other and a publish after the other, *rounds* times."""
    with ours(web=True) as server:
        quiet = _probe(server, lambda: threading.Event().wait(3.0))
        busy = _probe(server, lambda: _work(server, rounds))
    result = []
    for name, times in busy.items():
        result.append(Row(f"{name}, quiet", _percentile(quiet[name]), None, "ms"))
        result.append(Row(f"{name}, busy ({len(times)})", _percentile(times), None, "ms", "50"))
    return result


def _probe(server: Server, work: object) -> dict[str, list[float]]:
    probe = server.client("probe", "probe", pause=0.01, renew=True).go()
    assert callable(work)
    work()
    times = probe.result()["times"]
    assert isinstance(times, dict)
    return times


def _work(server: Server, rounds: int) -> None:
    for number in range(rounds):
        payload = server.client("payload", f"big{number}", count=1, size=_SIZE).go()
        publishing = threading.Thread(target=_publish, args=(server, number))
        publishing.start()
        payload.result()
        publishing.join()


def _publish(server: Server, number: int) -> None:
    source = server.root / f"source{number}"
    for index in range(_FILES):
        path = source / str(index % 50) / f"{index}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number} {index}")
    url = f"http://127.0.0.1:{server.port}/api/v1"
    web = f"http://127.0.0.1:{server.web}/cvmfs/{FQRN}"
    command = [sys.executable, "-m", "cvmfs_gw", "--root", str(server.root), "publish", "-q"]
    command += ["--gateway", url, "--stratum0", web, f"{FQRN}/tree{number}", str(source)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[2])


def _percentile(times: list[float]) -> float:
    """The 99th, in milliseconds."""
    return sorted(times)[int(len(times) * 0.99)] * 1000
