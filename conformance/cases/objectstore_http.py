"""What the web server of the repositories says, and how long proxies may keep it."""

from __future__ import annotations

import json
import re

from conformance.objects import object_path
from conformance.outcomes import Deviates, Failed, NotApplicable, equal, expect
from conformance.pack import Pack
from conformance.probe import Probe
from conformance.registry import CLIENT, SAFETY, case, each
from conformance.wire import Reply, request

MUTABLE = (".cvmfspublished", ".cvmfswhitelist", ".cvmfsreflog")


def root_object(probe: Probe) -> str:
    return object_path(probe.repository.manifest().root, "C")


def age(reply: Reply) -> int:
    """max-age in seconds; raises :exc:`Failed`."""
    found = re.search(r"max-age=(\d+)", reply.headers.get("cache-control", ""))
    if not found:
        raise Failed(f"no max-age: {reply.headers.get('cache-control')!r}")
    return int(found[1])


@each(
    "objectstore.http.head",
    "publishers and Stratum 1 servers ask with HEAD first",
    {
        name.lstrip("."): (f"HEAD {name} is HTTP 200, without a body", name)
        for name in (*MUTABLE, ".cvmfs_master_replica")
    },
)
def head(probe: Probe, path: str) -> None:
    reply = probe.repository.ask(path, "HEAD")
    equal(reply.status, 200, "HTTP status")
    equal(reply.body, b"", "body")


@case("objectstore.http.head.object", "HEAD of an object tells its length", CLIENT)
def head_object(probe: Probe) -> None:
    path = root_object(probe)
    reply = probe.repository.ask(path, "HEAD")
    equal(reply.status, 200, "HTTP status")
    equal(reply.headers.get("content-length"), str(len(probe.repository.read(path))), "Content-Length")


@each(
    "objectstore.http.mutable",
    "the configuration that cvmfs_server mkfs writes for Apache",
    {
        f"{what}.{name.removeprefix('.cvmfs')}": (f"{name} {words}", name, what)
        for name in MUTABLE
        for what, words in {
            "type": "is application/x-cvmfs",
            "age": "may be kept for 61 seconds",
            "validators": "has neither Last-Modified nor ETag",
        }.items()
    },
)
def mutable(probe: Probe, path: str, what: str) -> None:
    reply = probe.repository.ask(path)
    equal(reply.status, 200, "HTTP status")
    if what == "type":
        equal(reply.headers.get("content-type"), "application/x-cvmfs", "Content-Type")
    elif what == "age":
        equal(age(reply), 61, "max-age")
    else:
        expect("last-modified" not in reply.headers, "it has Last-Modified")
        expect("etag" not in reply.headers, "it has an ETag")


@each(
    "objectstore.http.object",
    "the configuration that cvmfs_server mkfs writes for Apache",
    {
        "type": ("objects are application/octet-stream", "type"),
        "age": ("objects may be kept for three days", "age"),
        "length": ("objects come with their length", "length"),
    },
)
def objects(probe: Probe, what: str) -> None:
    reply = probe.repository.ask(root_object(probe))
    equal(reply.status, 200, "HTTP status")
    if what == "type":
        equal(reply.headers.get("content-type"), "application/octet-stream", "Content-Type")
    elif what == "age":
        equal(age(reply), 3 * 24 * 3600, "max-age")
    else:
        equal(reply.headers.get("content-length"), str(len(reply.body)), "Content-Length")


@each(
    "objectstore.http.range",
    CLIENT,
    {
        "first": ("a range of the first bytes is HTTP 206 with those", "bytes=0-9", slice(0, 10)),
        "middle": ("a range in the middle is HTTP 206 with those bytes", "bytes=5-20", slice(5, 21)),
        "open": ("a range without an end goes to the end", "bytes=50-", slice(50, None)),
        "tail": ("a range of the last bytes is HTTP 206 with those", "bytes=-7", slice(-7, None)),
        "beyond": ("a range that ends beyond the object ends with it", "bytes=30-99999999", slice(30, None)),
    },
)
def ranges(probe: Probe, wanted: str, piece: slice) -> None:
    path = root_object(probe)
    whole = probe.repository.read(path)
    reply = probe.repository.ask(path, headers={"Range": wanted})
    equal(reply.status, 206, "HTTP status")
    expect(reply.body == whole[piece], "other bytes")
    expect(reply.headers.get("content-range", "").endswith(f"/{len(whole)}"), "Content-Range is wrong")


