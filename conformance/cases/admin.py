"""Administration: repositories shown and disabled, leases cancelled by path, garbage collection."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from conformance.consistency import check
from conformance.outcomes import Failed, NotApplicable, equal, expect
from conformance.probe import Probe, accepted, granted, refused
from conformance.registry import API, API13, FORMAT, SAFETY, case, each
from conformance.tree import Tree


@case("admin.root", "GET of the API's root welcomes", API)
def root(probe: Probe) -> None:
    reply = probe.gateway.get("")
    equal(reply.status, 200, "HTTP status")
    expect("welcome" in reply.json, f"no welcome: {reply}")


@case("admin.repos", "GET /repos has each repository with its keys and enabled", API)
def repositories(probe: Probe) -> None:
    data = accepted(probe.gateway.get("/repos"), "GET /repos").get("data")
    expect(isinstance(data, dict) and probe.fqrn in data, f"the repository is not there: {data!r}")
    shown = dict(data or {})[probe.fqrn]
    expect(isinstance(shown.get("keys"), dict), f"keys is {shown.get('keys')!r}")
    expect(probe.target.key.id in shown["keys"], "the publishers' key is not there")
    equal(shown.get("enabled"), True, "enabled")


@case("admin.repos.one", "GET /repos/<name> has one repository", API)
def repository(probe: Probe) -> None:
    data = accepted(probe.gateway.get(f"/repos/{probe.fqrn}"), "GET /repos/<name>").get("data")
    equal(data, probe.gateway.get("/repos").json["data"][probe.fqrn], "data")


@case("admin.repos.paths", "a key is shown with the path that it is good for", API)
def key_paths(probe: Probe) -> None:
    key = probe.need(probe.target.restricted_key, "--restricted-key")
    keys = probe.gateway.get(f"/repos/{probe.fqrn}").json["data"]["keys"]
    equal(keys.get(key.id), probe.target.restricted_path, "path of the restricted key")


@case("admin.repos.unknown", "GET /repos/<name> of an unknown one is refused as invalid_repo", API)
def unknown(probe: Probe) -> None:
    refused(probe.gateway.get("/repos/nothing.example.org"), "GET /repos/<name>", "invalid_repo")


# --- enabling -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def disabled(probe: Probe) -> Iterator[None]:
    """The repository is disabled meanwhile."""
    key = probe.admin
    try:
        accepted(probe.gateway.enable(probe.fqrn, False, key=key), "disable")
        yield
    finally:
        accepted(probe.gateway.enable(probe.fqrn, True, key=key), "enable")


@case("admin.disable", "a disabled repository grants no leases: repo_disabled", API)
def disable(probe: Probe) -> None:
    with disabled(probe):
        refused(probe.ask(probe.path()), "lease", "repo_disabled")
    granted(probe.ask(probe.path()))


@case("admin.disable.shown", "a disabled repository is shown with enabled false, and true again afterwards", API)
def disable_shown(probe: Probe) -> None:
    with disabled(probe):
        for data in (probe.gateway.get(f"/repos/{probe.fqrn}").json, probe.gateway.get("/repos").json):
            shown = data["data"].get(probe.fqrn, data["data"])
            equal(shown.get("enabled"), False, "enabled")
    equal(probe.gateway.get(f"/repos/{probe.fqrn}").json["data"]["enabled"], True, "enabled afterwards")


@case("admin.disable.others", "disabling one repository leaves the others as they are", API)
def disable_others(probe: Probe) -> None:
    before = probe.gateway.get("/repos").json["data"]
    if len(before) < 2:
        raise NotApplicable("there is one repository only")
    with disabled(probe):
        after = probe.gateway.get("/repos").json["data"]
    for name in before.keys() - {probe.fqrn}:
        equal(after[name], before[name], name)


@case("admin.disable.lease", "a lease granted before its repository was disabled can be dropped", API)
def disable_lease(probe: Probe) -> None:
    token = probe.acquire()
    with disabled(probe):
        accepted(probe.gateway.drop(token), "drop")


@case("admin.enable.twice", "enabling what is enabled is ok", API)
def enable_twice(probe: Probe) -> None:
    for _ in range(2):
        accepted(probe.gateway.enable(probe.fqrn, True, key=probe.admin), "enable")


@case("admin.enable.unknown", "enabling an unknown repository is refused", "a failure must not be answered with ok")
def enable_unknown(probe: Probe) -> None:
    refused(probe.gateway.enable("nothing.example.org", True, key=probe.admin), "enable")


@each(
    "admin.enable.malformed",
    API,
    {
        "json": ("a request to enable that is no JSON is HTTP 400", b"{"),
        "type": ("a request to enable with a text for a yes or no is HTTP 400", b'{"enable":"maybe"}'),
    },
)
def enable_malformed(probe: Probe, body: bytes) -> None:
    reply = probe.gateway.call("POST", f"/repos/{probe.fqrn}", body, key=probe.admin, signed=body)
    equal(reply.status, 400, "HTTP status")
    equal(probe.gateway.get(f"/repos/{probe.fqrn}").json["data"]["enabled"], True, "enabled")


# --- cancelling by path ---------------------------------------------------------------------------------------------


def _cancel(probe: Probe, path: str) -> None:
    accepted(probe.gateway.cancel_by_path(probe.fqrn + path, key=probe.admin), "cancel")


@case("admin.cancel", "DELETE /leases-by-path/<repo>/<path> cancels the lease on the path", API)
def cancel(probe: Probe) -> None:
    path = probe.path()
    token = probe.acquire(path)
    _cancel(probe, path)
    expect(probe.fqrn + path not in probe.listing(), "it is still listed")
    refused(probe.gateway.drop(token), "drop", "invalid lease")
    granted(probe.ask(path))


@case("admin.cancel.below", "cancelling by path cancels the leases below the path", API)
def cancel_below(probe: Probe) -> None:
    top = probe.path()
    for name in ("a", "b/c"):
        probe.acquire(f"{top}/{name}")
    _cancel(probe, top)
    left = [path for path in probe.listing() if path.startswith(probe.fqrn + top)]
    equal(left, [], "leases left")


@case("admin.cancel.others", "cancelling by path leaves leases beside the path alone, /ab beside /a as well", SAFETY)
def cancel_others(probe: Probe) -> None:
    top = probe.path()
    probe.acquire(f"{top}/a/x")
    others = [f"{top}/ab", f"{top}/b", f"{top}/A"]
    granted_others = [path for path in others if probe.ask(path).json.get("status") == "ok"]
    expect(granted_others, "no lease beside the path is granted")
    _cancel(probe, f"{top}/a")
    for path in granted_others:
        expect(probe.fqrn + path in probe.listing(), f"the lease on {path} is gone")


@case("admin.cancel.space", "a path is signed with its escapes resolved", API)
def cancel_space(probe: Probe) -> None:
    path = f"{probe.path()}/with space"
    probe.acquire(path)
    _cancel(probe, path)
    expect(probe.fqrn + path not in probe.listing(), "it is still listed")


@case("admin.cancel.nothing", "cancelling where there is no lease is ok", API)
def cancel_nothing(probe: Probe) -> None:
    _cancel(probe, probe.path())


@case("admin.cancel.no.path", "DELETE /leases-by-path/ without a path is HTTP 400", API)
def cancel_no_path(probe: Probe) -> None:
    equal(probe.gateway.cancel_by_path("", key=probe.admin).status, 400, "HTTP status")


# --- garbage, keys --------------------------------------------------------------------------------------------------


@case("admin.gc.dry", "POST /gc with dry_run answers ok and an output, and takes nothing away", API)
def collect(probe: Probe) -> None:
    manifest = probe.repository.manifest()
    if manifest.fields.get("G") != "yes":
        raise NotApplicable("the repository's garbage is not collectable")
    reply = accepted(probe.gateway.collect(probe.fqrn, key=probe.admin), "gc")
    expect(isinstance(reply.get("output"), str), f"output is {reply.get('output')!r}")
    probe.repository.stored(manifest.root, "C")


@case("admin.gc.names", "POST /gc copes with nested catalogs whose path is no UTF-8", FORMAT)
def collect_names(probe: Probe) -> None:
    top = probe.path()

    def act(tree: Tree) -> None:
        tree.make_directories(f"{top}/\udcff")
        tree.nest(f"{top}/\udcff")

    probe.publish(top, act)
    collect(probe)


@case(
    "admin.gc.whole",
    "POST /gc leaves all that the head and the tags name, and publishing goes on",
    API,
    destructive=True,
)
def collect_whole(probe: Probe) -> None:
    top, tag = probe.path(), probe.name()
    probe.publish(top, lambda tree: tree.put_file(top, b"kept by a tag"), tag_name=tag)
    kept = probe.repository.manifest().root
    probe.publish(top, lambda tree: tree.put_file(top, b"of the head"))
    if probe.repository.manifest().fields.get("G") != "yes":
        raise NotApplicable("the repository's garbage is not collectable")
    accepted(probe.gateway.collect(probe.fqrn, key=probe.admin, dry_run=False), "gc")
    for root, content in ((None, b"of the head"), (kept, b"kept by a tag")):
        tree = check(probe.repository, root)
        equal(probe.repository.content(tree.need(top)), content, "content")
    probe.plant(probe.path())


@case("admin.gc.unknown", "collecting an unknown repository's garbage is refused", API)
def collect_unknown(probe: Probe) -> None:
    refused(probe.gateway.collect("nothing.example.org", key=probe.admin), "gc")


@case("admin.gc.malformed", "a request to collect that is no JSON is HTTP 400", API)
def collect_malformed(probe: Probe) -> None:
    reply = probe.gateway.call("POST", "/gc", b"{", key=probe.admin, signed=b"{")
    equal(reply.status, 400, "HTTP status")


@case("admin.keys", "GET /repos/<name>/keys hands out key and certificate, or says key_endpoint_disabled", API13)
def keys(probe: Probe) -> None:
    route = f"/repos/{probe.fqrn}/keys"
    reply = probe.gateway.call("GET", route, signed=(probe.gateway.root + route).encode())
    if reply.status in (404, 405):
        raise NotApplicable("this gateway does not hand out keys")
    if reply.json.get("status") == "ok":
        expect({"pub", "crt"} <= set(reply.json.get("data", {})), f"not both: {reply}")
    else:
        refused(reply, "GET /repos/<name>/keys", "key_endpoint_disabled")


@case("admin.keys.signed", "GET /repos/<name>/keys without a signature is refused", API13)
def keys_unsigned(probe: Probe) -> None:
    reply = probe.gateway.get(f"/repos/{probe.fqrn}/keys")
    if reply.status in (404, 405):
        raise NotApplicable("this gateway does not hand out keys")
    if reply.json.get("status") == "ok":
        raise Failed("keys are handed out to anybody")
