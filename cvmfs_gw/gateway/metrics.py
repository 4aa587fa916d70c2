"""Counters and histograms for Prometheus.

They start at zero with the process and only grow; gauges are determined at the time of a scrape, see
:mod:`cvmfs_gw.api.metrics`.

Source: the Prometheus text exposition format, version 0.0.4.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

PREFIX: Final = "cvmfs_gateway_"

COUNTERS: Final[Mapping[str, str]] = {
    "lease_requests_total": "Requests for a lease, by outcome",
    "payloads_total": "Object packs, by outcome",
    "payload_bytes_total": "Bytes of object packs that were taken in",
    "payload_objects_total": "Objects in object packs: added, or there already",
    "commits_total": "Commits, by repository and outcome",
    "uploads_total": "Requests of the upload API that change something, by repository and outcome",
    "upload_bytes_total": "Bytes of bodies that the upload API took in",
    "upload_commits_total": "Commits that uploads were made visible in, by repository",
    "expired_entries_total": "Entries that were removed because their time was over, by repository",
    "http_requests_total": "HTTP requests, by method and status",
}
"""Name without the prefix -> what it counts."""

HISTOGRAMS: Final[Mapping[str, str]] = {
    "commit_seconds": "Time of commits by phase: waiting for their turn (queue), at work (engine), and parts of that",
    "http_request_seconds": "Time between a request and its reply, by method",
    "payload_seconds": "Time that object packs took from their first byte to their last",
}
"""Name without the prefix -> what is measured, in seconds."""

BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of every histogram's buckets, in seconds; one more has no bound."""

GAUGES: Final[Mapping[str, str]] = {
    "leases": "Leases that are alive, by state",
    "lease_waiters": "Requests that wait for a path to become free",
    "payloads_running": "Object packs that are coming in",
    "commits_running": "Commits that are at work or wait for their turn",
    "uploads_running": "Bodies of uploads that are coming in",
    "uploads_waiting": "Uploads that wait for their commit",
    "whitelist_valid_seconds": "How long a repository's whitelist is still good",
    "clock_step_seconds": "How much the system's clock is ahead of the one that times to live are measured with",
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
    """All counters and histograms of a gateway. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[str, Labels], float] = {}
        self._histograms: dict[tuple[str, Labels], _Histogram] = {}

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        """Let a counter grow by *value*; *name* is one of :data:`COUNTERS`."""
        assert name in COUNTERS, name
        key = (name, tuple(sorted(labels.items())))
        with self._lock:
            self._values[key] = self._values.get(key, 0) + value

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Enter a measurement in a histogram; *name* is one of :data:`HISTOGRAMS`."""
        assert name in HISTOGRAMS, name
        key = (name, tuple(sorted(labels.items())))
        with self._lock:
            histogram = self._histograms.get(key)
            if histogram is None:
                histogram = self._histograms[key] = _Histogram()
            histogram.buckets[bisect_left(BOUNDS, seconds)] += 1
            histogram.sum += seconds

    def total(self, name: str) -> float:
        """The sum over all labels."""
        with self._lock:
            return sum(value for (known, _), value in self._values.items() if known == name)

    def samples(self) -> list[Sample]:
        with self._lock:
            samples = [Sample(name, value, labels) for (name, labels), value in self._values.items()]
            for (name, labels), histogram in self._histograms.items():
                samples += histogram.samples(name, labels)
            return samples


class _Histogram:
    """How many measurements fell between two bounds, and the sum of all."""

    __slots__ = ("buckets", "sum")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def samples(self, name: str, labels: Labels) -> list[Sample]:
        """What Prometheus wants to see: how many were no longer than each bound."""
        *upto, count = accumulate(self.buckets)
        bounds = [*zip(map(str, BOUNDS), upto, strict=True), ("+Inf", count)]
        samples = [Sample(f"{name}_bucket", seen, (*labels, ("le", bound))) for bound, seen in bounds]
        return [*samples, Sample(f"{name}_sum", self.sum, labels), Sample(f"{name}_count", count, labels)]


def render(samples: Iterable[Sample]) -> str:
    """The text that Prometheus reads: metrics in the order of their names, the parts of a histogram as they come."""
    lines: list[str] = []
    last = ""
    for sample in sorted(samples, key=_order):
        family = _family(sample.name)
        if family != last:
            last = family
            kind, words = next((kind, words[last]) for kind, words in _KINDS.items() if last in words)
            lines.append(f"# HELP {PREFIX}{last} {words}")
            lines.append(f"# TYPE {PREFIX}{last} {kind}")
        labels = ",".join(f'{name}="{_escape(value)}"' for name, value in sample.labels)
        value = int(sample.value) if float(sample.value).is_integer() else sample.value
        lines.append(f"{PREFIX}{sample.name}{{{labels}}} {value}" if labels else f"{PREFIX}{sample.name} {value}")
    return "\n".join(lines) + "\n"


_KINDS: Final = {"counter": COUNTERS, "gauge": GAUGES, "histogram": HISTOGRAMS}
_PART: Final = re.compile("_(bucket|sum|count)$")


def _family(name: str) -> str:
    """The metric that a sample is of."""
    whole = _PART.sub("", name)
    return whole if whole in HISTOGRAMS else name


def _order(sample: Sample) -> tuple[str, Labels]:
    return _family(sample.name), tuple(label for label in sample.labels if label[0] != "le")


def _escape(value: str) -> str:
    text = value.encode("utf-8", "replace").decode()
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
