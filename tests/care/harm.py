"""Ways to damage a repository by hand, each so that nothing but the damage is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cvmfs_gw.engine.publish import Publication, TagChanges
from cvmfs_gw.engine.repository import MANIFEST_PATH, Repository
from cvmfs_objstore.compression import deflate
from cvmfs_objstore.formats.catalog import Catalog, NestedRef
from cvmfs_objstore.formats.entry import (
    path_key,
)
from cvmfs_objstore.formats.history import History
from cvmfs_objstore.formats.keychain import Certificate, MasterKey, RepositoryKey
from cvmfs_objstore.formats.reflog import REFLOG_PATH, Reflog
from cvmfs_objstore.formats.whitelist import SignedWhitelist
from cvmfs_objstore.hashes import ContentHash, Suffix
from tests.care.sample import NESTED, publish
from tests.engine.repositories import FQRN
from tests.engine.trees import NOW

Edit = Callable[[Catalog], object]


def edit_catalogs(repository: Repository, edits: dict[str, Edit], size: int | None = None) -> None:
    """Publish a revision in which the catalogs at some mountpoints were changed by hand, and all above name them.

    *size* is what is recorded of nested ones in place of their own.
    """

    def visit(ref: ContentHash, mountpoint: str) -> Catalog:
        catalog = Catalog.load(repository.catalogs.plain(ref))
        for path, nested in catalog.nested().items():
            if any(place == path or place.startswith(path + "/") for place in edits):
                with visit(nested.hash, path) as below:
                    stored = repository.catalogs.store(below, ref.algorithm)
                    catalog.set_nested(path, NestedRef(stored.hash, stored.size if size is None else size))
        if mountpoint in edits:
            edits[mountpoint](catalog)
        return catalog

    with visit(repository.head().root_hash, "") as root:
        publish(repository, root)


def sql(mountpoint: str, *statements: str) -> Callable[[Repository], None]:
    """Run statements on a catalog. ``{/a/b}`` stands for the condition that finds that path."""

    def edit(catalog: Catalog) -> None:
        for statement in statements:
            for part in statement.split("{")[1:]:
                path = part.partition("}")[0]
                one, two = path_key(path)
                statement = statement.replace(f"{{{path}}}", f"(md5path_1 = {one} AND md5path_2 = {two})")
            catalog.connection.execute(statement)

    return lambda repository: edit_catalogs(repository, {mountpoint: edit})


def path_of(repository: Repository, name: str) -> str:
    return os.path.join(repository.paths.repository_storage(FQRN), name)


def spool_of(repository: Repository, name: str) -> str:
    return os.path.join(repository.paths.repository_spool(FQRN), name)


def resign(repository: Repository, **changes: object) -> None:
    """Sign the manifest again with some fields changed."""
    _, key = repository.signing_keys()
    head = replace(repository.head(), **changes)  # type: ignore[arg-type]
    repository.storage.write(MANIFEST_PATH, head.signed(key))


def edit_history(edit: Callable[[History], object]) -> Callable[[Repository], None]:
    """Change the tag database by hand."""

    def change(history: History) -> None:
        edit(history)

    def damage(repository: Repository) -> None:
        head = repository.head()
        with closing(Publication(repository, head, TagChanges(), NOW + 1)) as publication:
            publication.amend(edit_tags=change)

    return damage


def edit_reflog(edit: Callable[[Reflog], object], *, checksum: bool = True) -> Callable[[Repository], None]:
    """Change the reflog by hand, and its checksums so that they fit."""

    def damage(repository: Repository) -> None:
        with Reflog.load(repository.storage.read(REFLOG_PATH)) as reflog:
            edit(reflog)
            data = reflog.dump()
        repository.storage.write(REFLOG_PATH, data)
        digest = ContentHash.of(data, repository.head().root_hash.algorithm)
        if checksum:
            with open(spool_of(repository, "reflog.chksum"), "w", encoding="ascii") as file:
                file.write(digest.bare)
            resign(repository, reflog_hash=digest)

    return damage


def overwrite(path: str, data: bytes) -> None:
    """Put other bytes where a file is, which may be one that several names lead to."""
    os.unlink(path)
    with open(path, "wb") as file:
        file.write(data)


def object_of(repository: Repository, data: bytes, suffix: Suffix = Suffix.NONE) -> str:
    name = ContentHash.of(deflate(data), repository.head().root_hash.algorithm, suffix)
    return path_of(repository, name.path)


def whitelist(repository: Repository, *, days: float = 30, fqrn: str = FQRN, empty: bool = False) -> None:
    """Sign another whitelist."""
    signed = SignedWhitelist.parse(repository.storage.read(".cvmfswhitelist")).whitelist
    now = datetime.fromtimestamp(NOW, UTC)
    changed = replace(signed, expires=now + timedelta(days=days), fqrn=fqrn)
    if empty:
        changed = replace(changed, fingerprints=(":".join(["00"] * 20),))
    master = MasterKey.load(repository.paths.key_file(FQRN, "masterkey"))
    repository.storage.write(".cvmfswhitelist", changed.signed(master))


def name_in_head(repository: Repository, field: str) -> str:
    name = getattr(repository.head(), field)
    assert isinstance(name, ContentHash)
    return path_of(repository, name.path)


def other_master(repository: Repository) -> None:
    signed = SignedWhitelist.parse(repository.storage.read(".cvmfswhitelist")).whitelist
    repository.storage.write(".cvmfswhitelist", signed.signed(MasterKey.generate()))


def other_key(repository: Repository) -> None:
    repository.storage.write(MANIFEST_PATH, repository.head().signed(RepositoryKey.generate()))


def unlisted_certificate(repository: Repository) -> None:
    key = RepositoryKey.generate()
    certificate = Certificate.self_signed(key, FQRN, datetime.fromtimestamp(NOW, UTC))
    algorithm = repository.head().root_hash.algorithm
    name = repository.objects.add(certificate.pem, algorithm, Suffix.CERTIFICATE, deflate=deflate)
    edit_reflog(lambda reflog: reflog.add(name, NOW))(repository)
    head = replace(repository.head(), certificate=name)
    repository.storage.write(MANIFEST_PATH, head.signed(key))


def garbage_certificate(repository: Repository) -> None:
    algorithm = repository.head().root_hash.algorithm
    name = repository.objects.add(b"no certificate", algorithm, Suffix.CERTIFICATE, deflate=deflate)
    edit_reflog(lambda reflog: reflog.add(name, NOW))(repository)
    resign(repository, certificate=name)


def untagged_by_trunk(repository: Repository) -> ContentHash:
    """The root catalog of tag ``first``, when another revision was published on top of it."""
    root = repository.head().root_hash
    edit_catalogs(repository, {"": lambda catalog: None})
    return root


def flip(path: str, at: int = -5) -> None:
    with open(path, "rb") as file:
        data = bytearray(file.read())
    data[at] ^= 0xFF
    overwrite(path, bytes(data))


def nested_hash(repository: Repository, mountpoint: str = NESTED) -> ContentHash:
    with repository.catalogs.load(repository.head().root_hash) as catalog:
        return catalog.nested()[mountpoint].hash


def _catalog_of(repository: Repository, data: bytes) -> NestedRef:
    stored = deflate(data)
    name = ContentHash.of(stored, repository.head().root_hash.algorithm, Suffix.CATALOG)
    repository.objects.put(name, stored)
    return NestedRef(name, len(data))


def not_a_database(repository: Repository) -> None:
    ref = _catalog_of(repository, b"not a database" * 100)
    edit_catalogs(repository, {"": lambda root: root.set_nested(NESTED, ref)})


def damaged_inside(repository: Repository) -> None:
    data = bytearray(repository.catalogs.plain(nested_hash(repository)))
    size = int.from_bytes(data[16:18], "big")
    with Catalog.load(bytes(data)) as catalog:
        (page,) = catalog.connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'catalog'").fetchone()
    data[(page - 1) * size + 8 : (page - 1) * size + 12] = b"\xee" * 4  # where two of its rows are said to be
    ref = _catalog_of(repository, bytes(data))
    edit_catalogs(repository, {"": lambda root: root.set_nested(NESTED, ref)})


def remove_catalog(repository: Repository) -> None:
    os.unlink(path_of(repository, nested_hash(repository).path))


def wrong_size(repository: Repository) -> None:
    edit_catalogs(repository, {NESTED: lambda catalog: None}, size=4711)


def bad_content(repository: Repository) -> None:
    """An entry whose object is no zlib stream, though it has the hash of its name."""
    data = b"this does not inflate"
    name = ContentHash.of(data, repository.head().root_hash.algorithm)
    repository.objects.put(name, data)
    edit_catalogs(
        repository,
        {"": lambda c: c.connection.execute("UPDATE catalog SET hash = ? WHERE name = 'file'", (name.digest,))},
    )
