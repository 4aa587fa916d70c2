"""One HTML page, with nothing to load, that shows several targets side by side."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from conformance.model import Report, Result, Verdict
from conformance.registry import GROUPS

_ISSUE: Final = re.compile(r"cvmfs#(\d+)")
_STYLE: Final = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.5rem} h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%} th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d8dde3;
vertical-align:top} th{background:#f3f5f7;position:sticky;top:0}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums} table.cases{table-layout:fixed}
table.cases th:first-child{width:50%} a{color:inherit}
code{font-size:.85em} .pass{color:#12692f} .fail{color:#b3141c;font-weight:600} .known{color:#b3541c}
.deviates{color:#7a5b00} .na{color:#727a83} details{color:#444;font-size:.85em} .evidence{white-space:pre-wrap;
overflow-wrap:anywhere} .bar{display:inline-block;height:.7rem;background:#3567b0;vertical-align:middle}
.bar.b1{background:#c2762b} .source{color:#727a83;font-size:.85em} label{margin-right:1rem}
@media (prefers-color-scheme:dark){body{background:#14171a;color:#dfe3e8} th{background:#20252b}
th,td{border-color:#353c44} .pass{color:#5fc683} .fail{color:#ff7b81} .known{color:#f0a06b} .deviates{color:#e3c04f}
details{color:#b9c0c8}}
"""
_SCRIPT: Final = """
for (const box of document.querySelectorAll('input')) box.addEventListener('change', () => {
  const only = document.getElementById('differ').checked;
  for (const row of document.querySelectorAll('tr.case')) row.hidden = only && row.dataset.same === '1';
});
"""


def page(reports: Sequence[Report]) -> str:
    """The whole document. The first report's order of cases is kept."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'><title>CernVM-FS gateway conformance</title>",
        f"<style>{_STYLE}</style></head><body><h1>CernVM-FS gateway conformance</h1>",
        _targets(reports),
        *(_benchmarks(report) for report in reports if report.benchmarks),
    ]
    if any(report.results for report in reports):
        parts += [_totals(reports), _groups(reports)]
        parts.append("<p><label><input type='checkbox' id='differ'> only cases that do not pass everywhere</label></p>")
    for group in GROUPS:
        if any(result.group == group for report in reports for result in report.results):
            parts.append(_group(group, reports))
    return "\n".join([*parts, f"<script>{_SCRIPT}</script></body></html>\n"])


def _targets(reports: Sequence[Report]) -> str:
    rows = "".join(
        f"<tr><td>{_e(report.target)}</td><td>{_e(' '.join(_where(report)))}</td><td>{_e(report.started)}</td>"
        f"<td class='n'>{report.seconds:.0f} s {_e(report.cut)}</td></tr>"
        for report in reports
    )
    head = "<th>target</th><th>where</th><th>begun</th><th class='n'>took</th>"
    return f"<table><tr>{head}</tr>{rows}</table>"


def _where(report: Report) -> list[str]:
    known = [report.about[name] for name in ("gateway", "stratum0", "repository") if name in report.about]
    return known or list(report.about.values())


def _totals(reports: Sequence[Report]) -> str:
    head = "".join(f"<th class='n'>{_e(report.target)}</th>" for report in reports)
    rows = ""
    for verdict in Verdict:
        cells = "".join(f"<td class='n'>{report.count(verdict)}</td>" for report in reports)
        rows += f"<tr><td class='{_class(verdict)}'>{verdict.value}</td>{cells}</tr>"
    known = "".join(f"<td class='n'>{sum(bool(r.known) for r in report.results)}</td>" for report in reports)
    rows += f"<tr><td class='known'>of the failures, known faults</td>{known}</tr>"
    return f"<h2>Totals</h2><table><tr><th></th>{head}</tr>{rows}</table>"


def _groups(reports: Sequence[Report]) -> str:
    """How many of each group's cases pass, of those that there was something to try on."""
    head = "".join(f"<th class='n'>{_e(report.target)}</th>" for report in reports)
    rows = ""
    for group in GROUPS:
        cells = ""
        for report in reports:
            found = [result.verdict for result in report.results if result.group == group]
            tried = [verdict for verdict in found if verdict is not Verdict.NOT_APPLICABLE]
            right = len(tried) - tried.count(Verdict.FAIL)
            kind = "pass" if right == len(tried) else "fail"
            cells += (
                f"<td class='n {kind}'>{right} of {len(tried)}</td>" if tried else "<td class='n na'>not tried</td>"
            )
        if any(result.group == group for report in reports for result in report.results):
            rows += f"<tr><td><a href='#{group}'>{group}</a></td>{cells}</tr>"
    return f"<h2>Groups: passed, or deviating as documented</h2><table><tr><th>group</th>{head}</tr>{rows}</table>"


