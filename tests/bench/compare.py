"""Measuring ours and the reference in turns, so that a noisy moment of the machine meets both."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tests.bench.servers import Client, Server, ours, reference, reference_missing


@contextmanager
def both(*, memory: bool = True) -> Iterator[list[Server]]:
    """Ours and, where it can run, the reference; in memory or on the disk of the folder for temporary files."""
    with ExitStack() as stack:
        servers = [stack.enter_context(ours(memory=memory))]
        if why := reference_missing():
            print(f"the reference is not measured: {why}", file=sys.stderr)
        else:
            servers.append(stack.enter_context(reference(memory=memory)))
        yield servers


def medians(servers: Sequence[Server], measure: Callable[[Server], float], rounds: int) -> tuple[float, float | None]:
    """The medians of what *measure* finds for ours and for the reference, after one round that does not count."""
    found: dict[str, list[float]] = {server.name: [] for server in servers}
    for number in range(rounds + 1):
        for server in servers:
            value = measure(server)
            if number:
                found[server.name].append(value)
    ours_median = statistics.median(found["ours"])
    return ours_median, statistics.median(found["reference"]) if "reference" in found else None


def together(clients: Sequence[Client]) -> list[dict[str, float]]:
    """Let all begin at once; returns their results."""
    for client in clients:
        client.go()
    return [client.result() for client in clients]
