"""Making a repository: what clients, replicas, publishers and the gateway need of it."""

from __future__ import annotations

import json
import os
import pwd
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cvmfs_gw.engine.configure import RepositoryOptions
from cvmfs_gw.engine.create import create_repository, write_whitelist
from cvmfs_gw.engine.errors import ConfigurationError, SigningError
from cvmfs_gw.engine.repository import MANIFEST_PATH, replace_file
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.compression import deflate
from cvmfs_objstore.formats.chain import verify_chain
from cvmfs_objstore.formats.entry import FLAG_DIRECTORY, Counters
from cvmfs_objstore.formats.keychain import Certificate, MasterKey, PublicKey
from cvmfs_objstore.formats.manifest import SignedManifest
from cvmfs_objstore.formats.whitelist import SignedWhitelist
from cvmfs_objstore.hashes import Algorithm, Suffix
from cvmfs_objstore.local import LocalStorage
from tests.engine.repositories import FQRN, STRATUM0, check_chain, files, new_repository, refs, tags
from tests.engine.trees import NOW
from tests.objstore import reference


@pytest.mark.parametrize("algorithm", Algorithm)
def test_new_repository(tmp_path: Path, keys: str, algorithm: Algorithm) -> None:
    repository = new_repository(str(tmp_path), keys, algorithm)
    head = check_chain(repository)
    assert head.fqrn == FQRN
    assert head.revision == 1
    assert head.published == NOW
    assert head.ttl == 240
    assert head.root_hash.algorithm is algorithm
    assert not head.garbage_collectable
    assert {name.algorithm for name in repository.objects.list()} == {algorithm}
    for name in repository.objects.list():
        repository.objects.verify(name)

    with repository.catalogs.load(head.root_hash) as catalog:
        root = catalog.get("")
        assert root is not None
        assert (root.flags, root.hardlinks, root.mode, root.uid) == (FLAG_DIRECTORY, 2, 0o40755, os.getuid())
        assert catalog.counters() == (Counters(dir=1), Counters())
        assert list(catalog.walk("")) == []
        properties = catalog.properties()
    assert properties == {
        "schema": "2.5",
        "schema_revision": "7",
        "revision": "1",
        "TTL": "240",
        "last_modified": str(NOW),
    }

    found = tags(repository)
    generic = datetime.fromtimestamp(NOW, UTC).strftime("generic-%Y-%m-%dT%H:%M:%S.000Z")
    assert set(found) == {"trunk", generic}
    assert all(tag.root_hash == head.root_hash and tag.revision == 1 for tag in found.values())
    assert refs(repository) == {head.root_hash, head.certificate, head.history, head.meta_info}
    assert {name.suffix for name in repository.objects.list()} == {
        Suffix.CATALOG,
        Suffix.HISTORY,
        Suffix.CERTIFICATE,
        Suffix.METAINFO,
    }


def test_manifest_is_like_that_of_the_reference(tmp_path: Path, keys: str) -> None:
    """The same lines in the same order."""

    def letters(raw: bytes) -> str:
        return "".join(line[:1].decode() for line in raw.partition(b"--\n")[0].splitlines())

    repository = new_repository(str(tmp_path), keys)
    assert letters(repository.storage.read(MANIFEST_PATH)) == letters(reference.MANIFEST)
    mine, theirs = (
        SignedManifest.parse(raw).manifest for raw in (repository.storage.read(MANIFEST_PATH), reference.MANIFEST)
    )
    assert mine.root_path_md5 == theirs.root_path_md5
    assert mine.has_alt_catalog_path == theirs.has_alt_catalog_path


def test_objects_that_replicas_pack_again(tmp_path: Path, keys: str) -> None:
    """Certificate and meta info have the name that stock zlib gives them."""
    repository = new_repository(str(tmp_path), keys)
    head = repository.head()
    for name in (head.certificate, head.meta_info):
        assert name is not None
        assert deflate(repository.objects.get_plain(name)) == repository.objects.get(name)
    assert head.meta_info is not None
    assert isinstance(json.loads(repository.objects.get_plain(head.meta_info)), dict)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_files(tmp_path: Path, keys: str, algorithm: Algorithm) -> None:
    repository = new_repository(
        str(tmp_path), keys, algorithm, garbage_collection=True, auto_tag_timespan="4 weeks ago"
    )
    paths = repository.paths
    assert repository.head().garbage_collectable
    configuration = repository.configuration()
    assert configuration.hash_algorithm is algorithm
    assert configuration.stratum0 == STRATUM0
    assert configuration.garbage_collection
    assert configuration.auto_tag
    assert configuration.auto_tag_timespan == "4 weeks ago"
    assert configuration.ttl == 240
    upstream = configuration.upstream()
    assert upstream.is_local
    assert upstream.location == paths.repository_storage(FQRN)
    assert upstream.temp_dir == os.path.join(upstream.location, "data", "txn")
    spool = paths.repository_spool(FQRN)
    assert configuration.get("CVMFS_SPOOL_DIR") == spool
    with open(os.path.join(spool, "client.local"), "rb") as file:
        assert file.read() == b""
    assert os.path.isdir(os.path.join(spool, "tmp"))
    assert repository.storage.exists(".cvmfs_master_replica")
    with open(os.path.join(paths.storage, "info/v1/repositories.json"), "rb") as file:
        listed = json.load(file)
    assert listed["repositories"] == [{"name": FQRN, "url": f"/cvmfs/{FQRN}"}]
    assert os.path.exists(os.path.join(paths.storage, "info/v1/meta.json"))


