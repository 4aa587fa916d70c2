"""JUnit XML, as continuous integration reads it."""

from __future__ import annotations

import re
from typing import Final
from xml.sax.saxutils import quoteattr

from conformance.model import Report, Result, Verdict

# XML 1.0 has no way to write these at all.
_FORBIDDEN: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Report) -> str:
    """The whole document."""
    failed, skipped = report.count(Verdict.FAIL), report.count(Verdict.NOT_APPLICABLE)
    counts = f'tests="{len(report.results)}" failures="{failed}" skipped="{skipped}" errors="0"'
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f'<testsuites {counts} time="{report.seconds:.3f}">']
    lines.append(f'<testsuite name={_attribute(report.target)} {counts} time="{report.seconds:.3f}">')
    lines += [_case(result) for result in report.results]
    return "\n".join([*lines, "</testsuite>", "</testsuites>", ""])


def _case(result: Result) -> str:
    name = f"conformance.{result.group}"
    head = f'<testcase classname="{name}" name={_attribute(result.id)} time="{result.seconds:.3f}"'
    text = _attribute(result.evidence)
    if result.verdict is Verdict.FAIL:
        kind = _attribute(f"known: {result.known}" if result.known else "fail")
        return (
            f"{head}><failure type={kind} message={_attribute(result.requirement)}>{_text(result)}</failure></testcase>"
        )
    if result.verdict is Verdict.NOT_APPLICABLE:
        return f"{head}><skipped message={text}/></testcase>"
    if result.verdict is Verdict.DEVIATES:
        return f'{head}><properties><property name="deviates" value={text}/></properties></testcase>'
    return f"{head}/>"


def _text(result: Result) -> str:
    clean = _FORBIDDEN.sub("\ufffd", result.evidence)
    return clean.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _attribute(text: str) -> str:
    return quoteattr(_FORBIDDEN.sub("\ufffd", text))
