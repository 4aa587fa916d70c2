"""Tags: named revisions in the tag database of each commit."""

from __future__ import annotations

import re
import time
from typing import Any, Final

from conformance.outcomes import Failed, NotApplicable, equal, expect
from conformance.probe import Commit, Probe, refused
from conformance.registry import API, API13, FORMAT, case, each
from conformance.repository import database

_GENERIC: Final = re.compile(r"generic-\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z")
_UNDO: Final = {"trunk", "trunk-previous"}


def commit(probe: Probe, **fields: Any) -> Commit:
    """A small commit."""
    top = probe.path()
    return probe.publish(top, lambda tree: tree.make_directories(top), **fields)


def tag(probe: Probe, name: str) -> dict[str, Any]:
    """The tag *name*; raises :exc:`Failed`."""
    found = probe.repository.tags().get(name)
    if found is None:
        raise Failed(f"there is no tag {name}")
    return dict(found)


@case("tags.named", "an explicit tag_name makes a tag of that name", API)
def named(probe: Probe) -> None:
    name = probe.name()
    commit(probe, tag_name=name)
    tag(probe, name)


@each(
    "tags.named",
    FORMAT,
    {
        "hash": ("a tag holds the hash of its revision's root catalog", "hash"),
        "revision": ("a tag holds the number of its revision", "revision"),
        "timestamp": ("a tag holds the time of its commit", "timestamp"),
        "size": ("a tag holds the uncompressed size of its root catalog", "size"),
        "description": ("a tag holds the description that came with the commit", "description"),
        "branch": ("a tag is on the branch without a name", "branch"),
    },
)
def columns(probe: Probe, column: str) -> None:
    name = probe.name()
    commit(probe, tag_name=name, tag_description="what it is good for")
    manifest = probe.repository.manifest()
    found = tag(probe, name)[column]
    if column == "timestamp":
        expect(abs(int(found) - time.time()) < 60, f"timestamp is {found}")
    else:
        wanted = {
            "hash": manifest.root,
            "revision": manifest.revision,
            "size": int(manifest.fields["B"]),
            "description": "what it is good for",
            "branch": "",
        }[column]
        equal(found, wanted, column)


@case("tags.generic", "a tag_name that begins with generic- becomes generic-<UTC time of the commit>", API)
def generic(probe: Probe) -> None:
    before = set(probe.repository.tags())
    commit(probe, tag_name="generic-2001-01-01T00:00:00Z")
    new = set(probe.repository.tags()) - before - _UNDO
    equal(len(new), 1, f"new tags ({new})")
    (name,) = new
    expect(_GENERIC.fullmatch(name), f"the tag is {name}")
    expect(abs(time.mktime(time.gmtime()) - _when(name)) < 120, f"the tag is {name}")


def _when(name: str) -> float:
    return time.mktime(time.strptime(name[8:27], "%Y-%m-%dT%H:%M:%S"))


@case("tags.generic.differ", "two commits in a row with generic tags make two tags", API)
def generic_differ(probe: Probe) -> None:
    before = set(probe.repository.tags())
    for _ in range(2):
        commit(probe, tag_name="generic-now")
    new = set(probe.repository.tags()) - before - _UNDO
    equal(len(new), 2, f"new tags ({new})")


@case("tags.empty", "an empty tag_name makes no tag but the undo tags", API)
def empty(probe: Probe) -> None:
    before = set(probe.repository.tags())
    commit(probe, tag_name="")
    equal(set(probe.repository.tags()) - before - _UNDO, set(), "new tags")


@case("tags.trunk", "each commit moves trunk to the new revision", API)
def trunk(probe: Probe) -> None:
    for _ in range(2):
        commit(probe)
        manifest = probe.repository.manifest()
        equal(tag(probe, "trunk")["hash"], manifest.root, "hash of trunk")
        equal(tag(probe, "trunk")["revision"], manifest.revision, "revision of trunk")


@case("tags.trunk.previous", "each commit moves trunk-previous to where trunk was", API)
def trunk_previous(probe: Probe) -> None:
    commit(probe)
    before = tag(probe, "trunk")
    commit(probe)
    equal(tag(probe, "trunk-previous")["hash"], before["hash"], "hash of trunk-previous")
    equal(tag(probe, "trunk-previous")["revision"], before["revision"], "revision of trunk-previous")


@case("tags.kept", "tags of earlier commits stay as they are", API)
def kept(probe: Probe) -> None:
    name = probe.name()
    commit(probe, tag_name=name)
    before = tag(probe, name)
    commit(probe)
    equal(tag(probe, name), before, name)


