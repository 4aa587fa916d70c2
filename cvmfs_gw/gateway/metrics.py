"""What has happened, in numbers: counters for Prometheus.

Source: the Prometheus text exposition format, version 0.0.4. Counters only grow and begin at zero with the process;
what is the case right now (gauges) is asked for when somebody looks, see :mod:`cvmfs_gw.api.metrics`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

PREFIX: Final = "cvmfs_gateway_"

COUNTERS: Final[Mapping[str, str]] = {
    "lease_requests_total": "Requests for a lease, by outcome",
    "payloads_total": "Object packs, by outcome",
    "payload_bytes_total": "Bytes of object packs that were taken in",
    "payload_objects_total": "Objects in object packs: added, or there already",
    "payload_seconds_total": "Time that object packs took from their first byte to their last",
    "commits_total": "Commits, by repository and outcome",
    "commit_seconds_total": "Time of commits by phase: waiting for their turn (queue), and at work (engine)",
    "http_requests_total": "HTTP requests, by method and status",
    "http_request_seconds_total": "Time between a request and its reply",
}
"""Name without the prefix -> what it counts."""

GAUGES: Final[Mapping[str, str]] = {
    "leases": "Leases that are alive, by state",
    "lease_waiters": "Requests that wait for a path to become free",
    "payloads_running": "Object packs that are coming in",
    "commits_running": "Commits that are at work or wait for their turn",
    "http_requests_running": "HTTP requests that are being answered",
    "subscribers": "Open notification streams",
    "repository_revision": "Published revision",
    "repository_published_timestamp_seconds": "When the present revision was published",
    "repository_enabled": "Whether leases are granted",
    "store_free_bytes": "Free space of the file system of a repository's store",
    "store_size_bytes": "Size of the file system of a repository's store",
    "resident_memory_bytes": "Memory of the process",
    "start_timestamp_seconds": "When the process started",
}

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One number: the metric's name without prefix, its labels, its value."""

    name: str
    value: float
    labels: Labels = ()


class Metrics:
    """All counters of a gateway. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[str, Labels], float] = {}

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        """Let a counter grow by *value*; *name* is one of :data:`COUNTERS`."""
        assert name in COUNTERS, name
        key = (name, tuple(sorted(labels.items())))
        with self._lock:
            self._values[key] = self._values.get(key, 0) + value

    def total(self, name: str) -> float:
        """The sum over all labels."""
        with self._lock:
            return sum(value for (known, _), value in self._values.items() if known == name)

    def samples(self) -> list[Sample]:
        with self._lock:
            return [Sample(name, value, labels) for (name, labels), value in self._values.items()]


def render(samples: Iterable[Sample]) -> str:
    """The text that Prometheus reads: metrics in the order of their names."""
    lines: list[str] = []
    last = ""
    for sample in sorted(samples, key=lambda sample: (sample.name, sample.labels)):
        if sample.name != last:
            last = sample.name
            kind = "counter" if last in COUNTERS else "gauge"
            lines.append(f"# HELP {PREFIX}{last} {COUNTERS.get(last) or GAUGES[last]}")
            lines.append(f"# TYPE {PREFIX}{last} {kind}")
        labels = ",".join(f'{name}="{_escape(value)}"' for name, value in sample.labels)
        value = int(sample.value) if float(sample.value).is_integer() else sample.value
        lines.append(f"{PREFIX}{sample.name}{{{labels}}} {value}" if labels else f"{PREFIX}{sample.name} {value}")
    return "\n".join(lines) + "\n"


def _escape(value: str) -> str:
    text = value.encode("utf-8", "replace").decode()
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
