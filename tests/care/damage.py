"""A small repository with one of everything, and a catalogue of ways to damage it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from cvmfs_gw.care.faults import FaultKind
from cvmfs_gw.engine.publish import Publication, TagChanges
from cvmfs_gw.engine.repository import MANIFEST_PATH, Repository
from cvmfs_objstore.compression import deflate
from cvmfs_objstore.formats.catalog import Catalog, NestedRef
from cvmfs_objstore.formats.entry import (
    FLAG_CHUNKED,
    FLAG_DIRECTORY,
    FLAG_FILE,
    FLAG_LINK,
    FLAG_MOUNTPOINT,
    FLAG_SPECIAL,
    Chunk,
    Counters,
    Entry,
    name_of,
    path_key,
)
from cvmfs_objstore.formats.history import History, Tag
from cvmfs_objstore.formats.keychain import Certificate, MasterKey, RepositoryKey
from cvmfs_objstore.formats.manifest import Manifest, SignedManifest
from cvmfs_objstore.formats.reflog import REFLOG_PATH, Reflog
from cvmfs_objstore.formats.whitelist import SignedWhitelist
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from tests.engine.repositories import FQRN, new_repository
from tests.engine.trees import NOW

NESTED: Final = "/a/n"
CONTENT: Final = b"the content of a file\n"


def _directory(path: str, links: int, flags: int = 0) -> Entry:
    return Entry(links, None, 4096, 0o040755, NOW, 0, FLAG_DIRECTORY | flags, name_of(path), "", 10, 20, None)


def _file(repository: Repository, path: str, data: bytes = CONTENT, hardlinks: int = 1) -> Entry:
    name = repository.objects.add(data, repository.head().root_hash.algorithm, deflate=deflate)
    flags = FLAG_FILE | (name.algorithm - 1) << 8
    return Entry(hardlinks, name.digest, len(data), 0o100644, NOW, 0, flags, name_of(path), "", 10, 20, None)


def build(root: str, keys: str, algorithm: Algorithm = Algorithm.SHA1) -> Repository:
    """A repository of revision 2: directories, files, chunks, links, xattrs, a nested catalog at /a/n and one below."""
    repository = new_repository(root, keys, algorithm)
    objects, tag = repository.objects, (algorithm - 1) << 8
    chunks = [objects.add(b"%d" % n * 10, algorithm, Suffix.CHUNK, deflate=deflate) for n in range(3)]
    with Catalog.create("/a/n/m", _directory("/a/n/m", 2)) as deep:
        deep.put("/a/n/m/.cvmfscatalog", _file(repository, "/.cvmfscatalog", b""))
        deep.put("/a/n/m/bottom", _file(repository, "/bottom"))
        deep_counters = deep.count_rows()
        deep.set_counters(deep_counters, Counters())
        deep_ref = repository.catalogs.store(deep, algorithm)
    with Catalog.create(NESTED, _directory(NESTED, 4)) as nested:
        nested.put("/a/n/.cvmfscatalog", _file(repository, "/.cvmfscatalog", b""))
        nested.put("/a/n/file", _file(repository, "/file"))
        nested.put("/a/n/sub", _directory("/a/n/sub", 2))
        nested.put("/a/n/m", _directory("/a/n/m", 2, FLAG_MOUNTPOINT))
        nested.set_nested("/a/n/m", deep_ref)
        own = nested.count_rows()
        nested.set_counters(own, deep_counters)
        own.add(deep_counters)
        nested_ref = repository.catalogs.store(nested, algorithm)
    with Catalog.create("", _directory("", 3)) as catalog:
        catalog.put("/a", _directory("/a", 4))
        catalog.put("/a/d", _directory("/a/d", 2))
        catalog.put("/a/d/file", _file(repository, "/file", b"another\n")._replace(xattr=b"\x01\x01\x04\x01userx"))
        for name in ("one", "two"):
            catalog.put(f"/a/d/{name}", _file(repository, f"/{name}", b"linked\n", 7 << 32 | 2))
        link = Entry(1, None, 4, 0o120777, NOW, 0, FLAG_FILE | FLAG_LINK, "link", "file", 10, 20, None)
        catalog.put("/a/d/link", link)
        fifo = Entry(1, None, 0, 0o010644, NOW, 0, FLAG_FILE | FLAG_SPECIAL, "fifo", "", 10, 20, None)
        catalog.put("/a/d/fifo", fifo)
        big = Entry(1, None, 30, 0o100644, NOW, 0, FLAG_FILE | FLAG_CHUNKED | tag, "big", "", 10, 20, None)
        catalog.put("/a/big", big, tuple(Chunk(n * 10, 10, name.digest) for n, name in enumerate(chunks)))
        catalog.put(NESTED, _directory(NESTED, 4, FLAG_MOUNTPOINT))
        catalog.set_nested(NESTED, nested_ref)
        catalog.set_counters(catalog.count_rows(), own)
        publish(repository, catalog, "first")
    return repository


def publish(repository: Repository, root: Catalog, tag: str = "") -> None:
    """Make *root* the next revision, whatever is in it."""
    head = repository.head()
    root.set_property("revision", head.revision + 1)
    root.set_property("previous_revision", head.root_hash.bare)
    ref = repository.catalogs.store(root, head.root_hash.algorithm)
    with closing(Publication(repository, head, TagChanges(tag), NOW + 1)) as publication:
        publication.publish(ref, head.revision + 1, 240)


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


def head_of(repository: Repository) -> Manifest:
    return SignedManifest.parse(repository.storage.read(MANIFEST_PATH)).manifest


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


@dataclass(frozen=True)
class Damage:
    """One seeded corruption: what is found, where, and whether ``cvmfs_swissknife check -c`` complains as well."""

    name: str
    kind: FaultKind
    place: str
    do: Callable[[Repository], object]
    reference: bool
    integrity: bool = False


F = FaultKind
COUNTERS: Final = "UPDATE statistics SET value = value + 1 WHERE counter = "
DAMAGES: Final = (
    # -- the chain of trust
    Damage("manifest-gone", F.MANIFEST_MISSING, MANIFEST_PATH, lambda r: os.unlink(path_of(r, MANIFEST_PATH)), True),
    Damage(
        "manifest-garbage",
        F.MANIFEST_UNREADABLE,
        MANIFEST_PATH,
        lambda r: overwrite(path_of(r, MANIFEST_PATH), b"garbage\n"),
        True,
    ),
    Damage(
        "manifest-root-path", F.MANIFEST_ROOT_PATH, MANIFEST_PATH, lambda r: resign(r, root_path_md5="0" * 32), False
    ),
    Damage("manifest-name", F.MANIFEST_NAME, MANIFEST_PATH, lambda r: resign(r, fqrn="other.example.org"), False),
    Damage("manifest-signature", F.MANIFEST_SIGNATURE, MANIFEST_PATH, lambda r: flip(path_of(r, MANIFEST_PATH)), False),
    Damage("manifest-other-key", F.MANIFEST_SIGNATURE, MANIFEST_PATH, other_key, False),
    Damage("manifest-future", F.MANIFEST_TIME, MANIFEST_PATH, lambda r: resign(r, published=NOW + 9999), False),
    Damage(
        "whitelist-gone", F.WHITELIST_MISSING, ".cvmfswhitelist", lambda r: r.storage.delete(".cvmfswhitelist"), False
    ),
    Damage(
        "whitelist-garbage",
        F.WHITELIST_UNREADABLE,
        ".cvmfswhitelist",
        lambda r: r.storage.write(".cvmfswhitelist", b"x"),
        False,
    ),
    Damage("whitelist-name", F.WHITELIST_NAME, ".cvmfswhitelist", lambda r: whitelist(r, fqrn="o.example.org"), False),
    Damage("whitelist-signature", F.WHITELIST_SIGNATURE, ".cvmfswhitelist", other_master, False),
    Damage("whitelist-expired", F.WHITELIST_EXPIRED, ".cvmfswhitelist", lambda r: whitelist(r, days=-1), False),
    Damage("whitelist-soon", F.WHITELIST_EXPIRES_SOON, ".cvmfswhitelist", lambda r: whitelist(r, days=2), False),
    Damage("certificate-unlisted", F.CERTIFICATE_NOT_LISTED, ".cvmfswhitelist", unlisted_certificate, False),
    Damage("certificate-gone", F.CERTIFICATE_MISSING, "X", lambda r: os.unlink(name_in_head(r, "certificate")), False),
    Damage("certificate-garbage", F.CERTIFICATE_UNREADABLE, "X", garbage_certificate, False),
    Damage("public-key-gone", F.PUBLIC_KEY, "pub", lambda r: os.unlink(r.paths.key_file(FQRN, "pub")), False),
    Damage("key-gone", F.SIGNING_KEY, "keys", lambda r: os.unlink(r.paths.key_file(FQRN, "key")), False),
    Damage("meta-info-gone", F.META_INFO, "M", lambda r: os.unlink(name_in_head(r, "meta_info")), True),
    # -- reflog
    Damage("reflog-gone", F.REFLOG_MISSING, REFLOG_PATH, lambda r: os.unlink(path_of(r, REFLOG_PATH)), True),
    Damage(
        "reflog-garbage",
        F.REFLOG_UNREADABLE,
        REFLOG_PATH,
        lambda r: overwrite(path_of(r, REFLOG_PATH), b"x" * 999),
        True,
    ),
    Damage(
        "reflog-lacks-root",
        F.REFLOG_LACKS_HEAD,
        "C",
        lambda r: edit_reflog(lambda reflog: reflog.remove(r.head().root_hash))(r),
        True,
    ),
    Damage(
        "reflog-lacks-history",
        F.REFLOG_LACKS_HEAD,
        "H",
        lambda r: edit_reflog(lambda reflog: reflog.connection.execute("DELETE FROM refs WHERE type = 2"))(r),
        True,
    ),
    Damage(
        "reflog-lacks-tag",
        F.REFLOG_LACKS_TAG,
        "tag first",
        lambda r: edit_reflog(lambda reflog: reflog.remove(untagged_by_trunk(r)))(r),
        True,
    ),
    Damage(
        "reflog-hash", F.REFLOG_MANIFEST, MANIFEST_PATH, lambda r: resign(r, reflog_hash=ContentHash.of(b"")), False
    ),
    Damage(
        "reflog-dangling",
        F.REFLOG_DANGLING,
        "C",
        edit_reflog(lambda reflog: reflog.add(ContentHash.of(b"none", suffix=Suffix.CATALOG), NOW)),
        False,
    ),
    Damage(
        "reflog-name",
        F.REFLOG_NAME,
        REFLOG_PATH,
        edit_reflog(lambda reflog: reflog.set_property("fqrn", "o.example.org")),
        False,
    ),
    Damage(
        "reflog-changed",
        F.REFLOG_CHECKSUM,
        "reflog.chksum",
        edit_reflog(lambda reflog: reflog.set_property("x", "y"), checksum=False),
        True,
    ),
    Damage(
        "checksum-gone",
        F.REFLOG_CHECKSUM_MISSING,
        "reflog.chksum",
        lambda r: os.unlink(spool_of(r, "reflog.chksum")),
        True,
    ),
    # -- tags
    Damage("history-gone", F.HISTORY_MISSING, "H", lambda r: os.unlink(name_in_head(r, "history")), True),
    Damage("history-corrupt", F.HISTORY_UNREADABLE, "H", lambda r: flip(name_in_head(r, "history")), True),
    Damage("history-name", F.HISTORY_NAME, "H", edit_history(lambda h: h.set_property("fqrn", "o.example.org")), False),
    Damage(
        "tag-dangling",
        F.TAG_CATALOG_MISSING,
        "tag lost",
        edit_history(lambda h: h.put(Tag("lost", ContentHash.of(b"no", suffix=Suffix.CATALOG), 1, NOW))),
        False,
    ),
    Damage(
        "tag-revision",
        F.TAG_CATALOG_DIFFERS,
        "tag first",
        edit_history(lambda h: h.connection.execute("UPDATE tags SET revision = 77 WHERE name = 'first'")),
        False,
    ),
    Damage(
        "tag-hash",
        F.TAG_INVALID,
        "tag first",
        edit_history(lambda h: h.connection.execute("UPDATE tags SET hash = 'xyz' WHERE name = 'first'")),
        False,
    ),
    Damage(
        "tag-branch",
        F.TAG_BRANCH,
        "tag first",
        edit_history(lambda h: h.connection.execute("UPDATE tags SET branch = 'none' WHERE name = 'first'")),
        True,
    ),
    Damage(
        "branch-unused",
        F.BRANCH_UNUSED,
        "branch dead",
        edit_history(lambda h: h.connection.execute("INSERT INTO branches VALUES ('dead', '', 1)")),
        True,
    ),
    Damage(
        "trunk-elsewhere",
        F.TRUNK_DIFFERS,
        "tag trunk",
        edit_history(lambda h: h.connection.execute("UPDATE tags SET revision = 1 WHERE name = 'trunk'")),
        False,
    ),
    # -- catalogs
    Damage("catalog-gone", F.CATALOG_MISSING, NESTED, remove_catalog, True),
    Damage("catalog-corrupt", F.CATALOG_CORRUPT, NESTED, lambda r: flip(path_of(r, nested_hash(r).path)), True),
    Damage("catalog-not-a-database", F.CATALOG_UNREADABLE, NESTED, not_a_database, True),
    Damage("catalog-damaged", F.CATALOG_DAMAGED, NESTED, damaged_inside, True),
    Damage("catalog-size", F.CATALOG_SIZE, NESTED, wrong_size, True),
    Damage(
        "catalog-prefix",
        F.CATALOG_PREFIX,
        NESTED,
        lambda r: edit_catalogs(r, {NESTED: lambda c: c.set_property("root_prefix", "/else")}),
        True,
    ),
    Damage(
        "catalog-property",
        F.CATALOG_PROPERTY,
        NESTED,
        lambda r: edit_catalogs(r, {NESTED: lambda c: c.set_property("previous_revision", "xyz")}),
        False,
    ),
    Damage("catalog-revision", F.CATALOG_REVISION, "/", lambda r: resign(r, revision=99), False),
    Damage("counter-own", F.COUNTER_OWN, NESTED, sql(NESTED, COUNTERS + "'self_regular'"), True),
    Damage("counter-size", F.COUNTER_OWN, "/", sql("", COUNTERS + "'self_file_size'"), True),
    Damage("counter-subtree", F.COUNTER_SUBTREE, "/", sql("", COUNTERS + "'subtree_dir'"), True),
    Damage(
        "counter-gone", F.COUNTER_MISSING, "/", sql("", "DELETE FROM statistics WHERE counter = 'self_xattr'"), True
    ),
    # -- nesting
    Damage("root-entry-gone", F.ROOT_ENTRY_MISSING, NESTED, sql(NESTED, "DELETE FROM catalog WHERE {/a/n}"), True),
    Damage(
        "root-entry-flags", F.ROOT_ENTRY_KIND, NESTED, sql(NESTED, "UPDATE catalog SET flags = 1 WHERE {/a/n}"), True
    ),
    Damage(
        "transition", F.TRANSITION_DIFFERS, NESTED, sql("", "UPDATE catalog SET mode = mode - 1 WHERE {/a/n}"), True
    ),
    Damage(
        "transition-owner", F.TRANSITION_DIFFERS, NESTED, sql("", "UPDATE catalog SET uid = 99 WHERE {/a/n}"), False
    ),
    Damage("unregistered", F.NESTED_UNREGISTERED, NESTED, sql("", "DELETE FROM nested_catalogs"), True),
    Damage("no-mountpoint", F.NESTED_NO_MOUNTPOINT, NESTED, sql("", "UPDATE catalog SET flags = 1 WHERE {/a/n}"), True),
    Damage("registration", F.NESTED_INVALID, NESTED, sql("", "UPDATE nested_catalogs SET sha1 = 'xyz'"), True),
    Damage(
        "nested-and-bind",
        F.NESTED_AND_BIND,
        NESTED,
        sql("", "INSERT INTO bind_mountpoints SELECT path, sha1, size FROM nested_catalogs"),
        True,
    ),
    Damage(
        "mountpoint-not-empty",
        F.NESTED_NOT_EMPTY,
        NESTED,
        lambda r: edit_catalogs(r, {"": lambda c: c.put("/a/n/extra", _file(r, "/extra"))}),
        True,
    ),
    Damage(
        "marker-gone", F.NESTED_NO_MARKER, NESTED, sql(NESTED, "DELETE FROM catalog WHERE {/a/n/.cvmfscatalog}"), True
    ),
    Damage(
        "marker-abandoned",
        F.MARKER_ABANDONED,
        "/a/d/.cvmfscatalog",
        lambda r: edit_catalogs(r, {"": lambda c: c.put("/a/d/.cvmfscatalog", _file(r, "/.cvmfscatalog", b""))}),
        True,
    ),
    # -- entries
    Damage("row-type", F.ROW_TYPE, "/", sql("", "UPDATE catalog SET size = 'many' WHERE {/a/d/file}"), True),
    Damage("name-empty", F.NAME_INVALID, "/a/d/", sql("", "UPDATE catalog SET name = '' WHERE {/a/d/file}"), True),
    Damage(
        "name-slash", F.NAME_INVALID, "/a/d/x/y", sql("", "UPDATE catalog SET name = 'x/y' WHERE {/a/d/file}"), False
    ),
    Damage(
        "path-hash", F.PATH_HASH, "/a/d/other", sql("", "UPDATE catalog SET name = 'other' WHERE {/a/d/file}"), False
    ),
    Damage("orphan", F.ORPHAN, "/", sql("", "UPDATE catalog SET parent_1 = 5 WHERE {/a/d/file}"), True),
    Damage("orphans-below", F.ORPHAN, "/", sql("", "DELETE FROM catalog WHERE {/a/d}"), True),
    Damage("kind", F.ENTRY_KIND, "/a/d/file", sql("", "UPDATE catalog SET mode = 16877 WHERE {/a/d/file}"), True),
    Damage(
        "algorithm", F.ENTRY_ALGORITHM, "/a/d/file", sql("", "UPDATE catalog SET flags = 1796 WHERE {/a/d/file}"), True
    ),
    Damage(
        "flags", F.ENTRY_FLAGS, "/a/d/link", sql("", "UPDATE catalog SET flags = flags | 128 WHERE {/a/d/link}"), True
    ),
    Damage(
        "links-zero",
        F.LINK_COUNT_ZERO,
        "/a/d/file",
        sql("", "UPDATE catalog SET hardlinks = 0 WHERE {/a/d/file}"),
        True,
    ),
    Damage(
        "links-directory", F.LINK_COUNT_DIRECTORY, "/a", sql("", "UPDATE catalog SET hardlinks = 9 WHERE {/a}"), True
    ),
    Damage(
        "hardlinks",
        F.HARDLINK_GROUP,
        "/a/d/one",
        sql("", f"UPDATE catalog SET hardlinks = {7 << 32 | 3} WHERE name IN ('one', 'two')"),
        True,
    ),
    Damage(
        "hardlinks-alone",
        F.HARDLINK_NO_GROUP,
        "/a/d/file",
        sql("", "UPDATE catalog SET hardlinks = 2 WHERE {/a/d/file}"),
        True,
    ),
    Damage(
        "hardlinks-differ",
        F.HARDLINK_DIFFERS,
        "/a/d/two",
        sql("", "UPDATE catalog SET size = 6 WHERE {/a/d/two}"),
        True,
    ),
    Damage(
        "hardlink-directory",
        F.HARDLINK_DIRECTORY,
        "/a/d",
        sql("", f"UPDATE catalog SET hardlinks = {3 << 32 | 2} WHERE {{/a/d}}"),
        True,
    ),
    Damage(
        "symlink-size", F.SYMLINK_SIZE, "/a/d/link", sql("", "UPDATE catalog SET size = 99 WHERE {/a/d/link}"), False
    ),
    Damage(
        "symlink-hash",
        F.UNEXPECTED_HASH,
        "/a/d/link",
        sql("", "UPDATE catalog SET hash = x'0000000000000000000000000000000000000001' WHERE {/a/d/link}"),
        True,
    ),
    Damage(
        "special-target",
        F.UNEXPECTED_HASH,
        "/a/d/fifo",
        sql("", "UPDATE catalog SET symlink = 'x' WHERE {/a/d/fifo}"),
        True,
    ),
    Damage(
        "size-negative", F.SIZE_NEGATIVE, "/a/d/file", sql("", "UPDATE catalog SET size = -1 WHERE {/a/d/file}"), True
    ),
    Damage("no-hash", F.FILE_NO_HASH, "/a/d/file", sql("", "UPDATE catalog SET hash = NULL WHERE {/a/d/file}"), True),
    Damage(
        "xattr", F.XATTR_INVALID, "/a/d/file", sql("", "UPDATE catalog SET xattr = x'0105' WHERE {/a/d/file}"), False
    ),
    Damage("chunks-gone", F.CHUNKS_MISSING, "/a/big", sql("", "DELETE FROM chunks"), True),
    Damage("chunks-gap", F.CHUNKS_LAYOUT, "/a/big", sql("", "UPDATE chunks SET offset = 11 WHERE offset = 10"), True),
    Damage("chunks-size", F.CHUNKS_SIZE, "/a/big", sql("", "UPDATE catalog SET size = 31 WHERE {/a/big}"), True),
    Damage(
        "chunks-orphaned",
        F.CHUNKS_ORPHANED,
        "/",
        sql("", "INSERT INTO chunks SELECT 1, 2, offset, size, hash FROM chunks"),
        False,
    ),
    # -- storage
    Damage("object-gone", F.OBJECT_MISSING, "/a/d/file", lambda r: os.unlink(object_of(r, b"another\n")), True),
    Damage(
        "chunk-gone",
        F.OBJECT_MISSING,
        "/a/big",
        lambda r: os.unlink(object_of(r, b"1" * 10, Suffix.CHUNK)),
        True,
    ),
    Damage("object-corrupt", F.OBJECT_CORRUPT, "", lambda r: flip(object_of(r, CONTENT)), False, True),
    Damage("object-cut", F.OBJECT_CORRUPT, "", lambda r: overwrite(object_of(r, CONTENT), b"x\x9c"), False, True),
    Damage("object-compression", F.OBJECT_COMPRESSION, "", bad_content, False, True),
    Damage("object-size", F.OBJECT_SIZE, "", sql("", "UPDATE catalog SET size = 5 WHERE {/a/d/file}"), True, True),
    Damage("stray-file", F.STRAY_FILE, "data/ab/stray", lambda r: r.storage.write("data/ab/stray", b"?"), False),
    Damage("folder-gone", F.FOLDER_MISSING, "data/txn", lambda r: shutil.rmtree(path_of(r, "data/txn")), False),
)
