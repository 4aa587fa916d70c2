"""Reports as files."""

from __future__ import annotations

import json as codec
from collections.abc import Sequence
from pathlib import Path

from conformance.model import Report
from conformance.report.junit import junit as _junit
from conformance.report.markdown import markdown as _markdown
from conformance.report.page import page


def prepare(*paths: Path | None) -> None:
    """Find out before a long run that a report cannot be written; raises ``OSError``."""
    for path in paths:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a").close()


def write(
    reports: Sequence[Report],
    *,
    json: Path | None = None,
    junit: Path | None = None,
    html: Path | None = None,
    markdown: Path | None = None,
) -> None:
    """Those that have a name. Each holds all targets; raises ``OSError``."""
    if json:
        json.write_text(codec.dumps([each.to_json() for each in reports], indent=1))
    if junit:
        junit.write_text(_junit(reports))
    if html:
        html.write_text(page(reports))
    if markdown:
        markdown.write_text(_markdown(reports))


def read(path: Path) -> list[Report]:
    """The reports in a file; raises ``ValueError`` and ``OSError``."""
    try:
        content = codec.loads(path.read_text())
        return [Report.from_json(each) for each in (content if isinstance(content, list) else [content])]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no report: {error}") from None
