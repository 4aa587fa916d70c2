"""The publishing client against a gateway and a web server of ours."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cvmfs_gw.client import gateway, session
from cvmfs_gw.client.errors import ClientError, GatewayRefused, GatewayUnreachable, PathBusy, UntrustedRepository
from cvmfs_gw.client.publish import preview, publish
from cvmfs_gw.client.request import Action, Progress, Step
from cvmfs_gw.engine.create import write_whitelist
from cvmfs_gw.gateway.authorization import Key
from cvmfs_gw.ingest.directory import DirectorySource
from cvmfs_objstore.chunksizes import ChunkSizes
from cvmfs_objstore.compression import Compression
from cvmfs_objstore.formats.keychain import RepositoryKey
from cvmfs_objstore.hashes import Algorithm, Suffix
from tests.client.support import Server, fill
from tests.engine.repositories import FQRN, check_chain, refs, tags

FILES = {"hello": b"hello", "bin/tool": b"#!/bin/sh\n", "lib/a/data": b"data" * 500, "empty": b""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = fill(tmp_path / "source", FILES)
    (folder / "bin/tool").chmod(0o755)
    (folder / "link").symlink_to("bin/tool")
    (folder / "none").mkdir()
    return folder


def shown(folder: Path, target: str = "/t") -> dict[str, bytes | None]:
    """What a client must see below *target*'s parent once *folder* is published there."""
    found: dict[str, bytes | None] = {}
    parts = target.split("/")
    for number in range(2, len(parts) + 1):
        found["/".join(parts[:number])] = None
    for place, directories, names in os.walk(folder):
        for name in directories + names:
            path = Path(place, name)
            key = f"{target}/{path.relative_to(folder)}"
            if path.is_symlink():
                found[key] = os.fsencode(os.readlink(path))
            else:
                found[key] = path.read_bytes() if path.is_file() else None
    return found


def test_dirtab(tmp_path: Path, server: Server, folder: Path) -> None:
    """The repository's, and the one that comes with what is published, also in a dry run."""
    rules = fill(tmp_path / "rules", {".cvmfsdirtab": b"/t/*\n! */bin\n"})
    publish(server.steps(Step("", DirectorySource(str(rules)), Action.ADD)))
    marked = {"/t/lib/.cvmfscatalog", "/t/none/.cvmfscatalog"}
    assert marked <= {change.path for change in preview(server.request(folder))}
    assert server.publish(folder).changed
    assert {path for path in server.read() if path.endswith(".cvmfscatalog")} == marked
    assert not server.publish(folder).changed
    fill(folder, {".cvmfsdirtab": b"/lib/a\n"})
    request = server.steps(Step("", DirectorySource(str(folder)), Action.ADD))
    assert "/lib/a/.cvmfscatalog" in {change.path for change in preview(request)}
    assert publish(request).changed
    assert "/lib/a/.cvmfscatalog" in server.read()
    check_chain(server.repository, time.time())


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("compression", Compression)
def test_every_algorithm(
    tmp_path: Path, keys: str, folder: Path, algorithm: Algorithm, compression: Compression
) -> None:
    with Server(str(tmp_path / "root"), keys, algorithm) as server:
        report = server.publish(folder, compression=compression)
        assert report.revision == 2
        assert server.read() == shown(folder)
        head = check_chain(server.repository, time.time())
        assert head.root_hash.algorithm is algorithm
        for name in server.repository.objects.list():
            assert name.algorithm is algorithm
            server.repository.objects.verify(name)


def test_report(server: Server, folder: Path) -> None:
    """Objects and bytes that went over: four files and a root catalog; the second time nothing, or a tag's catalog."""
    report = server.publish(folder)
    stored = {name: server.repository.objects.size(name) for name in server.repository.objects.list()}
    files = [name for name in stored if name.suffix is Suffix.NONE]
    assert len(files) == 4
    assert report.objects == 5
    assert report.sent > sum(stored[name] for name in files)
    again = server.publish(folder)
    assert (again.revision, again.objects, again.changed, again.files, again.unchanged) == (2, 0, False, 0, 4)
    tagged = server.publish(folder, tag="same")
    assert (tagged.revision, tagged.objects, tagged.changed, tagged.tag) == (3, 1, True, "same")


