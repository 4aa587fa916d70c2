"""What a benchmark hands back, and how it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: ours, the reference's (None: not there), and what was aimed at, in words."""

    what: str
    ours: float
    reference: float | None
    unit: str
    target: str = ""
    smaller_is_better: bool = False

    @property
    def ratio(self) -> str:
        """How many times better ours is."""
        if not self.reference or not self.ours:
            return "-"
        ratio = self.reference / self.ours if self.smaller_is_better else self.ours / self.reference
        return f"{ratio:.2f}x"


_HEAD = ("what", "ours", "reference", "unit", "ratio", "target")


def render(rows: Sequence[Row]) -> str:
    """A table in plain text, which is Markdown at the same time."""
    cells = [_HEAD] + [
        (
            row.what,
            _number(row.ours),
            "-" if row.reference is None else _number(row.reference),
            row.unit,
            row.ratio,
            row.target,
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
