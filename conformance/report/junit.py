"""JUnit XML, as continuous integration reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import quoteattr

from conformance.model import Report, Result, Verdict

_SKIPPED: Final = Verdict.NOT_APPLICABLE
# XML 1.0 has no way to write these at all.
_FORBIDDEN: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(reports: Sequence[Report]) -> str:
    """The whole document: a test suite for each target."""
    found = [result for report in reports for result in report.results]
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    lines.append(f"<testsuites {_counts(found)} {_time(sum(report.seconds for report in reports))}>")
    for report in reports:
        head = f"name={_attribute(report.target)} timestamp={_attribute(report.started[:19])}"
        lines.append(f"<testsuite {head} {_counts(report.results)} {_time(report.seconds)}>")
        lines += [_case(report, result) for result in report.results]
        lines.append("</testsuite>")
    return "\n".join([*lines, "</testsuites>", ""])


def _counts(results: Sequence[Result]) -> str:
    failed, skipped = (sum(result.verdict is kind for result in results) for kind in (Verdict.FAIL, _SKIPPED))
    return f'tests="{len(results)}" failures="{failed}" skipped="{skipped}" errors="0"'


def _time(seconds: float) -> str:
    return f'time="{seconds:.3f}"'


def _case(report: Report, result: Result) -> str:
    # Many readers show class and name only: the target is part of the one, or two targets would be mixed up.
    name = _attribute(f"{report.target}.{result.group}")
    head = f"<testcase classname={name} name={_attribute(result.id)} {_time(result.seconds)}"
    text = _attribute(result.evidence)
    if result.verdict is Verdict.FAIL:
        kind = _attribute(f"known: {result.known}" if result.known else "fail")
        return (
            f"{head}><failure type={kind} message={_attribute(result.requirement)}>{_text(result)}</failure></testcase>"
        )
    if result.verdict is _SKIPPED:
        return f"{head}><skipped message={text}/></testcase>"
    if result.verdict is Verdict.DEVIATES:
        return f'{head}><properties><property name="deviates" value={text}/></properties></testcase>'
    return f"{head}/>"


def _text(result: Result) -> str:
    clean = _FORBIDDEN.sub("\ufffd", f"{result.evidence}\n\n{result.requests}".strip())
    return clean.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _attribute(text: str) -> str:
    return quoteattr(_FORBIDDEN.sub("\ufffd", text))