def test_progress(server: Server, folder: Path) -> None:
    class Noted(Progress):
        def __init__(self) -> None:
            self.stored_bytes = self.objects = 0

        def stored(self, path: str, size: int) -> None:
            assert path.startswith("/t/")
            self.stored_bytes += size

        def sent(self, objects: int, size: int) -> None:
            self.objects += objects

    progress = Noted()
    report = publish(server.request(folder), progress)
    assert progress.stored_bytes == sum(map(len, FILES.values()))
    assert progress.objects == report.objects


def test_replace_a_subtree(server: Server, folder: Path, tmp_path: Path) -> None:
    """New, changed, removed and retyped names; what lies beside stays."""
    other = fill(tmp_path / "other", {"beside": b"beside"})
    server.publish(other, "/o")
    server.publish(folder)
    (folder / "hello").unlink()
    (folder / "empty").write_bytes(b"no longer")
    (folder / "new/deep").mkdir(parents=True)
    (folder / "new/deep/file").write_bytes(b"new")
    (folder / "link").unlink()
    (folder / "link").mkdir()
    (folder / "none").rmdir()
    (folder / "none").write_bytes(b"a file now")
    server.publish(folder)
    assert server.read() == shown(folder) | shown(other, "/o")


def test_whole_repository(server: Server, folder: Path) -> None:
    server.publish(folder, "")
    assert server.read() == {path.removeprefix("/t"): data for path, data in shown(folder).items() if path != "/t"}
    with server.reader() as reader:
        assert reader.entries("/none") == []
        with pytest.raises(ClientError):
            reader.entry("/nothing")


def test_deep_target(server: Server, folder: Path) -> None:
    """Directories on the way are made; the lease is on the highest that is missing."""
    server.publish(folder, "/p/q/r")
    assert server.read() == shown(folder, "/p/q/r")
    server.publish(folder, "/p/q/s")
    assert server.read() == shown(folder, "/p/q/r") | shown(folder, "/p/q/s")


def test_target_below_a_file(server: Server, folder: Path) -> None:
    """Nobody means to replace a file by a directory with something in it."""
    server.publish(folder)
    with pytest.raises(ClientError, match="/t/hello"):
        server.publish(folder, "/t/hello/below")
    assert server.revision == 2
    assert server.read() == shown(folder)


def test_empty_directory_removes_everything(server: Server, folder: Path, tmp_path: Path) -> None:
    server.publish(folder)
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    server.publish(nothing)
    assert server.read() == {"/t": None}
    server.publish(nothing, "")
    assert server.read() == {}


def test_nested_catalogs(server: Server, folder: Path) -> None:
    for name in ("", "lib", "lib/a"):
        (folder / name / ".cvmfscatalog").touch()
    server.publish(folder)
    assert server.read() == shown(folder)
    with server.repository.catalogs.load(server.repository.head().root_hash) as catalog:
        assert set(catalog.nested()) == {"/t"}
        with server.repository.catalogs.load(catalog.nested()["/t"].hash) as nested:
            assert set(nested.nested()) == {"/t/lib"}
    (folder / "lib/.cvmfscatalog").unlink()
    (folder / "lib/a/data").write_bytes(b"changed")
    server.publish(folder)
    assert server.read() == shown(folder)
    with server.repository.catalogs.load(server.repository.head().root_hash) as catalog:
        ref = catalog.nested()["/t"].hash
        assert ref not in refs(server.repository)
        with server.repository.catalogs.load(ref) as nested:
            assert set(nested.nested()) == {"/t/lib/a"}


