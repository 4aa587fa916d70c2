"""The table on the terminal, and the progress while it is filled."""

from __future__ import annotations

import sys
from typing import Final, TextIO

from conformance.model import Case, Report, Result, Verdict
from conformance.registry import GROUPS

_COLOURS: Final = {
    Verdict.PASS: "\x1b[32m",
    Verdict.FAIL: "\x1b[31m",
    Verdict.DEVIATES: "\x1b[33m",
    Verdict.NOT_APPLICABLE: "\x1b[2m",
}
_MARKS: Final = {
    Verdict.PASS: "pass",
    Verdict.FAIL: "FAIL",
    Verdict.DEVIATES: "deviates",
    Verdict.NOT_APPLICABLE: "n/a",
}
_KNOWN: Final = "known"
_EVIDENCE: Final = 600


class Terminal:
    """Prints each case when it has ended. With *quiet*, only those that do not pass."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream, self._quiet = stream or sys.stdout, quiet
        self._fancy = self._stream.isatty()

    def progress(self, number: int, count: int, case: Case, result: Result | None) -> None:
        """See :data:`conformance.runner.Progress`."""
        if result is None:
            if self._fancy:
                self._write(f"\r\x1b[K[{number:3}/{count}] {case.id}", end="")
            return
        if self._fancy:
            self._write("\r\x1b[K", end="")
        if self._quiet and result.verdict in (Verdict.PASS, Verdict.NOT_APPLICABLE):
            return
        mark = _KNOWN if result.known else _MARKS[result.verdict]
        if self._fancy:
            mark = f"{_COLOURS[result.verdict]}{mark:8}\x1b[0m"
        self._write(f"{mark:8} {result.id:36} {result.seconds:6.2f} s  {result.requirement}")
        if result.verdict in (Verdict.FAIL, Verdict.DEVIATES):
            if result.known:
                self._write(f"{'':9}known: {result.known}")
            for line in result.evidence[:_EVIDENCE].splitlines():
                self._write(f"{'':9}{line}")

    def summary(self, report: Report) -> None:
        """Totals, group by group."""
        self._write(f"\n{report.target}: {len(report.results)} cases in {report.seconds:.0f} s")
        head = "".join(f"{_MARKS[verdict].lower():>10}" for verdict in Verdict)
        self._write(f"{'group':16}{head}")
        for group in GROUPS:
            found = [result for result in report.results if result.group == group]
            if found:
                row = "".join(f"{sum(r.verdict is verdict for r in found):>10}" for verdict in Verdict)
                self._write(f"{group:16}{row}")
        self._write(f"{'all':16}" + "".join(f"{report.count(verdict):>10}" for verdict in Verdict))
        if report.cut:
            self._write(f"{report.cut.capitalize()}.")
        known = sum(bool(result.known) for result in report.results)
        if known:
            self._write(f"{known} of the failures are known faults of this target.")

    def _write(self, text: str, end: str = "\n") -> None:
        print(text, end=end, file=self._stream, flush=True)
