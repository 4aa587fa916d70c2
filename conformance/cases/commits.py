"""Commits: what is said of them, and what comes with each into the next revision."""

from __future__ import annotations

import time
from dataclasses import replace

from conformance.consistency import check
from conformance.outcomes import Deviates, equal, expect
from conformance.probe import Probe
from conformance.registry import API, FORMAT, SAFETY, case
from conformance.tree import Tree


@case("commits.reply", "a commit answers ok and the new revision as final_revision", API)
def reply(probe: Probe) -> None:
    before = probe.repository.manifest().revision
    done = probe.publish(top := probe.path(), lambda tree: tree.make_directories(top))
    equal(done.revision, before + 1, "final_revision")
    equal(probe.repository.manifest().revision, before + 1, "published revision")


@case("commits.reply.members", "the reply to a commit has the two members that release 2.12 has", API)
def reply_members(probe: Probe) -> None:
    done = probe.publish(top := probe.path(), lambda tree: tree.make_directories(top), tag_name="generic-now")
    more = set(done.reply.json) - {"status", "final_revision"}
    if more:
        raise Deviates(f"also tells {', '.join(sorted(more))}, which publishers pass over")


@case("commits.lease.ends", "a commit ends its lease: it is not listed and its path is free", API)
def lease_ends(probe: Probe) -> None:
    top = probe.path()
    probe.publish(top, lambda tree: tree.make_directories(top))
    expect(probe.fqrn + top not in probe.listing(), "the lease is still listed")
    probe.acquire(top)


@case("commits.content", "what was published can be read back, byte for byte", API)
def content(probe: Probe) -> None:
    top, data = probe.path(), probe.fresh(100_000)

    def act(tree: Tree) -> None:
        tree.make_directories(top)
        tree.put_file(f"{top}/file", data)

    probe.publish(top, act)
    entry = probe.repository.tree().need(f"{top}/file")
    expect(entry.hash is not None, "the file has no hash")
    expect(probe.repository.plain((entry.hash or b"").hex()) == data, "other bytes")


@case("commits.root.properties", "the new root catalog has revision + 1, previous_revision and last_modified", FORMAT)
def root_properties(probe: Probe) -> None:
    before, started = probe.repository.manifest(), int(time.time())
    top = probe.path()
    probe.publish(top, lambda tree: tree.make_directories(top))
    root = probe.repository.tree().catalog()
    equal(root.property("revision"), str(before.revision + 1), "revision")
    equal(root.property("previous_revision"), before.root, "previous_revision")
    modified = int(float(root.property("last_modified") or 0))
    expect(started - 2 <= modified <= time.time() + 2, f"last_modified is {modified}, now is {int(time.time())}")


@case("commits.properties", "properties come from the repository, never from the publisher", FORMAT)
def properties(probe: Probe) -> None:
    top = probe.path()
    wanted = probe.repository.tree().catalog().property("TTL")

    def act(tree: Tree) -> None:
        tree.make_directories(top)
        tree.catalog().set_property("TTL", "7")
        tree.catalog().set_property("volatile", "1")

    probe.publish(top, act)
    root = probe.repository.tree().catalog()
    equal(root.property("TTL"), wanted, "TTL")
    expect(root.property("volatile") in (None, "0"), "the repository has become volatile")
    expect(probe.repository.manifest().fields["D"] != "7", "the manifest's TTL is the publisher's")


@case("commits.no.hash.suffix", "hashes without the suffix C are understood, or refused without harm", SAFETY)
def no_suffix(probe: Probe) -> None:
    top = probe.path()
    built = probe.build(lambda tree: tree.make_directories(top))
    token = probe.acquire(top)
    probe.send(token, built)
    reply = probe.gateway.commit(token, "", "", old_root_hash=built.base, new_root_hash=built.root)
    found = check(probe.repository).get(top)
    if reply.status == 200 and reply.json.get("status") == "ok":
        expect(found, "accepted, but nothing is published")
    else:
        expect(found is None, f"refused, but published: {reply}")


@case("commits.unknown.fields", "fields of a commit that nobody knows are passed over", API)
def unknown_fields(probe: Probe) -> None:
    top = probe.path()
    probe.publish(top, lambda tree: tree.make_directories(top), of_a_later_release=[1])


@case("commits.whole", "a commit under a lease on the whole repository changes any path", API)
def whole(probe: Probe) -> None:
    first, second = probe.path(), probe.path()

    def act(tree: Tree) -> None:
        tree.make_directories(first)
        tree.make_directories(f"{second}/deep")

    probe.publish("", act)
    tree = check(probe.repository)
    for path in (first, f"{second}/deep"):
        tree.need(path)


@case("commits.root.directory", "the root directory's own entry changes under a lease on the whole repository", API)
def root_directory(probe: Probe) -> None:
    old = probe.repository.tree().need("")
    moment = old.mtime + 1
    probe.publish("", lambda tree: tree.put("", replace(tree.need(""), mtime=moment)))
    equal(probe.repository.tree().need("").mtime, moment, "time of the root directory")


@case("commits.many", "2,000 new files in one commit are all there", API)
def many(probe: Probe) -> None:
    top = probe.path()

    probe.publish(top, lambda tree: tree.fill(top, 2000))
    tree = check(probe.repository)
    equal(len(tree.children(top)), 2001, "files")
    probe.publish(top, lambda tree: tree.clear(top))
    expect(check(probe.repository).get(top) is None, "they are still there after their removal")


@case("commits.series", "ten commits in a row are ten revisions, each consistent", API)
def series(probe: Probe) -> None:
    top, first = probe.path(), probe.repository.manifest().revision
    for number in range(10):
        probe.publish(top, lambda tree, n=number: tree.make_directories(f"{top}/d{n}"))  # type: ignore[misc]
    equal(probe.repository.manifest().revision, first + 10, "revision")
    equal(len(check(probe.repository).children(top)), 10, "directories")