def _group(group: str, reports: Sequence[Report]) -> str:
    found = [{result.id: result for result in report.results} for report in reports]
    names = dict.fromkeys(result.id for report in reports for result in report.results if result.group == group)
    head = "".join(f"<th>{_e(report.target)}</th>" for report in reports)
    rows = "".join(_row([results.get(name) for results in found]) for name in names)
    return f"<h2 id='{group}'>{group}</h2><table class='cases'><tr><th>case</th>{head}</tr>{rows}</table>"


def _row(results: Sequence[Result | None]) -> str:
    one = next(result for result in results if result is not None)
    same = all(result is not None and result.verdict is Verdict.PASS for result in results)
    cells = "".join(f"<td>{_cell(result)}</td>" for result in results)
    about = f"{_e(one.requirement)}<br><code>{_e(one.id)}</code> <span class='source'>{_linked(one.source)}</span>"
    return f"<tr class='case' data-same='{int(same)}'><td>{about}</td>{cells}</tr>"


def _cell(result: Result | None) -> str:
    if result is None:
        return "<span class='na'>not run</span>"
    kind = "known" if result.known else _class(result.verdict)
    text = f"<span class='{kind}'>{result.verdict.value}</span>"
    if result.known:
        text += f"<br>{_linked(result.known)}"
    if result.evidence:
        text += f"<details><summary>why</summary><div class='evidence'>{_e(result.evidence[:2000])}</div>"
        if result.requests:
            text += f"<p>The last requests:</p><div class='evidence'><code>{_e(result.requests)}</code></div>"
        text += "</details>"
    return text


def _benchmarks(report: Report) -> str:
    rows = "".join(_bench_row(row) for row in report.benchmarks)
    names = report.benchmarks[0].get("targets", [])
    head = "".join(f"<th>{_e(str(name))}</th>" for name in names)
    head = f"<tr><th>what</th><th>unit</th>{head}<th>ratio (lowest to highest)</th></tr>"
    return f"<h2>Benchmarks</h2><table>{head}{rows}</table>"


def _bench_row(row: Mapping[str, Any]) -> str:
    values = [float(value) for value in row["medians"]]
    most = max(values) or 1.0
    cells = ""
    for number, value in enumerate(values):
        bar = f"<span class='bar b{number}' style='width:{value / most * 8:.2f}rem'></span>"
        cells += f"<td>{bar} {value:,.4g}</td>"
    ratio = ""
    if row.get("ratio"):
        ratio = f"{row['ratio']:.2f}x ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
    return f"<tr><td>{_e(row['what'])}</td><td>{_e(row['unit'])}</td>{cells}<td>{ratio}</td></tr>"


def _class(verdict: Verdict) -> str:
    return {
        Verdict.PASS: "pass",
        Verdict.FAIL: "fail",
        Verdict.DEVIATES: "deviates",
        Verdict.NOT_APPLICABLE: "na",
    }[verdict]


def _linked(text: str) -> str:
    """Text, with links to the issues that it names."""
    return _ISSUE.sub(r"<a href='https://github.com/cvmfs/cvmfs/issues/\1'>cvmfs#\1</a>", _e(text))


def _e(text: str) -> str:
    return html.escape(text.encode("utf-8", "replace").decode())
