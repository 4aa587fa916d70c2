"""What people and monitoring see: request ids, metrics, health, the status page, the description."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sqlite3
from html.parser import HTMLParser
from typing import Any

import pytest

from cvmfs_gw.api import leases, observe
from cvmfs_gw.api.app import RESOURCES, make_app
from cvmfs_gw.api.logs import REQUEST_ID, JsonFormatter, request_id
from cvmfs_gw.api.openapi import description
from cvmfs_gw.api.status import Throughput
from cvmfs_gw.gateway.protocol import API_ROOT
from cvmfs_gw.gateway.service import GatewayService
from tests.gateway.support import FQRN, KEY, OTHER, Api, Clock, pack


async def get(api: Api, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    async with api.session.get(api.url.removesuffix(API_ROOT) + path, headers=headers) as response:
        return response.status, await response.text(), dict(response.headers)


async def test_request_ids(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert (await get(api, "/healthz", **{"X-Request-Id": "from-the-proxy:1"}))[2]["X-Request-ID"] == "from-the-proxy:1"
    own = (await get(api, "/nowhere", **{"X-Request-Id": "x" * 65}))[2]["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{12}", own)
    assert "from-the-proxy:1" in caplog.text
    assert own in caplog.text
    assert request_id("a\nb") != "a\nb"


def test_json_logs() -> None:
    record = logging.LogRecord("cvmfs_gw.api.app", logging.WARNING, __file__, 1, "what %s", ("happened",), None)
    record.fields = {"component": "http", "status": 200}
    record.created = 1_700_000_000.5
    token = REQUEST_ID.set("abc")
    line = json.loads(JsonFormatter(timestamps=True).format(record))
    REQUEST_ID.reset(token)
    assert line == {
        "level": "warn",
        "component": "http",
        "req_id": "abc",
        "status": 200,
        "time": "2023-11-14T22:13:20.500+00:00",
        "message": "what happened",
    }


async def test_metrics(api: Api) -> None:
    token = await api.token()
    header, body = pack([b"one", b"two"])
    await api.payload(token, header, body)
    await api.payload(token, header, body)
    await api.payload(token, header, b"nonsense")
    await api.lease(f"{FQRN}/a")
    status, text, headers = await get(api, "/metrics")
    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    for line in (
        'leases{state="open"} 1',
        'lease_requests_total{outcome="ok"} 1',
        'lease_requests_total{outcome="path_busy"} 1',
        'payloads_total{outcome="ok"} 2',
        'payloads_total{outcome="failed"} 1',
        'payload_objects_total{kind="added"} 2',
        'payload_objects_total{kind="present"} 2',
        "payloads_running 0",
        "subscribers 0",
        'http_requests_total{method="POST",status="200"} 5',
        f'repository_enabled{{repository="{FQRN}"}} 1',
    ):
        assert f"\ncvmfs_gateway_{line}\n" in text
    await api.commit(token)
    text = (await get(api, "/metrics"))[1]
    assert f'commits_total{{outcome="ok",repository="{FQRN}"}} 1' in text
    for phase in ("queue", "engine", "publish"):
        assert f'commit_seconds_count{{phase="{phase}"}} 1' in text
    assert 'commit_seconds_sum{phase="publish"} 0.25' in text


async def test_health(api: Api, service: GatewayService, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await get(api, "/healthz"))[0] == 200
    assert (await get(api, "/readyz"))[0] == 200

    def broken() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(service._book, "probe", broken)
    assert (await get(api, "/healthz"))[0] == 200
    status, text, _ = await get(api, "/readyz")
    assert status == 503
    assert json.loads(text)["reason"] == "lease database: OperationalError"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


async def test_the_page_needs_nothing_from_elsewhere(api: Api) -> None:
    status, text, headers = await get(api, "/")
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    tags = Tags()
    tags.feed(text)
    assert not [attributes for _, attributes in tags.found if {"src", "href"} & set(attributes)]


async def test_status(api: Api, clock: Clock) -> None:
    token = await api.token(f"{FQRN}/a")
    await api.commit(token)
    held = await api.token(f"{FQRN}/b")
    await api.payload(held, *pack([b"data"]))
    clock.advance(5_000)
    _, shown = await api.call("GET", "/status")
    assert [repository["name"] for repository in shown["repositories"]] == [OTHER, FQRN]
    assert shown["commits"] == [{"repository": FQRN, "path": "/a", "revision": 1, "tag": "", "age": 5}]
    (lease,) = shown["leases"]
    assert lease["path"] == f"{FQRN}/b"
    assert (lease["age"], lease["objects"], lease["bytes"], lease["state"]) == (5, 1, 4, "open")
    assert shown["received"] > 0
    assert token not in str(shown)
    assert held not in str(shown)


def test_throughput() -> None:
    throughput = Throughput()
    assert throughput.look(0, 0) == 0
    assert throughput.look(5, 1000) == 200
    assert throughput.look(20, 1000) == 0
    assert throughput.look(25, 2000) == 50  # since the fifth second


async def test_more_requests_than_can_be_answered(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "MAX_RUNNING", 0)
    status, text, headers = await get(api, "/healthz")
    assert (status, headers["Retry-After"]) == (503, "1")
    assert json.loads(text)["status"] == "error"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nLong: " + b"x" * 10_000 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n", 400),
        (b"POST /api/v1/leases HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    ],
)
async def test_what_is_no_http(api: Api, sent: bytes, status: int) -> None:
    host, port = api.url.removeprefix("http://").removesuffix(API_ROOT).split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    reply = await reader.read()
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith((f"HTTP/1.1 {status} ".encode(), f"HTTP/1.0 {status} ".encode()))
    assert json.loads(body) == {"status": "error", "reason": "malformed HTTP request"}
    writer.close()
    await writer.wait_closed()


async def test_the_description_has_every_route(service: GatewayService, api: Api) -> None:
    document = description(resource.PATHS for resource in RESOURCES)
    described = {(method.upper(), API_ROOT + path) for path, item in document["paths"].items() for method in item}
    routes: set[tuple[str, str]] = set()
    for route in make_app(service).router.routes():
        assert route.resource is not None
        path = re.sub(r":\.\*\}", "}", route.resource.canonical)
        if path.startswith(f"{API_ROOT}/"):
            routes.add((route.method, path))
    routes = {(method, path) for method, path in routes if method != "HEAD" or ("GET", path) not in routes}
    assert routes - described == {("GET", f"{API_ROOT}/openapi.json")}
    assert described - routes == set()
    status, served = await api.call("GET", "/openapi.json")
    assert (status, served) == (200, document)


async def test_replies_are_as_described(api: Api) -> None:
    token = await api.token()
    schema: dict[str, Any] = leases.PATHS["/leases"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    lease = schema["allOf"][1]["properties"]["data"]["additionalProperties"]
    _, reply = await api.call("GET", "/leases")
    (shown,) = reply["data"].values()
    assert set(lease["required"]) <= set(shown) <= set(lease["properties"])
    await api.call("DELETE", f"/leases/{token}", key=KEY, signed=token.encode())
