"""Publishing a root catalog: tags, reflog, keys, and nothing written where something is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_gw.engine.errors import ConfigurationError, EngineError, MissingReflog, SigningError, TagError
from cvmfs_gw.engine.publish import Publication, TagChanges, generic_tag_name
from cvmfs_gw.engine.repository import MANIFEST_PATH, Repository
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.formats.entry import Kind
from cvmfs_objstore.formats.history import History, Tag
from cvmfs_objstore.formats.keychain import RepositoryKey
from cvmfs_objstore.formats.manifest import Manifest
from cvmfs_objstore.formats.reflog import REFLOG_PATH
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from tests.engine.repositories import FQRN, check_chain, check_repository, everything, new_repository, puts, refs, tags
from tests.engine.trees import NOW, Item


@pytest.fixture
def repository(tmp_path: Path, keys: str) -> Repository:
    return new_repository(str(tmp_path), keys)


def publish(
    repository: Repository, changes: TagChanges | None = None, now: float = NOW + 10, source: ContentHash | None = None
) -> Manifest:
    """Publish an empty change."""
    head = repository.head()
    with closing(Publication(repository, head, changes or TagChanges(), now, source)) as publication:
        with closing(CatalogTree(repository.catalogs, head.root_hash)) as tree:
            tree.put_root(puts({"": Item(Kind.DIRECTORY, 1)})[0].entry)
            ref, _ = tree.store(int(now), head.root_hash.algorithm)
            revision = tree.root.catalog.revision
        return publication.publish(ref, revision, None)


def refused(repository: Repository, error: type[EngineError], changes: TagChanges | None = None) -> str:
    """Publish, and be refused before anything is written; returns what is said."""
    before = everything(repository)
    with pytest.raises(error) as info:
        Publication(repository, repository.head(), changes or TagChanges(), NOW + 10)
    assert everything(repository) == before
    return str(info.value)


# -- what comes out


@pytest.mark.parametrize("algorithm", Algorithm)
def test_publish(tmp_path: Path, keys: str, algorithm: Algorithm) -> None:
    repository = new_repository(str(tmp_path), keys, algorithm)
    old = check_chain(repository)
    old_refs = refs(repository)
    (tmp_path / "var/spool/cvmfs" / FQRN / "client.local").write_text("CVMFS_ROOT_HASH=abc\n")
    head = publish(repository, TagChanges("v1", "first", 4))
    check_repository(repository)
    assert head == repository.head()
    assert (head.revision, head.published) == (2, NOW + 10)
    assert head.root_hash.algorithm is algorithm
    assert head.certificate == old.certificate
    assert head.meta_info == old.meta_info
    assert refs(repository) == old_refs | {head.root_hash, head.history}
    found = tags(repository)
    assert found["v1"] == Tag("v1", head.root_hash, 2, NOW + 10, "first", head.root_size, 4)
    assert found["trunk"] == Tag("trunk", head.root_hash, 2, NOW + 10, "current HEAD", head.root_size, 4)
    previous = found["trunk-previous"]
    assert (previous.root_hash, previous.revision, previous.description) == (old.root_hash, 1, "default undo target")
    assert head.history is not None
    assert old.history is not None
    with History.load(repository.objects.get_plain(head.history)) as history:
        assert history.property("previous_revision") == old.history.bare
        assert history.property("fqrn") == FQRN
    assert (tmp_path / "var/spool/cvmfs" / FQRN / "client.local").read_bytes() == b""


def test_undo_tags_follow(repository: Repository) -> None:
    heads = [publish(repository, now=NOW + number) for number in range(1, 4)]
    found = tags(repository)
    assert found["trunk"].root_hash == heads[2].root_hash
    assert found["trunk-previous"].root_hash == heads[1].root_hash
    assert len(found) == 3
    check_repository(repository)


def test_time_never_goes_back(repository: Repository) -> None:
    """Clients refuse a manifest that is older than theirs, whatever the clock of this machine says."""
    assert publish(repository, now=NOW + 100).published == NOW + 100
    assert publish(repository, now=NOW - 10_000).published == NOW + 100
    assert publish(repository, now=NOW + 50.9).published == NOW + 100
    assert publish(repository, now=NOW + 101.9).published == NOW + 101
    assert repository.head().revision == 5
    check_repository(repository)


def test_source_is_known_to_collectors(repository: Repository) -> None:
    source = repository.objects.add(b"source", Algorithm.SHA1, Suffix.CATALOG, deflate=lambda data: data)
    publish(repository, source=source)
    assert source in refs(repository)


def test_head_without_tag_database(repository: Repository) -> None:
    """As old repositories are: one is made."""
    key = RepositoryKey.load(repository.paths.key_file(FQRN, "key"))
    head = repository.head()
    without = Manifest(
        head.root_hash,
        head.root_size,
        head.ttl,
        head.revision,
        FQRN,
        certificate=head.certificate,
        published=head.published,
    )
    repository.storage.write(MANIFEST_PATH, without.signed(key))
    head = publish(repository, TagChanges("v1"))
    assert set(tags(repository)) == {"trunk", "v1"}
    assert head.meta_info is None
    assert head.reflog_hash is not None
    check_chain(repository)


def test_settings_are_read_each_time(repository: Repository) -> None:
    path = repository.paths.server_conf(FQRN)
    text = Path(path).read_text()
    assert not publish(repository).garbage_collectable
    Path(path).write_text(text + "CVMFS_GARBAGE_COLLECTION=true\n")
    assert publish(repository).garbage_collectable


# -- tags


@pytest.mark.parametrize(
    ("moment", "name"),
    [
        (1795164550.782, "generic-2026-11-20T08:49:10.782Z"),
        (1795164550, "generic-2026-11-20T08:49:10.000Z"),
        (0.001, "generic-1970-01-01T00:00:00.001Z"),
    ],
)
def test_generic_names(moment: float, name: str) -> None:
    assert generic_tag_name(moment) == name


def test_generic_tags(repository: Repository) -> None:
    """Named at the time of publication, whatever the publisher called it; two at once get two names."""
    now = NOW + 10.25
    for _ in range(3):
        publish(repository, TagChanges("generic-2001-01-01T00:00:00.000Z", "mine"), now)
    names = {tag.name for tag in tags(repository).values() if tag.timestamp == NOW + 10} - {"trunk", "trunk-previous"}
    assert names == {generic_tag_name(now + thousandth / 1000) for thousandth in range(3)}
    assert {tags(repository)[name].description for name in names} == {"mine"}
    assert {tags(repository)[name].revision for name in names} == {2, 3, 4}


@pytest.mark.parametrize(
    "name",
    [
        "trunk",
        "trunk-previous",
        "a b",
        " ",
        "a\tb",
        "a\n",
        "\0",
        "a\x7f",
        "x" * 256,
        "\u3000",
        "a\u2028b",
        "\udc80\ud800",
    ],
)
def test_names_that_are_none(repository: Repository, name: str) -> None:
    refused(repository, TagError, TagChanges(name))


@pytest.mark.parametrize(
    "name", ["v1", "release/2", "ünï", "a'b\"c;--", "%_", "generic", "Trunk", "x" * 255, "b\udcff"]
)
def test_names(repository: Repository, name: str) -> None:
    publish(repository, TagChanges(name, name))
    assert tags(repository)[name].description == name
    assert "already" in refused(repository, TagError, TagChanges(name))
    publish(repository, TagChanges(delete=(name,)))
    assert name not in tags(repository)


def test_name_that_is_taken(repository: Repository) -> None:
    publish(repository, TagChanges("v1"))
    assert "'v1'" in refused(repository, TagError, TagChanges("v1"))
    # The same commit may take it away first.
    head = publish(repository, TagChanges("v1", "again", delete=("v1",)))
    assert tags(repository)["v1"].root_hash == head.root_hash


@pytest.mark.parametrize(
    "changes",
    [
        TagChanges("v", "x" * 70_000),
        TagChanges("v", "\ud800"),
        TagChanges(delete=("\udfff",)),
        TagChanges("v", channel=-1),
        TagChanges("v", channel=1 << 31),
        TagChanges("v", auto_threshold=1 << 63),
        TagChanges(delete=("trunk",)),
        TagChanges(delete=("v", "trunk-previous")),
    ],
    ids=ascii,
)
def test_tag_changes_that_are_refused(repository: Repository, changes: TagChanges) -> None:
    refused(repository, TagError, changes)


def test_old_automatic_tags_go(repository: Repository) -> None:
    """Those before the threshold, and only automatic ones."""
    first = next(name for name in tags(repository) if name.startswith("generic-"))
    publish(repository, TagChanges("generic-"), NOW + 10)
    publish(repository, TagChanges("v1"), NOW + 11)
    publish(repository, TagChanges("generic-", auto_threshold=NOW + 10), NOW + 20)
    names = set(tags(repository))
    assert first not in names
    assert names == {"trunk", "trunk-previous", generic_tag_name(NOW + 10), "v1", generic_tag_name(NOW + 20)}
    publish(repository, TagChanges(auto_threshold=NOW + 1000), NOW + 30)
    assert set(tags(repository)) == {"trunk", "trunk-previous", "v1"}


def test_deleted_tags(repository: Repository) -> None:
    for name in ("a", "b", "c"):
        publish(repository, TagChanges(name))
    publish(repository, TagChanges("d", delete=("a", "c", "never-there")))
    assert set(tags(repository)) & {"a", "b", "c", "d"} == {"b", "d"}


# -- what is missing


def gone(path: Callable[[Repository], str]) -> Callable[[Repository], tuple[str, bytes]]:
    """Remove a file; returns it with its content."""

    def remove(repository: Repository) -> tuple[str, bytes]:
        name = path(repository)
        content = Path(name).read_bytes()
        os.unlink(name)
        return name, content

    return remove


def other(path: Callable[[Repository], str], content: bytes) -> Callable[[Repository], tuple[str, bytes]]:
    """Give a file another content; returns it with the old one."""

    def change(repository: Repository) -> tuple[str, bytes]:
        name, before = gone(path)(repository)
        Path(name).write_bytes(content)
        return name, before

    return change


def checksum(repository: Repository) -> str:
    return os.path.join(repository.paths.repository_spool(FQRN), "reflog.chksum")


def reflog(repository: Repository) -> str:
    return os.path.join(repository.paths.repository_storage(FQRN), REFLOG_PATH)


def key(repository: Repository) -> str:
    return repository.paths.key_file(FQRN, "key")


def certificate(repository: Repository) -> str:
    return repository.paths.key_file(FQRN, "crt")


def settings(repository: Repository) -> str:
    return repository.paths.server_conf(FQRN)


BROKEN: dict[str, tuple[type[EngineError], Callable[[Repository], tuple[str, bytes]]]] = {
    "no checksum": (MissingReflog, gone(checksum)),
    "empty checksum": (MissingReflog, other(checksum, b"")),
    "checksum of something": (MissingReflog, other(checksum, b"not a hash\n")),
    "checksum in no text": (MissingReflog, other(checksum, b"\xff" * 40)),
    "no reflog": (MissingReflog, gone(reflog)),
    "another reflog": (MissingReflog, other(reflog, b"SQLite format 3\x00" + bytes(5000))),
    "empty reflog": (MissingReflog, other(reflog, b"")),
    "no key": (SigningError, gone(key)),
    "no certificate": (SigningError, gone(certificate)),
    "key of another": (SigningError, other(key, RepositoryKey.generate().pem)),
    "nonsense for a key": (SigningError, other(key, b"nonsense")),
}


@pytest.mark.parametrize("case", BROKEN)
def test_missing(repository: Repository, case: str) -> None:
    """A clear error and nothing written; with the file back the next publish works."""
    error, damage = BROKEN[case]
    path, content = damage(repository)
    refused(repository, error)
    if os.path.exists(path):
        os.chmod(path, 0o600)
    Path(path).write_bytes(content)
    publish(repository)
    check_repository(repository)


def test_checksum_that_is_behind(repository: Repository) -> None:
    """Killed between reflog and checksum, or the other way round: the manifest's own hash counts as well."""
    Path(checksum(repository)).write_text("12" * 20)
    publish(repository)
    check_repository(repository)


