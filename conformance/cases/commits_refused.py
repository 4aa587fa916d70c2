"""Commits that cannot be: refused, nothing changed, and the lease usable."""

from __future__ import annotations

from typing import Any

from conformance.consistency import check
from conformance.entry import directory
from conformance.outcomes import NotApplicable, equal, expect
from conformance.pack import Pack
from conformance.probe import Probe, accepted, refused, turned_down
from conformance.registry import API, SAFETY, case, each, issue
from conformance.tree import Built, Tree


def _made(probe: Probe, top: str) -> Built:
    return probe.build(lambda tree: tree.put(top, directory()))


@case(
    "commits.missing.root", "a commit of a root catalog that was not uploaded is refused, and nothing changes", SAFETY
)
def missing_root(probe: Probe) -> None:
    top = probe.path()
    before = probe.repository.read(".cvmfspublished")
    built = _made(probe, top)
    token = probe.acquire(top)
    refused(probe.gateway.commit(token, built.base, built.root), "commit")
    equal(probe.repository.read(".cvmfspublished"), before, "the manifest")


@case(
    "commits.missing.nested", "a commit whose nested catalog was not uploaded is refused, and nothing changes", SAFETY
)
def missing_nested(probe: Probe) -> None:
    top = probe.path()
    before = probe.repository.read(".cvmfspublished")

    def act(tree: Tree) -> None:
        tree.make_directories(top)
        tree.nest(top)

    built = probe.build(act)
    catalogs = [each_object for each_object in built.objects if each_object.suffix == "C"]
    nested = next(each_object for each_object in catalogs if each_object.name != built.root)
    token = probe.acquire(top)
    sent = [each_object for each_object in built.objects if each_object is not nested]
    accepted(probe.gateway.payload(token, Pack.of(sent)), "payload")
    refused(probe.gateway.commit(token, built.base, built.root), "commit")
    equal(probe.repository.read(".cvmfspublished"), before, "the manifest")


@case(
    "commits.retry",
    "after a commit that failed, what was missing can be sent and the same lease committed",
    issue(3128, 3334),
)
def retry(probe: Probe) -> None:
    top = probe.path()
    built = _made(probe, top)
    token = probe.acquire(top)
    refused(probe.gateway.commit(token, built.base, built.root), "commit of what is not there")
    probe.send(token, built)
    probe.commit(token, built)
    check(probe.repository).need(top)


@case("commits.failed.lease", "a commit that failed leaves the lease as it was", issue(3334))
def failed_lease(probe: Probe) -> None:
    top = probe.path()
    token = probe.acquire(top)
    root = probe.repository.manifest().root
    refused(probe.gateway.commit(token, root, "1" * 40), "commit")
    equal(probe.gateway.show(token).status, 200, "HTTP status of the lease")
    accepted(probe.gateway.drop(token), "drop")


@case("commits.failed.next", "after a commit that failed, another publisher's goes through", SAFETY)
def failed_next(probe: Probe) -> None:
    token = probe.acquire()
    root = probe.repository.manifest().root
    refused(probe.gateway.commit(token, root, "1" * 40), "commit")
    probe.plant(top := probe.path())
    check(probe.repository).need(top)


@case("commits.no.catalog", "a commit of an object that is no catalog is refused, and nothing changes", SAFETY)
def no_catalog(probe: Probe) -> None:
    before = probe.repository.read(".cvmfspublished")
    made = probe.new_object(5000, suffix="C")
    token = probe.acquire()
    accepted(probe.gateway.payload(token, Pack.of([made])), "payload")
    refused(probe.gateway.commit(token, probe.repository.manifest().root, made.name), "commit")
    equal(probe.repository.read(".cvmfspublished"), before, "the manifest")
    equal(probe.gateway.get("/repos").status, 200, "HTTP status of /repos")


@case(
    "commits.other.catalog",
    "a nested catalog given as the new root is refused, and nothing changes",
    SAFETY,
    spoils=True,
)
def other_catalog(probe: Probe) -> None:
    top = probe.path()

    def act(tree: Tree) -> None:
        tree.make_directories(f"{top}/n")
        tree.nest(f"{top}/n")

    probe.plant(top, act)
    manifest = probe.repository.manifest()
    tree = probe.repository.tree()
    tree.prefixes()
    token = probe.acquire(top)
    refused(probe.gateway.commit(token, manifest.root, tree.name_of(f"{top}/n")), "commit")
    equal(probe.repository.read(".cvmfspublished"), manifest.raw, "the manifest")


