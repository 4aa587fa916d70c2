"""Every kind of change, each in a commit of its own: what the publisher made is what is published."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace

from conformance.consistency import check
from conformance.entry import HIDDEN, directory, link, special, xattr_blob
from conformance.outcomes import equal, expect
from conformance.probe import Probe
from conformance.registry import API, case, each
from conformance.tree import Tree

Act = Callable[[Tree, str], object]


def nothing(tree: Tree, top: str) -> None:
    """No change."""


def compare(tree: Tree, other: Tree, top: str) -> None:
    """What clients see below *top* is the same in both."""
    found = {path: entry.without_structure() for path, entry in tree.walk(top)}
    wanted = {path: entry.without_structure() for path, entry in other.walk(top)}
    expect(wanted, f"{top} is not there: an earlier commit is lost")
    for path in wanted.keys() | found.keys():
        equal(found.get(path), wanted.get(path), path or "/")


def publish(probe: Probe, before: Act, change: Act) -> Tree:
    """*before* in one commit, *change* in the next; returns the result, which must be what the publisher made."""
    top = probe.path()
    probe.plant(top, lambda tree: before(tree, top))
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
    tree.put(f"{top}/.cvmfs", replace(entry, flags=entry.flags | HIDDEN))


def _move(tree: Tree, top: str) -> None:
    entry = tree.need(f"{top}/dir/inner")
    tree.remove(f"{top}/dir/inner")
    tree.put(f"{top}/renamed", entry)


def _empty(tree: Tree, top: str) -> None:
    for path in list(tree.children(top)):
        tree.remove(path)


def _dissolve(tree: Tree, top: str) -> None:
    tree.remove(f"{top}/dir/.cvmfscatalog")
    tree.unnest(f"{top}/dir")


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
    "remove.all": ("the leased directory emptied", _empty),
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
    "commits.change",
    API,
    {name: (f"{words} is what the commit publishes", act) for name, (words, act) in CHANGES.items()},
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
        _dissolve,
    ),
    "mode": ("the mode of a nested catalog's directory changed", _modify("dir", mode=0o040711)),
    "to.file": ("a nested catalog replaced by a file", _replace_by("dir", lambda t, p: t.put_file(p, b"file"))),
    "directory": ("a directory added inside a nested catalog", lambda t, p: t.put(f"{p}/dir/new", directory())),
}


@each(
    "commits.nested",
    API,
    {name: (f"{words} is what the commit publishes", act) for name, (words, act) in NESTED.items()},
)
def nested(probe: Probe, act: Act) -> None:
    publish(probe, _plant_nested, act)