def test_key_files(tmp_path: Path, keys: str) -> None:
    paths = new_repository(str(tmp_path), keys).paths
    modes = {kind: stat.S_IMODE(os.stat(paths.key_file(FQRN, kind)).st_mode) for kind in ("masterkey", "key", "gw")}
    assert all(mode & 0o077 == 0 for mode in modes.values()), modes
    for kind in ("pub", "crt"):
        assert os.stat(paths.key_file(FQRN, kind)).st_mode & 0o444 == 0o444
    words = Path(paths.key_file(FQRN, "gw")).read_text().split()
    assert words[0] == "plain_text"
    assert len(words) == 3
    master = MasterKey.load(paths.key_file(FQRN, "masterkey"))
    assert (master.public,) == tuple(PublicKey.load_all(paths.key_file(FQRN, "pub")))


def test_whitelist(tmp_path: Path, keys: str) -> None:
    repository = new_repository(str(tmp_path), keys)
    whitelist = SignedWhitelist.parse(repository.storage.read(".cvmfswhitelist")).whitelist
    assert whitelist.fqrn == FQRN
    assert whitelist.lists(Certificate.load(repository.paths.key_file(FQRN, "crt")))
    later = NOW + 60 * 86400
    write_whitelist(repository, later)
    check_chain(repository, later + 86400)


def test_options(tmp_path: Path, keys: str) -> None:
    repository = new_repository(
        str(tmp_path), keys, volatile=True, auto_tag=False, ttl=60, replicable=False, owner="root", compression="none"
    )
    head = check_chain(repository)
    assert head.ttl == 60
    assert set(tags(repository)) == {"trunk"}
    assert not repository.storage.exists(".cvmfs_master_replica")
    with repository.catalogs.load(head.root_hash) as catalog:
        assert catalog.property("volatile") == "1"
        assert catalog.property("TTL") == "60"
        root = catalog.get("")
        assert root is not None
        assert (root.uid, root.gid) == (0, 0)
    configuration = repository.configuration()
    assert configuration.volatile
    assert not configuration.auto_tag
    assert configuration.get("CVMFS_USER") == "root"
    assert configuration.compression_algorithm == "none"


def test_not_twice(tmp_path: Path, keys: str) -> None:
    new_repository(str(tmp_path), keys)
    before = files(str(tmp_path))
    with pytest.raises(ConfigurationError, match="exists already"):
        new_repository(str(tmp_path), keys)
    assert files(str(tmp_path)) == before


