"""Tags by hand, rollback, differences, signing again; the repository is whole after each of them."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cvmfs_gw.care.resign import resign_manifest, resign_whitelist
from cvmfs_gw.engine.changelist import list_changes
from cvmfs_gw.engine.errors import MissingObject, SigningError, TagError
from cvmfs_gw.engine.tags import (
    add_tag,
    choose_root,
    find_root,
    list_tags,
    move_tag,
    remove_tags,
    rollback,
    root_at,
)
from cvmfs_objstore.formats.history import Tag
from cvmfs_objstore.formats.keychain import Certificate, RepositoryKey
from cvmfs_objstore.hashes import ContentHash, Suffix
from tests.care.collecting import HOUR, Past, content_of
from tests.engine.repositories import FQRN, check_chain
from tests.engine.test_faults import KILLED, _die, at_call


@pytest.fixture
def past(tmp_path: Path, keys: str) -> Past:
    """Revisions 2 to 4, tagged two, three and four."""
    made = Past(str(tmp_path / "root"), keys)
    made.commit({"/n": b"/", "/n/x": b"x", "/f": b"2"}, "two", nest=("/n",))
    made.commit({"/f": b"3", "/g": b"new"}, "three")
    made.commit({"/f": b"4", "/n/x": None}, "four")
    made.now += HOUR
    return made


def names(past: Past) -> dict[str, int]:
    return {tag.name: tag.revision for tag in list_tags(past.repository())}


def test_add_move_remove(past: Past) -> None:
    repository = past.repository()
    head = repository.head()
    tag = add_tag(repository, "here", "the head", past.now)
    assert (tag.revision, tag.root_hash, tag.size) == (4, head.root_hash, head.root_size)
    add_tag(repository, "there", "", past.now, find_root(repository, "@2"))
    assert names(past) == {"two": 2, "three": 3, "four": 4, "here": 4, "there": 2, "trunk": 4, "trunk-previous": 3}
    moved = move_tag(repository, "here", past.now, find_root(repository, "three"))
    assert (moved.revision, moved.description) == (3, "the head")
    assert [tag.name for tag in remove_tags(repository, ["there", "two"], past.now)] == ["there", "two"]
    assert names(past) == {"three": 3, "four": 4, "here": 3, "trunk": 4, "trunk-previous": 3}
    after = repository.head()
    assert (after.root_hash, after.revision, after.published) == (head.root_hash, head.revision, head.published)
    past.check()


@pytest.mark.parametrize("name", ["", "trunk", "trunk-previous", "with space", "x" * 256, "nul\0"])
def test_bad_names(past: Past, name: str) -> None:
    repository = past.repository()
    with pytest.raises(TagError):
        add_tag(repository, name, "", past.now)


def test_what_cannot_be(past: Past) -> None:
    repository = past.repository()
    manifest = repository.storage.read(".cvmfspublished")
    with pytest.raises(TagError, match="already"):
        add_tag(repository, "two", "", past.now)
    with pytest.raises(TagError, match="no tag"):
        move_tag(repository, "none", past.now)
    with pytest.raises(TagError, match="no tag"):
        remove_tags(repository, ["two", "none"], past.now)
    with pytest.raises(TagError, match="undo"):
        remove_tags(repository, ["trunk"], past.now)
    with pytest.raises(MissingObject):
        add_tag(repository, "x", "", past.now, ContentHash.of(b"none", suffix=Suffix.CATALOG))
    with repository.catalogs.load(repository.head().root_hash) as root:
        nested = root.nested()["/n"].hash
    with pytest.raises(TagError, match="not a root catalog"):
        add_tag(repository, "x", "", past.now, nested)
    with pytest.raises(TagError, match="neither"):
        find_root(repository, "what")
    assert repository.storage.read(".cvmfspublished") == manifest
    past.check()


def test_rollback_to_a_tag(past: Past) -> None:
    repository = past.repository()
    old = repository.head()
    done = rollback(repository, "two", past.now)
    assert done.head.revision == 5
    assert {tag.name for tag in done.removed} == {"three", "four"}
    assert names(past) == {"two": 5, "trunk": 5}
    assert content_of(past.repository(), "/f") == b"2"
    assert content_of(past.repository(), "/n/x") == b"x"
    with repository.catalogs.load(done.head.root_hash) as root:
        assert (root.revision, root.previous_revision) == (5, old.root_hash)
    past.check()
    with pytest.raises(TagError, match="only one undo"):
        rollback(repository, "", past.now)
    past.commit({"/f": b"6"})
    assert names(past) == {"two": 5, "trunk": 6, "trunk-previous": 5}


def test_undo(past: Past) -> None:
    done = rollback(past.repository(), "", past.now)
    assert (done.head.revision, done.target.revision) == (5, 3)
    assert names(past) == {"two": 2, "three": 3, "trunk": 5}
    assert content_of(past.repository(), "/f") == b"3"
    past.check()


def test_no_way_back(past: Past) -> None:
    with pytest.raises(TagError, match="head already"):
        rollback(past.repository(), "four", past.now)
    with pytest.raises(TagError, match="no tag"):
        rollback(past.repository(), "none", past.now)


@pytest.mark.parametrize("change", ["rollback", "tag"])
def test_killed_at_every_call(past: Past, tmp_path_factory: pytest.TempPathFactory, keys: str, change: str) -> None:
    """At every moment the repository is at the old or the new state, and the change can be asked again."""

    def act(past: Past) -> None:
        if change == "rollback":
            rollback(past.repository(), "two", past.now)
        else:
            add_tag(past.repository(), "new", "", past.now)

    def world() -> Past:
        made = Past(str(tmp_path_factory.mktemp("tags")), keys)
        made.commit({"/f": b"2"}, "two")
        made.commit({"/f": b"3"}, "three")
        return made

    whole = world()
    with at_call(-1, _die) as calls:
        act(whole)
    wanted = names(whole)
    for number in range(len(calls)):
        past = world()
        before = names(past)
        child = os.fork()
        if not child:
            try:
                with at_call(number, _die):
                    act(past)
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED, calls[number]
        assert names(past) in (before, wanted)
        past.engine.recover(FQRN)
        past.check()
        if names(past) == before:
            act(past)
        assert names(past) == wanted
        past.check()


def test_differences(past: Past) -> None:
    repository = past.repository()
    two, three, four = (find_root(repository, name) for name in ("two", "three", "four"))
    assert [str(change) for change in list_changes(repository.catalogs, two, two)] == []
    found = [str(change) for change in list_changes(repository.catalogs, two, three)]
    assert found == ["M /f (content)", "A /g"]
    assert [str(change) for change in list_changes(repository.catalogs, three, four)] == ["M /f (content)", "R /n/x"]
    assert [str(change) for change in list_changes(repository.catalogs, four, two)] == [
        "M /f (content)", "R /g", "A /n/x",
    ]  # fmt: skip


def test_whitelist(past: Past) -> None:
    repository = past.repository()
    later = past.now + 60 * 86_400
    whitelist = resign_whitelist(repository, later, validity=timedelta(days=7))
    assert whitelist.expires == datetime.fromtimestamp(int(later), UTC) + timedelta(days=7)
    check_chain(repository, later)


def test_key_roll_over(past: Past) -> None:
    """New keys: list both, sign with the new one, then list the new one alone. Clients can verify at every step."""
    repository = past.repository()
    keys = {kind: repository.paths.key_file(FQRN, kind) for kind in ("key", "crt")}
    for path in keys.values():
        os.unlink(path)
    key = RepositoryKey.generate()
    key.write(keys["key"])
    with open(keys["crt"], "wb") as file:
        file.write(Certificate.self_signed(key, FQRN, datetime.fromtimestamp(past.now, UTC)).pem)
    with pytest.raises(SigningError, match="not on the whitelist"):
        resign_manifest(repository, past.now)
    check_chain(repository, past.now)
    assert len(resign_whitelist(repository, past.now).fingerprints) == 2
    check_chain(repository, past.now)
    old = repository.head()
    new = resign_manifest(repository, past.now)
    assert new.certificate != old.certificate
    assert (new.root_hash, new.revision) == (old.root_hash, old.revision)
    check_chain(repository, past.now)
    assert len(resign_whitelist(repository, past.now, keep_others=False).fingerprints) == 1
    check_chain(repository, past.now)
    past.check()
    os.unlink(repository.paths.key_file(FQRN, "masterkey"))
    with pytest.raises(SigningError):
        resign_whitelist(repository, past.now)


def test_number_and_time_mean_the_default_branch() -> None:
    """Revisions of branches have numbers that later ones of the default branch have as well."""

    def tag(name: str, revision: int, branch: str = "") -> Tag:
        root = ContentHash.of(name.encode(), suffix=Suffix.CATALOG)
        return Tag(name, root, revision, 1000 * revision, branch=branch)

    tags = [tag("fix", 4, "b"), tag("four", 4), tag("fixed-again", 5, "b"), tag("three", 3)]
    assert choose_root(tags, "@4") == tags[1].root_hash
    assert choose_root(tags, "@5") == tags[2].root_hash
    assert choose_root(tags, "fix") == tags[0].root_hash
    assert root_at(tags, 9999) == tags[1].root_hash


def test_old_automatic_tags_go_by_themselves(past: Past) -> None:
    settings = Path(past.paths.server_conf(FQRN))
    past.commit({"/f": b"5"}, "generic-")
    old = {name for name in names(past) if name.startswith("generic-")}
    past.now += 30 * 24 * HOUR
    past.commit({"/f": b"6"}, "generic-")
    assert old < names(past).keys(), "nothing is said"
    settings.write_text(settings.read_text() + "CVMFS_AUTO_TAG_TIMESPAN='some day'\n")
    past.commit({"/f": b"7"}, "generic-")
    assert old < names(past).keys(), "what makes no sense removes nothing"
    settings.write_text(settings.read_text() + "CVMFS_AUTO_TAG_TIMESPAN='4 weeks ago'\n")
    past.commit({"/f": b"8"}, "generic-")
    assert not old & names(past).keys()
    assert {"two", "three", "four", "trunk", "trunk-previous"} < names(past).keys()
    past.check()
