"""What a repository's storage holds, read from its files and checked on the way, as strictly as can be."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from conformance.machines.snapshot import Node, Tree
from cvmfs_objstore.compression import Compression
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.entry import NESTING_FLAGS, Counters, Entry, Kind, unpack_xattrs
from cvmfs_objstore.formats.keychain import Certificate
from cvmfs_objstore.formats.manifest import Manifest, SignedManifest
from cvmfs_objstore.formats.reflog import Reflog
from cvmfs_objstore.hashes import ContentHash
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.objects import ObjectStore

_MAX_SIZE = 64 << 20


class StoredRepository:
    """Reads the head of the repository *fqrn* below a server's *root* directory; every contradiction is an error.

    ``tree`` is what it holds, ``nested`` the paths of its nested catalogs (``a/b``).
    """

    def __init__(self, root: Path, fqrn: str) -> None:
        self.storage = LocalStorage(str(root / "srv/cvmfs" / fqrn), durable=False)
        try:
            self.objects = ObjectStore(self.storage)
            self.manifest = self._manifest()
            self._check_reflog((root / "var/spool/cvmfs" / fqrn / "reflog.chksum").read_text())
            for name in self.objects.list():
                self.objects.verify(name)
            self.tree: Tree = {}
            self.nested: set[str] = set()
            self._read(self.manifest.root_hash, self.manifest.root_size, "", None)
            self._check_links()
        finally:
            self.storage.close()

    def _manifest(self) -> Manifest:
        signed = SignedManifest.parse(self.storage.read(".cvmfspublished"))
        assert signed.manifest.certificate is not None
        certificate = Certificate.parse(self.objects.get_plain(signed.manifest.certificate, max_size=_MAX_SIZE))
        return signed.verify(certificate)

    def _check_reflog(self, checksum: str) -> None:
        data = self.storage.read(".cvmfsreflog")
        assert ContentHash.of(data, self.manifest.root_hash.algorithm).bare == checksum.strip()
        with Reflog.load(data) as reflog:
            for name in (self.manifest.root_hash, self.manifest.certificate, self.manifest.history):
                assert name is not None
                assert name in reflog
            for name, _ in reflog.refs():
                assert self.objects.has(name), name

    def _read(self, name: ContentHash, size: int, top: str, mountpoint: Entry | None) -> Counters:
        """Take in the catalog at *top* and those below it; returns what all of them add up to."""
        plain = self.objects.get_plain(name, max_size=_MAX_SIZE)
        assert len(plain) == size, top
        with Catalog.load(plain) as catalog:
            assert catalog.mountpoint == top
            root = catalog.get(top)
            assert root is not None
            if mountpoint is None:
                self._add("", root, catalog)
            else:
                plain_flags = ~NESTING_FLAGS
                assert root._replace(flags=root.flags & plain_flags) == mountpoint._replace(
                    flags=mountpoint.flags & plain_flags
                ), top
            seen = 1
            entries = dict(catalog.walk(top))
            for path, entry in entries.items():
                self._add(path, entry, catalog)
                seen += 1
            assert seen == catalog.connection.execute("SELECT count(*) FROM catalog").fetchone()[0], top
            own, below = catalog.counters()
            assert own == catalog.count_rows(), top
            total = Counters()
            for path, ref in catalog.nested().items():
                self.nested.add(path[1:])
                total.add(self._read(ref.hash, ref.size, path, entries[path]))
            assert below == total, top
            own.add(below)
            return own

    def _add(self, path: str, entry: Entry, catalog: Catalog) -> None:
        mtime = entry.mtime * 10**9 + (entry.mtimens or 0)
        node = Node(entry.mode, entry.uid, entry.gid, mtime)
        if not path:
            self._links = {"": entry.linkcount}
            self.tree[""] = Node(0o040755, None, None, None)
            return
        node = replace(node, xattrs=tuple(sorted(unpack_xattrs(entry.xattr).items())))
        match entry.kind:
            case Kind.DIRECTORY:
                self._links[path] = entry.linkcount
            case Kind.SYMLINK:
                node = replace(node, target=entry.symlink)
            case Kind.SPECIAL:
                node = replace(node, device=entry.size)
            case Kind.FILE:
                node = replace(node, size=entry.size, sha1=self._sha1(path, entry, catalog))
        self.tree[path[1:]] = node

    def _sha1(self, path: str, entry: Entry, catalog: Catalog) -> str:
        compression = Compression(entry.compression)
        chunks = catalog.chunks(path)
        assert bool(chunks) == entry.is_chunked, path
        names = [entry.chunk_hash(chunk) for chunk in chunks]
        if entry.content_hash is not None:
            names = names or [entry.content_hash]
        pieces = [self.objects.get_plain(name, max_size=_MAX_SIZE, compression=compression) for name in names]
        at = 0
        for chunk, piece in zip(chunks, pieces, strict=False):
            assert (chunk.offset, chunk.size) == (at, len(piece)), path
            at += len(piece)
        data = b"".join(pieces)
        assert len(data) == entry.size, path
        return hashlib.sha1(data, usedforsecurity=False).hexdigest()

    def _check_links(self) -> None:
        folders = dict.fromkeys(self._links, 2)
        for path in folders:
            if path:
                folders[path.rpartition("/")[0]] += 1
        assert self._links == folders
