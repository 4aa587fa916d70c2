"""Commits: what a publisher changed, and nothing else, is in the next revision."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from dataclasses import replace

from conformance.cases import commits_merge, commits_refused
from conformance.consistency import check
from conformance.entry import directory, link, special, xattr_blob
from conformance.model import Deviates, equal, expect
from conformance.probe import Probe, accepted
from conformance.registry import API, FORMAT, case, each
from conformance.tree import Tree

__all__ = ["commits_merge", "commits_refused"]

Act = Callable[[Tree, str], object]


def nothing(tree: Tree, top: str) -> None:
    """No change."""


def compare(tree: Tree, other: Tree, top: str) -> None:
    """What clients see below *top* is the same in both."""
    found = {path: entry.without_structure() for path, entry in tree.walk(top)}
    wanted = {path: entry.without_structure() for path, entry in other.walk(top)}
    for path in wanted.keys() | found.keys():
        equal(found.get(path), wanted.get(path), path or "/")


def publish(probe: Probe, before: Act, change: Act) -> Tree:
    """*before* in one commit, *change* in the next; returns the result, which must be what the publisher made."""
    top = probe.path()
    probe.plant(top, lambda tree: before(tree, top) and None)
    made: list[Tree] = []

    def act(tree: Tree) -> None:
        change(tree, top)
        made.append(tree)

    probe.publish(top, act)
    tree = check(probe.repository)
    compare(tree, made[0], top)
    return tree


def _plant_all(tree: Tree, top: str) -> None:
    tree.put_file(f"{top}/file", b"content")
    tree.put_file(f"{top}/other", b"other content", 0o755)
    tree.put(f"{top}/link", link("file"))
    tree.put_chunked(f"{top}/chunked", [b"first piece" * 100, b"second piece" * 100])
    tree.put(f"{top}/pipe", special(stat.S_IFIFO))
    tree.put(f"{top}/dir", directory())
    tree.put_file(f"{top}/dir/inner", b"inner content")
    tree.put(f"{top}/dir/sub", directory())
    tree.put_file(f"{top}/dir/sub/deep", b"deep content")


def _modify(name: str, **fields: object) -> Act:
    def act(tree: Tree, top: str) -> None:
        path = f"{top}/{name}" if name else top
        tree.put(path, replace(tree.need(path), **fields))  # type: ignore[arg-type]

    return act


def _replace_by(name: str, put: Act) -> Act:
    def act(tree: Tree, top: str) -> None:
        tree.remove(f"{top}/{name}")
        put(tree, f"{top}/{name}")

    return act


def _hide(tree: Tree, top: str) -> None:
    entry = tree.put_file(f"{top}/.cvmfs", b"not for everybody")
    tree.put(f"{top}/.cvmfs", replace(entry, flags=entry.flags | 1 << 15))


def _move(tree: Tree, top: str) -> None:
    entry = tree.need(f"{top}/dir/inner")
    tree.remove(f"{top}/dir/inner")
    tree.put(f"{top}/renamed", entry)


CHANGES: dict[str, tuple[str, Act]] = {
    "add.file": ("a new file", lambda t, p: t.put_file(f"{p}/new", b"new")),
    "add.empty.file": ("a new empty file", lambda t, p: t.put_file(f"{p}/empty", b"")),
    "add.directory": ("a new directory", lambda t, p: t.put(f"{p}/new", directory(0o750))),
    "add.deep": ("a new directory with files three levels down", lambda t, p: _deep(t, p)),
    "add.link": ("a new symbolic link", lambda t, p: t.put(f"{p}/new", link("../somewhere/else"))),
    "add.variant.link": ("a new link with a variable", lambda t, p: t.put(f"{p}/new", link("$(VAR:-/default)"))),
    "add.chunked": ("a new file in chunks", lambda t, p: t.put_chunked(f"{p}/new", [b"one" * 50, b"two" * 60, b"3"])),
    "add.fifo": ("a new FIFO", lambda t, p: t.put(f"{p}/new", special(stat.S_IFIFO))),
    "add.socket": ("a new socket", lambda t, p: t.put(f"{p}/new", special(stat.S_IFSOCK))),
    "add.device": ("a new device with its number", lambda t, p: t.put(f"{p}/new", special(stat.S_IFCHR, 0x0103))),
    "add.xattr": (
        "a new file with extended attributes",
        lambda t, p: t.put(f"{p}/new", replace(t.put_file(f"{p}/new", b"x"), xattr=xattr_blob({"user.a": b"\0\xff"}))),
    ),
    "add.hidden": ("a new hidden entry", _hide),
    "add.setuid": ("a new file with the set-user-id bit", lambda t, p: t.put_file(f"{p}/new", b"x", 0o4755)),
    "add.names": ("new files with odd names", lambda t, p: _odd_names(t, p)),
    "content": ("a file's content changed", lambda t, p: t.put_file(f"{p}/file", b"changed content")),
    "shorter": ("a file in chunks cut down to one object", lambda t, p: t.put_file(f"{p}/chunked", b"short")),
    "longer": ("a file grown into chunks", lambda t, p: t.put_chunked(f"{p}/file", [b"a" * 99, b"b" * 99])),
    "one.chunk": (
        "one chunk of a file changed",
        lambda t, p: t.put_chunked(f"{p}/chunked", [b"first piece" * 100, b"CHANGED piece" * 100]),
    ),
    "mode": ("a file's mode changed", _modify("file", mode=0o100755)),
    "mtime": ("a file's time changed", _modify("file", mtime=1_700_000_000)),
    "nanoseconds": ("the nanoseconds of a file's time changed", _modify("file", mtimens=123_456_789)),
    "owner": ("a file's owner alone changed", _modify("file", uid=1001)),
    "group": ("a file's group alone changed", _modify("file", gid=1002)),
    "xattr.added": ("an extended attribute added", _modify("file", xattr=xattr_blob({"user.a": b"1"}))),
    "link.target": ("a link's target changed", lambda t, p: t.put(f"{p}/link", link("other"))),
    "directory.mode": ("a directory's mode changed", _modify("dir", mode=0o040700)),
    "directory.owner": ("a directory's owner changed", _modify("dir", uid=1001, gid=1002)),
    "top.mode": ("the mode of the leased directory itself changed", _modify("", mode=0o040711)),
    "remove.file": ("a file removed", lambda t, p: t.remove(f"{p}/file")),
    "remove.link": ("a link removed", lambda t, p: t.remove(f"{p}/link")),
    "remove.special": ("a FIFO removed", lambda t, p: t.remove(f"{p}/pipe")),
    "remove.chunked": ("a file in chunks removed", lambda t, p: t.remove(f"{p}/chunked")),
    "remove.tree": ("a directory with everything below removed", lambda t, p: t.remove(f"{p}/dir")),
    "remove.all": ("the leased directory emptied", lambda t, p: [t.remove(path) for path in list(t.children(p))]),
    "rename": ("a file moved to another directory", _move),
    "file.to.directory": ("a file replaced by a directory", _replace_by("file", lambda t, p: t.make_directories(p))),
    "file.to.link": ("a file replaced by a link", _replace_by("file", lambda t, p: t.put(p, link("other")))),
    "link.to.file": ("a link replaced by a file", _replace_by("link", lambda t, p: t.put_file(p, b"no link"))),
    "directory.to.file": ("a directory replaced by a file", _replace_by("dir", lambda t, p: t.put_file(p, b"file"))),
    "directory.to.link": ("a directory replaced by a link", _replace_by("dir", lambda t, p: t.put(p, link("file")))),
    "link.to.directory": ("a link replaced by a directory", _replace_by("link", lambda t, p: t.make_directories(p))),
    "nested.new": ("a directory made a nested catalog", lambda t, p: t.nest(f"{p}/dir")),
    "nothing": ("no change at all", nothing),
}


def _deep(tree: Tree, top: str) -> None:
    tree.make_directories(f"{top}/one/two/three")
    tree.put_file(f"{top}/one/two/three/file", b"far below")


def _odd_names(tree: Tree, top: str) -> None:
    for name in ("with space", "tab\there", "newline\nhere", "quote'\"", "träume", "\udce9", "-r", "n" * 255, "%41"):
        tree.put_file(f"{top}/{name}", name.encode("utf-8", "surrogateescape"))


@each(
    "commits.change", API, {name: (f"{words} is what the commit publishes", act) for name, (words, act) in CHANGES.items()}
)
def change(probe: Probe, act: Act) -> None:
    publish(probe, _plant_all, act)


@case("commits.change.xattr.value", "only the value of an extended attribute changed is what the commit publishes", API)
def xattr_value(probe: Probe) -> None:
    def before(tree: Tree, top: str) -> None:
        tree.put(f"{top}/file", replace(tree.put_file(f"{top}/file", b"x"), xattr=xattr_blob({"user.a": b"1"})))

    publish(probe, before, _modify("file", xattr=xattr_blob({"user.a": b"2"})))


def _plant_nested(tree: Tree, top: str) -> None:
    _plant_all(tree, top)
    tree.nest(f"{top}/dir")


NESTED: dict[str, tuple[str, Act]] = {
    "inside": ("a file added inside a nested catalog", lambda t, p: t.put_file(f"{p}/dir/new", b"new")),
    "beside": ("a file added beside a nested catalog", lambda t, p: t.put_file(f"{p}/new", b"new")),
    "both": (
        "files added inside and outside a nested catalog",
        lambda t, p: (t.put_file(f"{p}/new", b"new"), t.put_file(f"{p}/dir/sub/new", b"new")),
    ),
    "deeper": ("a nested catalog in a nested catalog", lambda t, p: t.nest(f"{p}/dir/sub")),
    "removed": ("a nested catalog removed with its directory", lambda t, p: t.remove(f"{p}/dir")),
    "dissolved": (
        "a nested catalog dissolved",
        lambda t, p: (t.remove(f"{p}/dir/.cvmfscatalog"), t.unnest(f"{p}/dir")),
    ),
    "mode": ("the mode of a nested catalog's directory changed", _modify("dir", mode=0o040711)),
    "to.file": ("a nested catalog replaced by a file", _replace_by("dir", lambda t, p: t.put_file(p, b"file"))),
    "directory": ("a directory added inside a nested catalog", lambda t, p: t.put(f"{p}/dir/new", directory())),
}


@each(
    "commits.nested", API, {name: (f"{words} is what the commit publishes", act) for name, (words, act) in NESTED.items()}
)
def nested(probe: Probe, act: Act) -> None:
    publish(probe, _plant_nested, act)


# --- what comes with it ---------------------------------------------------------------------------------------------


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
    top, data = probe.path(), probe.bytes(100_000)

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


@case("commits.no.hash.suffix", "hashes without the suffix C are understood", API)
def no_suffix(probe: Probe) -> None:
    top = probe.path()
    built = probe.build(lambda tree: tree.make_directories(top))
    token = probe.acquire(top)
    probe.send(token, built)
    accepted(probe.gateway.commit(token, "", "", old_root_hash=built.base, new_root_hash=built.root), "commit")


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

    def act(tree: Tree) -> None:
        tree.make_directories(top)
        entry = tree.put_file(f"{top}/f", b"the same for all")
        catalog = tree.holder(top)
        for number in range(2000):
            catalog.put(f"{top}/f{number}", entry)

    probe.publish(top, act)
    tree = check(probe.repository)
    equal(len(tree.children(top)), 2001, "files")


@case("commits.series", "ten commits in a row are ten revisions, each consistent", API)
def series(probe: Probe) -> None:
    top, first = probe.path(), probe.repository.manifest().revision
    for number in range(10):
        probe.publish(top, lambda tree, n=number: tree.make_directories(f"{top}/d{n}"))  # type: ignore[misc]
    equal(probe.repository.manifest().revision, first + 10, "revision")
    equal(len(check(probe.repository).children(top)), 10, "directories")
