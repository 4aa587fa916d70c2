"""Which paths can be leased."""

from __future__ import annotations

import json

from conformance.outcomes import equal, expect
from conformance.probe import Probe, accepted, granted, refused, turned_down
from conformance.registry import API, PUBLISHER, SAFETY, case, each, issue


@case("leases.path.root", "<fqrn>/ is the whole repository, and listed as that", API)
def root(probe: Probe) -> None:
    probe.acquire("")
    expect(f"{probe.fqrn}/" in probe.listing(), f"it is not listed as {probe.fqrn}/")


@case("leases.path.doubled", "<fqrn>//a, which ingest -b /a asks for, is <fqrn>/a", PUBLISHER)
def doubled(probe: Probe) -> None:
    path = probe.path()
    granted(probe.keep(probe.gateway.acquire(f"{probe.fqrn}/{path}")))
    equal(probe.ask(path).json.get("status"), "path_busy", "status of the same path with one slash")


@each(
    "leases.path.legal",
    API,
    {
        "space": ("a path with spaces can be leased", "with space/and more"),
        "unicode": ("a path with letters of any script can be leased", "träume/夢"),
        "quotes": ("a path with quotes and semicolons can be leased, and is data", "a'b\"c;DROP TABLE Lease--"),
        "backslash": ("a path with backslashes can be leased", "a\\b\\\\c"),
        "percent": ("a path with percent signs can be leased", "100%/%2e%2e"),
        "dots": ("names that begin with dots, or are three dots, can be leased", ".hidden/..."),
        "newline": ("a name with a line break can be leased", "a\nb"),
        "longest": ("a name of 255 bytes can be leased", "n" * 255),
        "deep": ("a path 60 levels deep can be leased", "/".join("d" * 60)),
    },
)
def legal(probe: Probe, path: str) -> None:
    path = f"{probe.path()}/{path}"
    token = probe.acquire(path)
    expect(probe.fqrn + path in probe.listing(), "it is listed under another path")
    equal(probe.ask(path).json.get("status"), "path_busy", "status of the same path again")
    accepted(probe.gateway.drop(token), "drop")


@case("leases.path.bytes", "a name that is not UTF-8 can be leased, since names are bytes", API)
def not_utf8(probe: Probe) -> None:
    path = f"{probe.fqrn}{probe.path()}/caf".encode() + b"\xe9"
    body = b'{"path":"' + path + b'","api_version":"2","hostname":"x"}'
    reply = probe.gateway.call("POST", "/leases", body, signed=body)
    granted(probe.keep(reply))
    again = probe.gateway.call("POST", "/leases", body, signed=body)
    equal(again.json.get("status"), "path_busy", "status of the same path again")


@case("leases.path.leading", "a lease path with a leading slash is refused in those words", API)
def leading(probe: Probe) -> None:
    reply = probe.keep(probe.gateway.acquire(f"/{probe.fqrn}{probe.path()}"))
    refused(reply, "lease", "input has leading slash")


@case("leases.path.no.slash", "a lease path without any slash is refused in those words", API)
def no_slash(probe: Probe) -> None:
    refused(probe.keep(probe.gateway.acquire(probe.fqrn)), "lease", "missing repository name or subpath")


@case("leases.path.unknown.repository", "a lease in a repository that is not there is refused", API)
def unknown_repository(probe: Probe) -> None:
    refused(probe.keep(probe.gateway.acquire("nothing.example.org/a")), "lease", "repository not found")


@each(
    "leases.path.illegal",
    issue(3785),
    {
        "trailing": ("a lease path with a trailing slash is refused: it would corrupt the repository", "a/"),
        "inner": ("a lease path with a doubled slash inside is refused: it would corrupt the repository", "a//b"),
        "many": ("a lease path of many slashes is refused", "a////"),
    },
)
def corrupting(probe: Probe, path: str) -> None:
    refused(probe.ask(f"{probe.path()}/{path}"), "lease")


@each(
    "leases.path.illegal",
    SAFETY,
    {
        "parent": ("a lease path with .. is refused", "a/../b"),
        "parent.only": ("a lease path that climbs out of the repository is refused", "../../etc"),
        "dot": ("a lease path with . is refused", "a/./b"),
        "nul": ("a lease path with a NUL is refused", "a\0b"),
        "name": ("a lease path with a name over 255 bytes is refused", "n" * 256),
        "long": ("a lease path of 100,000 bytes is refused", "/".join(["d" * 99] * 1000)),
    },
)
def impossible(probe: Probe, path: str) -> None:
    refused(probe.ask(f"{probe.path()}/{path}"), "lease")


@each(
    "leases.path.type",
    API,
    {
        "number": ("a lease path that is a number is turned down", 5),
        "list": ("a lease path that is a list is turned down", ["a"]),
        "empty": ("an empty lease path is turned down", ""),
        "null": ("a lease path that is null is turned down", None),
    },
)
def wrong_type(probe: Probe, path: object) -> None:
    body = json.dumps({"path": path, "api_version": "2", "hostname": "x"}).encode()
    turned_down(probe.keep(probe.gateway.call("POST", "/leases", body, signed=body)), "lease")


@case("leases.path.file", "the path of a file can be leased: ingest -d does that", PUBLISHER)
def of_a_file(probe: Probe) -> None:
    top = probe.path()
    probe.plant(top, lambda tree: tree.put_file(f"{top}/file", b"x"))
    granted(probe.ask(f"{top}/file"))