def _refused(probe: Probe, name: str) -> None:
    top = probe.path()
    before = probe.repository.read(".cvmfspublished")
    built = probe.build(lambda tree: tree.make_directories(top))
    token = probe.acquire(top)
    probe.send(token, built)
    refused(probe.gateway.commit(token, built.base, built.root, tag_name=name), "commit")
    equal(probe.repository.read(".cvmfspublished"), before, "the manifest")
    equal(probe.gateway.show(token).status, 200, "HTTP status of the lease")


@each(
    "tags.refused",
    API,
    {
        "trunk": ("a commit with the tag trunk is refused, and nothing changes", "trunk"),
        "trunk.previous": ("a commit with the tag trunk-previous is refused, and nothing changes", "trunk-previous"),
        "space": ("a commit with a tag that holds a space is refused, and nothing changes", "two words"),
    },
)
def names_refused(probe: Probe, name: str) -> None:
    _refused(probe, name)


@case("tags.refused.exists", "a commit with a tag that exists is refused, and nothing changes", API)
def exists(probe: Probe) -> None:
    name = probe.name()
    commit(probe, tag_name=name)
    _refused(probe, name)


@case("tags.retry", "after a commit that was refused for its tag, the same lease can be committed with another", API)
def retry(probe: Probe) -> None:
    top, name = probe.path(), probe.name()
    built = probe.build(lambda tree: tree.make_directories(top))
    token = probe.acquire(top)
    probe.send(token, built)
    refused(probe.gateway.commit(token, built.base, built.root, tag_name="trunk"), "commit")
    probe.commit(token, built, tag_name=name)
    tag(probe, name)


@each(
    "tags.delete",
    API13,
    {
        "one": ("delete_tags takes a tag away", 1),
        "two": ("delete_tags takes several tags away, named with spaces between them", 2),
    },
)
def delete(probe: Probe, count: int) -> None:
    names = [probe.name() for _ in range(count)]
    for name in names:
        commit(probe, tag_name=name)
    commit(probe, delete_tags=" ".join(names))
    left = set(probe.repository.tags()) & set(names)
    if left == set(names):
        raise NotApplicable("this gateway deletes no tags at commit")
    equal(left, set(), "tags left")


@case("tags.delete.unknown", "delete_tags with a name that is no tag does not make the commit fail", API13)
def delete_unknown(probe: Probe) -> None:
    commit(probe, delete_tags=probe.name())


@case("tags.threshold", "auto_tag_threshold takes away automatic tags that are older, and no others", API13)
def threshold(probe: Probe) -> None:
    before = set(probe.repository.tags())
    name = probe.name()
    commit(probe, tag_name="generic-now")
    commit(probe, tag_name=name)
    automatic = next(tag for tag in set(probe.repository.tags()) - before if tag.startswith("generic-"))
    commit(probe, auto_tag_threshold=int(time.time()) + 100)
    after = probe.repository.tags()
    if automatic in after:
        raise NotApplicable("this gateway deletes no automatic tags at commit")
    expect(name in after, "a tag that is not automatic is gone")
    expect(set(after) >= _UNDO, "the undo tags are gone")


@case("tags.threshold.zero", "an auto_tag_threshold of 0 takes no tags away", API13)
def threshold_zero(probe: Probe) -> None:
    before = set(probe.repository.tags())
    commit(probe, auto_tag_threshold=0)
    expect(before <= set(probe.repository.tags()), "tags are gone")


@each(
    "tags.database",
    FORMAT,
    {
        "fqrn": ("the tag database says whose it is", "fqrn"),
        "previous": ("the tag database names the one that it replaces", "previous_revision"),
        "schema": ("the tag database has schema 1.0", "schema"),
    },
)
def properties(probe: Probe, name: str) -> None:
    before = probe.repository.manifest().fields["H"]
    commit(probe)
    with database(probe.repository.plain(probe.repository.manifest().fields["H"], "H")) as db:
        found = dict(db.execute("SELECT key, value FROM properties").fetchall()).get(name)
    wanted = {"fqrn": probe.fqrn, "previous_revision": before, "schema": "1.0"}[name]
    equal(str(found), wanted, name)


@case("tags.unicode", "a description of letters of any script is kept as it is", API)
def unicode_description(probe: Probe) -> None:
    name, text = probe.name(), 'für alle: 夢, "quotes", back\\slash; and\nlines'
    commit(probe, tag_name=name, tag_description=text)
    equal(tag(probe, name)["description"], text, "description")