@pytest.mark.parametrize("compression", Compression)
def test_large_file(server: Server, folder: Path, compression: Compression) -> None:
    """In chunks: also where the length is a multiple of theirs, one byte more or one less."""
    (folder / "lib/a/data").unlink()
    sizes = (699, 700, 701, 1399, 1400, 1401, 7000, 70_001)
    for size in sizes:  # of zeros, which have no cuts but those for length
        (folder / f"size-{size}").write_bytes(bytes(size))
    chunks = ChunkSizes(600, 650, 700)
    server.publish(folder, compression=compression, chunks=chunks)
    assert server.read() == shown(folder)
    with server.reader() as reader:
        assert {size for size in sizes if reader.entry(f"/t/size-{size}").is_chunked} == {n for n in sizes if n > 700}
        entry = reader.entry("/t/size-1400")
        assert (entry.size, entry.hash, entry.compression) == (1400, None, compression)
    assert any(name.suffix is Suffix.CHUNK for name in server.repository.objects.list())
    with server.repository.catalogs.load(server.repository.head().root_hash) as catalog:
        assert catalog.counters()[0] == catalog.count_rows()
    # Nothing is sent a second time.
    os.utime(folder / "size-7000", (1, 1))
    again = server.publish(folder, compression=compression, chunks=chunks)
    assert (again.objects, again.files, again.bytes) == (1, 1, 7000)


