"""Tables for a document: totals, groups, what each target fails and where it deviates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from conformance.model import Report, Result, Verdict
from conformance.registry import GROUPS

_ISSUE: Final = re.compile(r"cvmfs#(\d+)")
_SHORT: Final = {Verdict.DEVIATES: "deviates", Verdict.NOT_APPLICABLE: "n/a"}


def markdown(reports: Sequence[Report]) -> str:
    """The whole text."""
    parts = [_totals(reports), _groups(reports)]
    for report in reports:
        if any(result.verdict is Verdict.FAIL for result in report.results):
            parts.append(f"### What {report.target} fails\n{_failures(report)}")
        if any(result.verdict is Verdict.DEVIATES for result in report.results):
            parts.append(f"### Where {report.target} deviates\n{_deviations(report)}")
    return "\n\n".join(parts) + "\n"


def _totals(reports: Sequence[Report]) -> str:
    rows: list[list[object]] = [["cases", *(len(report.results) for report in reports)]]
    rows += [[verdict.value, *(report.count(verdict) for report in reports)] for verdict in Verdict]
    rows.append(["seconds", *(round(report.seconds) for report in reports)])
    return _table(["", *(report.target for report in reports)], rows, numbers=True)


def _groups(reports: Sequence[Report]) -> str:
    columns = [(report, verdict) for report in reports for verdict in Verdict]
    head = [f"{report.target}: {verdict.value}" if n % 4 == 0 else _SHORT.get(verdict, verdict.value)
            for n, (report, verdict) in enumerate(columns)]  # fmt: skip
    rows: list[list[object]] = []
    for group in GROUPS:
        found = [sum(r.group == group and r.verdict is verdict for r in report.results) for report, verdict in columns]
        if any(found):
            rows.append([group, *found])
    return _table(["group", *head], rows, numbers=True)


def _failures(report: Report) -> str:
    faults: dict[str, list[Result]] = {}
    for result in report.results:
        if result.verdict is Verdict.FAIL:
            faults.setdefault(result.known or "not known before", []).append(result)
    rows = [[_linked(fault), _ids(results)] for fault, results in faults.items()]
    return _table(["fault", "cases that show it"], rows)


def _deviations(report: Report) -> str:
    found = [result for result in report.results if result.verdict is Verdict.DEVIATES]
    rows = [[f"`{result.id}`: {_cell(result.requirement)}", _cell(result.evidence)] for result in found]
    return _table(["case", "what is different, and why"], rows)


def _ids(results: Iterable[Result]) -> str:
    return ", ".join(f"`{result.id}`" for result in results)


def _linked(fault: str) -> str:
    return _ISSUE.sub(r"[#\1](https://github.com/cvmfs/cvmfs/issues/\1)", _cell(fault))


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: bool = False) -> str:
    marks = ["---", *(["---:" if numbers else "---"] * (len(head) - 1))]
    lines = [head, marks, *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