def test_no_manifest(repository: Repository) -> None:
    gone(lambda found: os.path.join(found.paths.repository_storage(FQRN), MANIFEST_PATH))(repository)
    with pytest.raises(ConfigurationError, match="no manifest"):
        repository.head()


def test_lost_tag_database(repository: Repository) -> None:
    head = repository.head()
    assert head.history is not None
    repository.objects.delete(head.history)
    assert str(head.history) in refused(repository, ConfigurationError)


@pytest.mark.parametrize(
    "text",
    ["", "CVMFS_UPSTREAM_STORAGE=S3,/tmp,x@/etc/s3.conf\n", "CVMFS_UPSTREAM_STORAGE=nonsense\n"],
)
def test_settings_that_make_no_sense(repository: Repository, text: str) -> None:
    Path(settings(repository)).write_text(text)
    with pytest.raises(ConfigurationError):
        Repository(FQRN, repository.paths, {})


def test_no_settings(repository: Repository) -> None:
    gone(settings)(repository)
    with pytest.raises(ConfigurationError):
        Repository(FQRN, repository.paths, {})
    with pytest.raises(ConfigurationError):
        repository.configuration()


def test_what_cannot_be_emptied_does_not_fail_what_is_published(repository: Repository) -> None:
    """The mark for a mount on this machine may be another user's."""
    path = os.path.join(repository.paths.repository_spool(FQRN), "client.local")
    os.unlink(path)
    os.mkdir(path)
    assert publish(repository, TagChanges("v1")).revision == repository.head().revision
