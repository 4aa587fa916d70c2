"""The page for people in a real browser: it shows what is going on, goes on asking, and never a token."""

from __future__ import annotations

import html
import re
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_gw.paths import SystemPaths
from tests.browser import browser_command, rendered
from tests.client.support import Server, fill
from tests.engine.repositories import FQRN, make_keys


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    browser_command(tmp_path)  # which skips
    keys = SystemPaths(str(tmp_path / "made"))
    make_keys(FQRN, keys)
    with Server(str(tmp_path / "root"), keys.keys) as server:
        yield server


def rows(page: str, table: str) -> list[list[str]]:
    """The cells of a table, as people read them."""
    found = re.search(f'<table id="{table}">(.*?)</table>', page, re.S)
    assert found is not None
    lines = re.findall(r"<tr>(.*?)</tr>", found[1], re.S)
    return [
        [html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in re.findall(r"<td.*?</td>", line)] for line in lines
    ]


def answered(server: Server) -> int:
    """How many GET requests the gateway has answered."""
    with urllib.request.urlopen(server.gateway.removesuffix("/api/v1") + "/metrics", timeout=30) as reply:
        found = re.search(r'http_requests_total{method="GET",status="200"} (\d+)', reply.read().decode())
    return 0 if found is None else int(found[1])


def test_the_page(server: Server, tmp_path: Path) -> None:
    url = server.gateway.removesuffix("api/v1")
    server.publish(fill(tmp_path / "files", {"a": b"content"}))
    with closing(server.client()) as client:
        token = client.acquire(f"{FQRN}/<b>bold</b>")
        before = answered(server)
        page = rendered(tmp_path / "profile", url, 10_000)
        client.release(token)
    assert token not in page
    assert answered(server) - before >= 4  # the page, and what it asked for at once and after 3, 6 and 9 seconds
    _, repository = rows(page, "repositories")
    assert repository[:2] == [FQRN, "2"]
    assert repository[-1] == "enabled"
    _, shown = rows(page, "leases")
    assert shown[0] == f"{FQRN}/<b>bold</b>"
    assert shown[-1] == "open"
    _, commit = rows(page, "commits")
    assert commit[:3] == [FQRN, "/t", "2"]
    assert "1</b><span>leases" in page