@pytest.mark.parametrize("failing", [MANIFEST_PATH, ".cvmfsreflog", ".cvmfswhitelist", ".cvmfs_master_replica"])
def test_interrupted_and_started_again(tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk was full in the middle, another run completes what is there, with the same keys."""
    write = LocalStorage.write

    def full(storage: LocalStorage, path: str, data: bytes) -> None:
        if path == failing:
            raise OSError(28, "No space left on device")
        write(storage, path, data)

    paths = SystemPaths(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "write", full)
        with pytest.raises(OSError, match="No space"):
            create_repository(FQRN, paths, {}, RepositoryOptions(STRATUM0), NOW)
    made = files(paths.keys)
    assert len(made) == 5
    check_chain(create_repository(FQRN, paths, {}, RepositoryOptions(STRATUM0), NOW + 10))
    assert files(paths.keys) == made


def test_keys_that_are_there_in_part(tmp_path: Path) -> None:
    """Killed between private key and certificate: the next run makes a pair that fits."""
    paths = SystemPaths(str(tmp_path))
    create_repository(FQRN, paths, {}, RepositoryOptions(STRATUM0), NOW)
    os.unlink(os.path.join(paths.repository_storage(FQRN), MANIFEST_PATH))
    os.unlink(paths.key_file(FQRN, "crt"))
    check_chain(create_repository(FQRN, paths, {}, RepositoryOptions(STRATUM0), NOW))


def test_imported_keys(tmp_path: Path, keys: str) -> None:
    paths = new_repository(str(tmp_path), keys).paths
    given, imported = (
        {os.path.basename(path): content for path, content in files(folder).items()} for folder in (keys, paths.keys)
    )
    assert given == imported


def test_certificate_without_its_key(tmp_path: Path, keys: str) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    for kind in ("masterkey", "crt"):
        (folder / f"{FQRN}.{kind}").write_bytes(Path(keys, f"{FQRN}.{kind}").read_bytes())
    with pytest.raises(SigningError, match=f"{FQRN}.key"):
        new_repository(str(tmp_path / "root"), str(folder))


@pytest.mark.parametrize("kinds", [(), ("pub",), ("pub", "crt", "key", "gw")])
def test_keys_that_cannot_be_imported(tmp_path: Path, keys: str, kinds: tuple[str, ...]) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    for kind in kinds:
        (folder / f"{FQRN}.{kind}").write_bytes(Path(keys, f"{FQRN}.{kind}").read_bytes())
    with pytest.raises(ConfigurationError):
        new_repository(str(tmp_path / "root"), str(folder))
    assert not os.path.exists(tmp_path / "root/srv/cvmfs" / FQRN / MANIFEST_PATH)


def test_only_the_master_key_is_given(tmp_path: Path, keys: str) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / f"{FQRN}.masterkey").write_bytes(Path(keys, f"{FQRN}.masterkey").read_bytes())
    repository = new_repository(str(tmp_path / "root"), str(folder))
    check_chain(repository)
    assert repository.storage.exists(MANIFEST_PATH)
    keys_of_master = PublicKey.load_all(os.path.join(keys, f"{FQRN}.pub"))
    head = repository.head()
    assert head.certificate is not None
    certificate = repository.objects.get_plain(head.certificate)
    raw = repository.storage.read(MANIFEST_PATH)
    moment = datetime.fromtimestamp(NOW, UTC) + timedelta(days=1)
    assert (
        verify_chain(repository.storage.read(".cvmfswhitelist"), certificate, raw, keys_of_master, moment, FQRN) == head
    )


def test_unknown_owner(tmp_path: Path, keys: str) -> None:
    with pytest.raises(ConfigurationError, match="no such user"):
        new_repository(str(tmp_path), keys, owner="nobody-of-that-name")
    assert files(str(tmp_path)) == {}


def test_no_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a fully qualified"):
        create_repository("../a.b", SystemPaths(str(tmp_path)), {}, RepositoryOptions(STRATUM0), NOW)
    assert os.listdir(tmp_path) == []


def test_a_user_that_nobody_has_listed(tmp_path: Path, keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlisted(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unlisted)
    assert new_repository(str(tmp_path), keys).configuration().get("CVMFS_USER") == str(os.getuid())


def test_the_owner_gets_what_a_server_needs(tmp_path: Path, keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, tuple[int, int]] = {}

    def chown(path: str, uid: int, gid: int, **options: object) -> None:
        given[os.path.relpath(path, tmp_path)] = uid, gid

    user = pwd.getpwnam("nobody")
    with monkeypatch.context() as patch:
        patch.setattr(os, "chown", chown)
        patch.setattr(os, "geteuid", lambda: 1000)
        new_repository(str(tmp_path / "mine"), keys, owner="nobody")
        assert not given
        patch.setattr(os, "geteuid", lambda: 0)
        new_repository(str(tmp_path / "roots"), keys, owner="nobody")
    assert set(given.values()) == {(user.pw_uid, user.pw_gid)}
    made = [
        os.path.relpath(os.path.join(place, name), tmp_path)
        for place, folders, names in os.walk(tmp_path / "roots")
        for name in folders + names
    ]
    wanted = {path for path in made if f"/{FQRN}" in path and "/repositories.d/" not in path}
    assert given.keys() == wanted
    assert any(path.endswith("data/txn") for path in wanted)


def test_a_file_that_is_replaced_stays_whose_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owners: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda descriptor, uid, gid: owners.append((uid, gid)))
    path, like = tmp_path / "file", tmp_path / "like"

    def mode() -> int:
        return stat.S_IMODE(path.stat().st_mode)

    replace_file(str(path), b"1", 0o600)
    assert (mode(), owners) == (0o600, [])
    path.chmod(0o640)
    replace_file(str(path), b"2", 0o600)
    assert (path.read_bytes(), mode(), owners) == (b"2", 0o640, [(path.stat().st_uid, path.stat().st_gid)])
    path.unlink()
    like.write_bytes(b"")
    like.chmod(0o444)
    replace_file(str(path), b"3", 0o600, str(like))
    assert (mode(), len(owners)) == (0o644, 2)