@case("objectstore.http.range.impossible", "a range beyond the object is HTTP 416", CLIENT)
def impossible_range(probe: Probe) -> None:
    reply = probe.repository.ask(root_object(probe), headers={"Range": "bytes=999999999-"})
    equal(reply.status, 416, "HTTP status")


@each(
    "objectstore.http.missing",
    SAFETY,
    {
        "object": ("an object that is not there is HTTP 404", "data/00/" + "1" * 38),
        "file": ("a file that is not there is HTTP 404", ".cvmfsnothing"),
        "climbing": ("a path that climbs is not served", "data/../../../../../etc/passwd"),
        "escaped": ("a path that climbs in percent-encoding is not served", "%2e%2e/%2e%2e/%2e%2e/etc/passwd"),
        "keys": ("keys are not served", "../../../etc/cvmfs/keys/"),
    },
)
def missing(probe: Probe, path: str) -> None:
    reply = probe.repository.ask(path)
    expect(reply.status in (400, 403, 404), f"it is {reply}")


@case("objectstore.http.missing.age", "HTTP 404 may not be kept: the object may be published any moment", SAFETY)
def missing_age(probe: Probe) -> None:
    reply = probe.repository.ask("data/00/" + "2" * 38)
    equal(reply.status, 404, "HTTP status")
    control = reply.headers.get("cache-control", "")
    if not control:
        raise Deviates("says nothing of it, so that proxies do as they are configured")
    expect("no-cache" in control or "no-store" in control or "max-age=0" in control, f"Cache-Control is {control}")


@case("objectstore.http.conditional", "a conditional request for the manifest is never answered with 304", CLIENT)
def conditional(probe: Probe) -> None:
    for headers in ({"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}, {"If-None-Match": '"abc"'}):
        equal(probe.repository.ask(".cvmfspublished", headers=headers).status, 200, "HTTP status")


@case("objectstore.http.write", "nothing can be written or deleted through the web server", SAFETY)
def write(probe: Probe) -> None:
    before = probe.repository.read(".cvmfspublished")
    for method in ("PUT", "POST", "DELETE"):
        reply = probe.repository.ask(".cvmfspublished", method)
        expect(reply.status >= 400 or reply.body == before, f"{method} is {reply}")
    equal(probe.repository.read(".cvmfspublished"), before, "the manifest")


@case("objectstore.http.new", "an object that was not there when it was asked for is served when it is", CLIENT)
def becomes_visible(probe: Probe) -> None:
    made = probe.new_object()
    equal(probe.repository.ask(made.path).status, 404, "HTTP status before")
    probe.gateway.payload(probe.acquire(), Pack.of([made]))
    equal(probe.repository.ask(made.path).status, 200, "HTTP status after")


def _info(probe: Probe, name: str) -> Reply:
    url = probe.repository.url
    base = url.path.rpartition("/")[0]
    return request(url, "GET", f"{base}/info/v1/{name}", timeout=probe.target.timeout)


@case("objectstore.http.info", "/cvmfs/info/v1/repositories.json names the repository", "repository monitoring")
def info(probe: Probe) -> None:
    reply = _info(probe, "repositories.json")
    if reply.status == 404:
        raise NotApplicable("there is none")
    names = [each.get("name") for each in json.loads(reply.body).get("repositories", [])]
    expect(probe.fqrn in names, f"it names {names}")
    expect(reply.headers.get("content-type", "").startswith("application/json"), "it is not application/json")
