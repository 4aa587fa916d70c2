"""The page in a real browser: bars as long as the figures say, and the filter."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conformance.bench.measure import Row
from conformance.model import Report, Result, Verdict
from conformance.report.page import page

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_PROBE = """<script>
const told = {};
told.widths = [...document.querySelectorAll('.bar')].map(bar => Math.round(bar.getBoundingClientRect().width));
told.shown = [...document.querySelectorAll('tr.case')].map(row => row.offsetHeight > 0);
document.getElementById('differ').click();
told.filtered = [...document.querySelectorAll('tr.case')].map(row => row.offsetHeight > 0);
document.querySelector('details').open = true;
told.evidence = document.querySelector('.evidence').innerText;
told.marked = !!document.querySelector('b');
told.overflow = document.documentElement.scrollWidth > window.innerWidth;
document.title = JSON.stringify(told);
</script>"""


def _result(id: str, verdict: Verdict, evidence: str = "") -> Result:
    return Result(id, f"requirement of {id}", "a source", verdict, 0.1, evidence)


def _reports() -> list[Report]:
    row = Row("a job", "ms", ("ours", "theirs"), (10.0, 40.0), (9.0, 38.0), (12.0, 41.0), 4.0, 3.5, 4.2)
    same = _result("leases.a", Verdict.PASS)
    bad = _result("leases.b", Verdict.FAIL, "<b>evidence</b> & more\nsecond line")
    ours = Report("ours", {}, "now", 1.0, (same, _result("leases.b", Verdict.PASS)), (row.to_json(),))
    return [ours, Report("theirs", {}, "now", 2.0, (same, bad))]


def test_page_in_a_browser(tmp_path: Path) -> None:
    browser = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"not installed: none of {', '.join(_BROWSERS)}")
    file = tmp_path / "page.html"
    file.write_text(page(_reports()).replace("</body>", f"{_PROBE}</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={tmp_path / 'b'}"]
    done = subprocess.run(
        [browser, *options, "--window-size=1280,900", "--dump-dom", f"file://{file}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = re.search("<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert found, done.stdout[:500]
    told = json.loads(html.unescape(found[1]))
    assert told["widths"][1] == pytest.approx(4 * told["widths"][0], abs=2)
    assert told["widths"][0] > 20
    assert told["shown"] == [True, True]
    assert told["filtered"] == [False, True]
    assert told["evidence"] == "<b>evidence</b> & more\nsecond line"
    assert not told["marked"], "evidence is text"
    assert not told["overflow"]