def test_several_packs(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catalogs go last, so that whatever they name is there before them."""
    monkeypatch.setattr(session, "PACK_OBJECTS", 3)
    sent: list[int] = []

    class Noted(Progress):
        def sent(self, objects: int, size: int) -> None:
            sent.append(objects)

    for number in range(10):
        (folder / f"f{number}").write_bytes(b"%d" % number)
    publish(server.request(folder), Noted())
    assert len(sent) > 3
    assert max(sent) <= 3
    assert server.read() == shown(folder)


def test_tags(server: Server, folder: Path) -> None:
    server.publish(folder, tag="v1", description="first")
    assert tags(server.repository)["v1"].description == "first"
    with pytest.raises(GatewayRefused) as info:
        server.publish(folder, tag="v1")
    assert info.value.reason == "miscellaneous"
    assert info.value.exit_code == 1
    assert server.revision == 2
    # The lease of the refused commit is free again.
    assert server.publish(folder, tag="v2").revision == 3


# -- leases and keys


def test_busy(server: Server, folder: Path) -> None:
    client = server.client()
    token = client.acquire(f"{FQRN}/t")
    for target in ("/t", "/t/deeper", ""):
        with pytest.raises(PathBusy) as info:
            server.publish(folder, target)
        assert info.value.exit_code == 2
    server.publish(folder, "/elsewhere")
    client.release(token)
    client.close()
    assert server.publish(folder).revision == 3


@pytest.mark.parametrize(("name", "secret"), [("", b"wrong"), ("nobody", b"")])
def test_wrong_key(server: Server, tmp_path: Path, name: str, secret: bytes) -> None:
    """It is noticed before anything is read."""
    missing = tmp_path / "missing"
    right = server.request(missing).destination.key
    with pytest.raises(GatewayRefused) as info:
        server.publish(missing, key=Key(name or right.id, secret or right.secret))
    assert info.value.reason == "invalid_hmac"
    assert server.revision == 1


def test_commit_that_fails_gives_the_lease_back(server: Server, folder: Path) -> None:
    key = Path(server.paths.key_file(FQRN, "key"))
    content_of_key = key.read_bytes()
    key.unlink()
    with pytest.raises(GatewayRefused):
        server.publish(folder)
    client = server.client()
    client.release(client.acquire(f"{FQRN}/t"))
    client.close()
    key.write_bytes(content_of_key)
    assert server.publish(folder).revision == 2


def test_somebody_else_was_faster(
    server: Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published between reading the head and the lease: both are there in the end."""
    other = fill(tmp_path / "other", {"file": b"other"})
    acquire = type(server.client()).acquire

    def late(client: object, *arguments: object) -> str:
        monkeypatch.undo()
        server.publish(other, "/o")
        return acquire(client, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("cvmfs_gw.client.gateway.GatewayClient.acquire", late)
    server.publish(folder)
    assert server.revision == 3
    assert server.read() == shown(folder) | shown(other, "/o")


# -- whom to trust


def refused(server: Server, folder: Path, **changes: object) -> None:
    """Neither publishing nor reading trusts what is served."""
    before = server.storage_file(".cvmfspublished").read_bytes()
    with pytest.raises(UntrustedRepository) as info:
        server.publish(folder, "/t", **changes)
    assert info.value.exit_code == 4
    if not changes:
        with pytest.raises(UntrustedRepository):
            server.reader()
    assert server.storage_file(".cvmfspublished").read_bytes() == before


@pytest.mark.parametrize("name", [".cvmfspublished", ".cvmfswhitelist"])
def test_tampered(server: Server, folder: Path, name: str) -> None:
    path = server.storage_file(name)
    good = path.read_bytes()
    for at in (3, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :])
        refused(server, folder)
    for bad in (b"", good[:100], b"<html>" + good):
        path.write_bytes(bad)
        refused(server, folder)
    path.write_bytes(good)
    assert server.publish(folder).revision == 2


def test_signed_by_a_stranger(server: Server, folder: Path) -> None:
    """A manifest that says something else, well signed by a key that is not the certificate's."""
    head = server.repository.head()
    server.storage_file(".cvmfspublished").write_bytes(head.signed(RepositoryKey.generate()))
    refused(server, folder)


def test_expired_whitelist(server: Server, folder: Path) -> None:
    write_whitelist(server.repository, time.time() - 31 * 86400)
    refused(server, folder)


def test_other_master_key(server: Server, folder: Path) -> None:
    refused(server, folder, public_keys=RepositoryKey.generate().public_pem)


def test_other_repository(server: Server, folder: Path) -> None:
    """What is served there is another repository than the one that was asked for."""
    refused(server, folder, fqrn="other.example.org")


def test_damaged_objects(server: Server, folder: Path) -> None:
    server.publish(folder)
    head = server.repository.head()
    assert head.certificate is not None
    for name in (head.certificate, head.root_hash):
        path = server.storage_file(name.path)
        good = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(good[:-1] + bytes((good[-1] ^ 1,)))
        with pytest.raises(ClientError):
            server.publish(folder)
        with pytest.raises(UntrustedRepository):
            server.read()
        path.write_bytes(good)
    with server.reader() as reader:
        content_hash = reader.entry("/t/hello").content_hash
        assert content_hash is not None
        path = server.storage_file(content_hash.path)
        path.chmod(0o644)
        path.write_bytes(b"something else")
        with pytest.raises(UntrustedRepository):
            reader.read("/t/hello")
        with pytest.raises(ClientError, match="is not a file"):
            reader.read("/t/bin")
    assert server.revision == 2


@pytest.mark.parametrize("text", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"])
def test_public_key_that_is_none(server: Server, folder: Path, text: bytes) -> None:
    refused(server, folder, public_keys=text)


# -- servers that do not answer


def test_nobody_listens(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "http://127.0.0.1:1"
    monkeypatch.setattr(gateway, "PATIENCE_S", 0)
    with pytest.raises(GatewayUnreachable) as info:
        server.publish(folder, gateway=f"{nowhere}/api/v1")
    assert info.value.exit_code == 3
    assert server.revision == 1


def test_no_repository_there(server: Server, folder: Path) -> None:
    with pytest.raises(GatewayUnreachable, match="missing"):
        server.publish(folder, stratum0=server.stratum0.replace(FQRN, "missing.example.org"))


def test_missing_directory(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        server.publish(tmp_path / "missing")
    client = server.client()
    client.release(client.acquire(f"{FQRN}/"))
    client.close()
