"""Measuring in turns: medians, and the ratio of each pair of rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from conformance.probe import Probe


@dataclass(frozen=True, slots=True)
class Job:
    """Something to measure: *run* gives a number in *unit*, of which more is better unless *small* is."""

    what: str
    unit: str
    run: Callable[[Probe], float]
    small: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What was found. ``ratio``: how many times better the first target is, with its spread; 0 for one target."""

    what: str
    unit: str
    targets: tuple[str, ...]
    medians: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    ratio: float = 0.0
    ratio_low: float = 0.0
    ratio_high: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(job: Job, probes: Sequence[Probe], rounds: int) -> Row:
    """Run *job* against all, turn and turn about, after one round that does not count."""
    found: list[list[float]] = [[] for _ in probes]
    for number in range(rounds + 1):
        for values, probe in zip(found, probes, strict=True):
            value = job.run(probe)
            if number:
                values.append(value)
    ratios = [0.0]
    if len(probes) == 2:
        pairs = zip(found[0], found[1], strict=True)
        ratios = sorted((b / a if job.small else a / b) if a and b else 0.0 for a, b in pairs)
    return Row(
        what=job.what,
        unit=job.unit,
        targets=tuple(probe.target.title for probe in probes),
        medians=tuple(statistics.median(values) for values in found),
        lowest=tuple(min(values) for values in found),
        highest=tuple(max(values) for values in found),
        ratio=statistics.median(ratios),
        ratio_low=ratios[0],
        ratio_high=ratios[-1],
    )


def render(rows: Sequence[Row]) -> str:
    """A table in plain text."""
    if not rows:
        return "nothing was measured"
    lines = [["what", "unit", *rows[0].targets, "ratio (lowest to highest)"]]
    for row in rows:
        values = [
            f"{median:,.4g} ({low:,.4g} to {high:,.4g})"
            for median, low, high in zip(row.medians, row.lowest, row.highest, strict=True)
        ]
        ratio = f"{row.ratio:.2f}x ({row.ratio_low:.2f} to {row.ratio_high:.2f})" if row.ratio else "-"
        lines.append([row.what, row.unit, *values, ratio])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)
