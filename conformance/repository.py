"""The published repository, read over HTTP; every object is checked against its name."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping

from conformance.entry import Entry
from conformance.objects import ALGORITHMS, algorithm_of, hash_name, inflate, object_path
from conformance.outcomes import Failed
from conformance.trace import Trace, traced
from conformance.tree import Tree
from conformance.trust import Manifest, Whitelist
from conformance.wire import Reply, Url


class Repository:
    """What a Stratum 0 shows of one repository. *url* may leave its name out; *trace* is told of each request."""

    def __init__(self, url: str, fqrn: str, timeout: float = 60.0, trace: Trace | None = None) -> None:
        url = url.rstrip("/")
        self.url = Url(url if url.endswith(f"/{fqrn}") else f"{url}/{fqrn}")
        self.fqrn = fqrn
        self.timeout = timeout
        self._trace = trace
        self._catalogs: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def ask(self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Reply:
        """Any request; *path* is below the repository."""
        target = f"{self.url.path}/{path}"
        return traced(self._trace, self.url, method, target, headers=headers, timeout=self.timeout)

    def read(self, path: str) -> bytes:
        """A whole file; raises :exc:`Failed` if it is not there."""
        reply = self.ask(path)
        if reply.status != 200:
            raise Failed(f"GET {self.url.path}/{path}: {reply}")
        return reply.body

    def manifest(self) -> Manifest:
        return Manifest.parse(self.read(".cvmfspublished"))

    def whitelist(self) -> Whitelist:
        return Whitelist.parse(self.read(".cvmfswhitelist"))

    def stored(self, name: str, suffix: str = "") -> bytes:
        """An object as it is stored, checked; raises :exc:`Failed`."""
        data = self.read(object_path(name, suffix))
        if hash_name(data, algorithm_of(name)) != name:
            raise Failed(f"the object {name}{suffix} has other content than its name says")
        return data

    def plain(self, name: str, suffix: str = "") -> bytes:
        """The same, uncompressed."""
        return inflate(self.stored(name, suffix), f"the object {name}{suffix}")

    def has(self, name: str, suffix: str = "") -> bool:
        return self.ask(object_path(name, suffix), "HEAD").status == 200

    def catalog(self, name: str) -> bytes:
        """A catalog's file; kept, since another one would have another name."""
        with self._lock:
            found = self._catalogs.get(name)
        if found is None:
            found = self.plain(name, "C")
            with self._lock:
                self._catalogs[name] = found
        return found

    def tree(self, root: str | None = None) -> Tree:
        """A revision; the present one if *root* is not given."""
        return Tree(root or self.manifest().root, self.catalog)

    def content(self, entry: Entry) -> bytes:
        """What is in a file."""
        algorithm = ALGORITHMS[(entry.flags >> 8) & 7]
        read = self.stored if (entry.flags >> 11) & 7 else self.plain
        if entry.chunks:
            return b"".join(read(chunk.hash.hex() + algorithm, "P") for chunk in entry.chunks)
        return read((entry.hash or b"").hex() + algorithm)

    def certificate(self, manifest: Manifest | None = None) -> bytes:
        """The certificate of the present revision, PEM."""
        return self.plain((manifest or self.manifest()).fields["X"], "X")

    def tags(self, manifest: Manifest | None = None) -> dict[str, dict[str, object]]:
        """The tag database: name -> its other columns."""
        with database(self.plain((manifest or self.manifest()).fields["H"], "H")) as db:
            db.row_factory = sqlite3.Row
            return {row["name"]: dict(row) for row in db.execute("SELECT * FROM tags")}

    def reflog(self) -> dict[str, int]:
        """The reflog: name -> type (0 catalog, 1 certificate, 2 tag database, 3 meta info)."""
        with database(self.read(".cvmfsreflog")) as db:
            return dict(db.execute("SELECT hash, type FROM refs").fetchall())


def database(data: bytes) -> sqlite3.Connection:
    """An SQLite file in memory; raises :exc:`Failed`."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.deserialize(data)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise Failed(f"a database that SQLite cannot read: {error}") from None
    return connection
