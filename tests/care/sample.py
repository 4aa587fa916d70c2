"""A small repository with one of everything, for checks to look at and for others to damage."""

from __future__ import annotations

from contextlib import closing
from typing import Final

from cvmfs_gw.engine.publish import Publication, TagChanges
from cvmfs_gw.engine.repository import Repository
from cvmfs_objstore.compression import deflate
from cvmfs_objstore.formats.catalog import Catalog
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
)
from cvmfs_objstore.hashes import Algorithm, Suffix
from tests.engine.repositories import new_repository
from tests.engine.trees import NOW

NESTED: Final = "/a/n"
CONTENT: Final = b"the content of a file\n"


def directory_entry(path: str, links: int, flags: int = 0) -> Entry:
    return Entry(links, None, 4096, 0o040755, NOW, 0, FLAG_DIRECTORY | flags, name_of(path), "", 10, 20, None)


def file_entry(repository: Repository, path: str, data: bytes = CONTENT, hardlinks: int = 1) -> Entry:
    name = repository.objects.add(data, repository.head().root_hash.algorithm, deflate=deflate)
    flags = FLAG_FILE | (name.algorithm - 1) << 8
    return Entry(hardlinks, name.digest, len(data), 0o100644, NOW, 0, flags, name_of(path), "", 10, 20, None)


def build(root: str, keys: str, algorithm: Algorithm = Algorithm.SHA1) -> Repository:
    """A repository of revision 2: directories, files, chunks, links, xattrs, a nested catalog at /a/n and one below."""
    repository = new_repository(root, keys, algorithm)
    objects, tag = repository.objects, (algorithm - 1) << 8
    chunks = [objects.add(b"%d" % n * 10, algorithm, Suffix.CHUNK, deflate=deflate) for n in range(3)]
    with Catalog.create("/a/n/m", directory_entry("/a/n/m", 2)) as deep:
        deep.put("/a/n/m/.cvmfscatalog", file_entry(repository, "/.cvmfscatalog", b""))
        deep.put("/a/n/m/bottom", file_entry(repository, "/bottom"))
        deep_counters = deep.count_rows()
        deep.set_counters(deep_counters, Counters())
        deep_ref = repository.catalogs.store(deep, algorithm)
    with Catalog.create(NESTED, directory_entry(NESTED, 4)) as nested:
        nested.put("/a/n/.cvmfscatalog", file_entry(repository, "/.cvmfscatalog", b""))
        nested.put("/a/n/file", file_entry(repository, "/file"))
        nested.put("/a/n/sub", directory_entry("/a/n/sub", 2))
        nested.put("/a/n/m", directory_entry("/a/n/m", 2, FLAG_MOUNTPOINT))
        nested.set_nested("/a/n/m", deep_ref)
        own = nested.count_rows()
        nested.set_counters(own, deep_counters)
        own.add(deep_counters)
        nested_ref = repository.catalogs.store(nested, algorithm)
    with Catalog.create("", directory_entry("", 3)) as catalog:
        catalog.put("/a", directory_entry("/a", 4))
        catalog.put("/a/d", directory_entry("/a/d", 2))
        catalog.put("/a/d/file", file_entry(repository, "/file", b"another\n")._replace(xattr=b"\x01\x01\x04\x01userx"))
        for name in ("one", "two"):
            catalog.put(f"/a/d/{name}", file_entry(repository, f"/{name}", b"linked\n", 7 << 32 | 2))
        link = Entry(1, None, 4, 0o120777, NOW, 0, FLAG_FILE | FLAG_LINK, "link", "file", 10, 20, None)
        catalog.put("/a/d/link", link)
        fifo = Entry(1, None, 0, 0o010644, NOW, 0, FLAG_FILE | FLAG_SPECIAL, "fifo", "", 10, 20, None)
        catalog.put("/a/d/fifo", fifo)
        big = Entry(1, None, 30, 0o100644, NOW, 0, FLAG_FILE | FLAG_CHUNKED | tag, "big", "", 10, 20, None)
        catalog.put("/a/big", big, tuple(Chunk(n * 10, 10, name.digest) for n, name in enumerate(chunks)))
        catalog.put(NESTED, directory_entry(NESTED, 4, FLAG_MOUNTPOINT))
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