@case("commits.again", "a commit whose reply was lost can be asked again and gets the same answer", issue(3128))
def again(probe: Probe) -> None:
    top = probe.path()
    built = _made(probe, top)
    token = probe.acquire(top)
    probe.send(token, built)
    first = probe.commit(token, built)
    second = probe.commit(token, built)
    equal(second.revision, first.revision, "final_revision of the second answer")
    equal(probe.repository.manifest().revision, first.revision, "published revision")


@case("commits.after", "after its commit, a lease takes no other commit", SAFETY)
def after(probe: Probe) -> None:
    top = probe.path()
    built = _made(probe, top)
    token = probe.acquire(top)
    probe.send(token, built)
    done = probe.commit(token, built)
    root = probe.repository.manifest().root
    refused(probe.gateway.commit(token, root, root), "another commit", "invalid lease")
    equal(probe.repository.manifest().revision, done.revision, "published revision")


@each(
    "commits.malformed",
    API,
    {
        "no.json": ("a commit whose body is no JSON is HTTP 400", b"{"),
        "empty": ("a commit without a body is HTTP 400", b""),
        "list": ("a commit whose body is a list is HTTP 400", b"[]"),
    },
)
def malformed(probe: Probe, body: bytes) -> None:
    token = probe.acquire()
    reply = probe.gateway.call("POST", f"/leases/{token}", body, signed=token.encode())
    equal(reply.status, 400, "HTTP status")
    equal(probe.gateway.show(token).status, 200, "HTTP status of the lease")


@each(
    "commits.hashes",
    SAFETY,
    {
        "rubbish": ("a new_root_hash that is no hash is turned down", {"new_root_hash": "rubbish"}),
        "missing": ("a commit without new_root_hash is turned down", {"new_root_hash": None}),
        "empty": ("an empty new_root_hash is turned down", {"new_root_hash": ""}),
        "path": ("a path for new_root_hash is turned down", {"new_root_hash": "../../../etc/passwd"}),
        "suffix": (
            "a new_root_hash with the suffix of a tag database is turned down",
            {"new_root_hash": "1" * 40 + "H"},
        ),
    },
)
def hashes(probe: Probe, fields: dict[str, Any]) -> None:
    before = probe.repository.read(".cvmfspublished")
    token = probe.acquire()
    root = probe.repository.manifest().root
    turned_down(probe.gateway.commit(token, root, root, **fields), "commit")
    equal(probe.repository.read(".cvmfspublished"), before, "the manifest")


@case(
    "commits.below.file",
    "nothing can be published below a file: refused with the lease or with the commit",
    SAFETY,
    spoils=True,
)
def below_file(probe: Probe) -> None:
    top = probe.path()
    probe.plant(top, lambda tree: tree.put_file(f"{top}/file", b"x"))
    before = probe.repository.read(".cvmfspublished")
    reply = probe.ask(f"{top}/file/below")
    if reply.json.get("status") == "ok":
        token = reply.json["session_token"]

        def act(tree: Tree) -> None:
            tree.remove(f"{top}/file")
            tree.make_directories(f"{top}/file/below")

        built = probe.build(act)
        probe.send(token, built)
        refused(probe.gateway.commit(token, built.base, built.root), "commit")
    equal(probe.repository.read(".cvmfspublished"), before, "the manifest")


@case("commits.missing.objects", "a commit whose file was not uploaded is refused, or the reply tells of it", SAFETY)
def missing_objects(probe: Probe) -> None:
    top = probe.path()

    def act(tree: Tree) -> None:
        tree.make_directories(top)
        tree.put_file(f"{top}/file", probe.fresh(100))

    built = probe.build(act)
    token = probe.acquire(top)
    accepted(probe.gateway.payload(token, Pack.of([o for o in built.objects if o.suffix == "C"])), "payload")
    reply = probe.gateway.commit(token, built.base, built.root)
    if reply.json.get("status") == "ok":
        probe.publish(top, lambda tree: tree.remove(f"{top}/file"))
        expect(set(reply.json) - {"status", "final_revision"}, "accepted without a word: clients get I/O errors")


@case("commits.protocol", "publishers of protocol 2 and 3 commit alike", API)
def protocols(probe: Probe) -> None:
    for number in ("2", "3"):
        top = probe.path()
        reply = probe.ask(top, api_version=number)
        if reply.json.get("status") != "ok":
            raise NotApplicable(f"protocol {number} is not spoken")
        built = _made(probe, top)
        probe.send(reply.json["session_token"], built)
        probe.commit(reply.json["session_token"], built)
        check(probe.repository).need(top)
