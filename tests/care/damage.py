"""The catalogue of seeded corruptions: what is planted, and what a check must find where."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cvmfs_gw.care.faults import FaultKind
from cvmfs_gw.engine.repository import MANIFEST_PATH, Repository
from cvmfs_objstore.formats.history import Tag
from cvmfs_objstore.formats.reflog import REFLOG_PATH
from cvmfs_objstore.hashes import ContentHash, Suffix
from tests.care.harm import (
    bad_content,
    damaged_inside,
    edit_catalogs,
    edit_history,
    edit_reflog,
    flip,
    garbage_certificate,
    name_in_head,
    nested_hash,
    not_a_database,
    object_of,
    other_key,
    other_master,
    overwrite,
    path_of,
    remove_catalog,
    resign,
    spool_of,
    sql,
    unlisted_certificate,
    untagged_by_trunk,
    whitelist,
    wrong_size,
)
from tests.care.sample import CONTENT, NESTED, file_entry
from tests.engine.repositories import FQRN
from tests.engine.trees import NOW


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
        "tag-null",
        F.TAG_INVALID,
        "tag first",
        edit_history(lambda h: h.connection.execute("UPDATE tags SET description = NULL WHERE name = 'first'")),
        True,
    ),
    Damage(
        "tag-branch",
        F.TAG_BRANCH,
        "tag first",
        edit_history(lambda h: h.connection.execute("UPDATE tags SET branch = 'none' WHERE name = 'first'")),
        True,
    ),
    Damage(
        "branch-revision",
        F.TAG_BRANCH,
        "tag first",
        edit_history(lambda h: h.connection.execute("UPDATE branches SET initial_revision = -1")),
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
        "catalog-schema",
        F.CATALOG_SCHEMA,
        "/",
        lambda r: edit_catalogs(r, {"": lambda c: c.set_property("schema_revision", None)}),
        True,
    ),
    Damage(
        "catalog-schema-limit",
        F.CATALOG_PROPERTY,
        NESTED,
        lambda r: edit_catalogs(r, {NESTED: lambda c: c.set_property("schema_revision", 1 << 32)}),
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
        lambda r: edit_catalogs(r, {"": lambda c: c.put("/a/n/extra", file_entry(r, "/extra"))}),
        True,
    ),
    Damage(
        "marker-gone", F.NESTED_NO_MARKER, NESTED, sql(NESTED, "DELETE FROM catalog WHERE {/a/n/.cvmfscatalog}"), True
    ),
    Damage(
        "marker-abandoned",
        F.MARKER_ABANDONED,
        "/a/d/.cvmfscatalog",
        lambda r: edit_catalogs(r, {"": lambda c: c.put("/a/d/.cvmfscatalog", file_entry(r, "/.cvmfscatalog", b""))}),
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
