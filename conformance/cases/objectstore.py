"""The object store: what the web server says, and whether the repository is what its format demands."""

from __future__ import annotations

import re
import time
import zlib
from datetime import UTC, datetime, timedelta
from typing import Final

from conformance.consistency import check
from conformance.entry import FILE
from conformance.objects import algorithm_of, hash_name
from conformance.outcomes import NotApplicable, equal, expect
from conformance.probe import Probe
from conformance.registry import CLIENT, FORMAT, case, each
from conformance.trust import fingerprint

_OBJECT: Final = re.compile(r"[0-9a-f]{38}(-rmd160|-shake128)?[A-Z]?")


@each(
    "objectstore.manifest",
    FORMAT,
    {
        "C": ("C is the root catalog, which is there", "C", r"[0-9a-f]{40}(-rmd160|-shake128)?"),
        "B": ("B is a size", "B", r"\d+"),
        "R": ("R is the MD5 of the empty path", "R", "d41d8cd98f00b204e9800998ecf8427e"),
        "D": ("D is the time to live in seconds", "D", r"\d+"),
        "S": ("S is the revision", "S", r"\d+"),
        "G": ("G is yes or no", "G", "yes|no"),
        "A": ("A is yes or no", "A", "yes|no"),
        "X": ("X is the certificate", "X", r"[0-9a-f]{40}(-rmd160|-shake128)?"),
        "H": ("H is the tag database", "H", r"[0-9a-f]{40}(-rmd160|-shake128)?"),
        "T": ("T is the time of publication", "T", r"\d{10}"),
        "M": ("M is the meta info", "M", r"[0-9a-f]{40}(-rmd160|-shake128)?"),
        "Y": ("Y is the hash of the reflog", "Y", r"[0-9a-f]{40}(-rmd160|-shake128)?"),
    },
)
def manifest_field(probe: Probe, letter: str, pattern: str) -> None:
    found = probe.repository.manifest().fields.get(letter)
    expect(found is not None and re.fullmatch(pattern, found), f"{letter} is {found!r}")


@case("objectstore.manifest.N", "N is the repository's name", FORMAT)
def manifest_name(probe: Probe) -> None:
    equal(probe.repository.manifest().fields["N"], probe.fqrn, "N")


@case("objectstore.manifest.signature", "the manifest is signed by the certificate that it names", FORMAT)
def manifest_signature(probe: Probe) -> None:
    manifest = probe.repository.manifest()
    manifest.check_signature(probe.repository.certificate(manifest))


@case("objectstore.manifest.size", "B is the uncompressed size of the root catalog", FORMAT)
def manifest_size(probe: Probe) -> None:
    manifest = probe.repository.manifest()
    equal(int(manifest.fields["B"]), len(probe.repository.catalog(manifest.root)), "B")


@case("objectstore.manifest.reflog", "Y is the hash of the reflog as it is served", FORMAT)
def manifest_reflog(probe: Probe) -> None:
    stated = probe.repository.manifest().fields.get("Y", "")
    equal(hash_name(probe.repository.read(".cvmfsreflog"), algorithm_of(stated)), stated, "hash of the reflog")


@case("objectstore.manifest.grows", "S grows with each commit, and T never goes back", CLIENT)
def manifest_grows(probe: Probe) -> None:
    before = probe.repository.manifest()
    for _ in range(3):
        probe.plant(probe.path())
        after = probe.repository.manifest()
        expect(after.revision > before.revision, f"S is {after.revision} after {before.revision}")
        expect(int(after.fields["T"]) >= int(before.fields["T"]), "T has gone back")
        before = after
    expect(abs(int(before.fields["T"]) - time.time()) < 3600, f"T is {before.fields['T']}")


@case("objectstore.whitelist", "the whitelist is for this repository and has not expired", FORMAT)
def whitelist(probe: Probe) -> None:
    found = probe.repository.whitelist()
    equal(found.fqrn, probe.fqrn, "repository")
    now = datetime.now(UTC)
    expect(found.issued <= now + timedelta(hours=1) and found.expires > now, f"{found.issued} to {found.expires}")


@case("objectstore.whitelist.certificate", "the whitelist has the fingerprint of the certificate", FORMAT)
def whitelist_certificate(probe: Probe) -> None:
    print_ = fingerprint(probe.repository.certificate())
    expect(print_ in probe.repository.whitelist().fingerprints, f"{print_} is not there")


@case("objectstore.whitelist.signature", "the whitelist is signed by the master key", FORMAT)
def whitelist_signature(probe: Probe) -> None:
    keys = probe.need(probe.target.public_key, "--public-key")
    probe.repository.whitelist().check_signature(keys)


@each(
    "objectstore.present",
    FORMAT,
    {
        "C": ("the root catalog is there under its hash", "C"),
        "X": ("the certificate is there under its hash", "X"),
        "H": ("the tag database is there under its hash", "H"),
        "M": ("the meta info is there under its hash", "M"),
    },
)
def present(probe: Probe, letter: str) -> None:
    probe.repository.plain(probe.repository.manifest().fields[letter], letter)


@each(
    "objectstore.stock",
    "a Stratum 1 of release 2.12 compresses these again under the same name",
    {
        "X": ("the certificate is compressed as stock zlib at level 6 does it", "X"),
        "M": ("the meta info is compressed as stock zlib at level 6 does it", "M"),
    },
)
def stock_zlib(probe: Probe, letter: str) -> None:
    data = probe.repository.stored(probe.repository.manifest().fields[letter], letter)
    expect(zlib.compress(zlib.decompress(data)) == data, "zlib makes other bytes of it")


@case(
    "objectstore.reflog", "the reflog has the root catalog, the certificate, the tag database and the meta info", FORMAT
)
def reflog(probe: Probe) -> None:
    probe.plant(probe.path())
    manifest, found = probe.repository.manifest(), probe.repository.reflog()
    for letter, kind in {"C": 0, "X": 1, "H": 2, "M": 3}.items():
        equal(found.get(manifest.fields[letter]), kind, f"type of {letter} in the reflog")


@case("objectstore.reflog.uploaded", "the reflog has the root catalog that the publisher uploaded", "for collectors")
def reflog_uploaded(probe: Probe) -> None:
    top = probe.path()
    done = probe.publish(top, lambda tree: tree.make_directories(top))
    equal(probe.repository.reflog().get(done.built.root), 0, "type in the reflog")


@case("objectstore.reflog.complete", "every root catalog, tag database and so on in the reflog is in the store", FORMAT)
def reflog_complete(probe: Probe) -> None:
    for name, kind in list(probe.repository.reflog().items())[-60:]:
        expect(probe.repository.has(name, "CXHM"[kind]), f"{name} of type {kind} is not there")


@case("objectstore.check", "every catalog of the present revision is consistent", FORMAT)
def consistent(probe: Probe) -> None:
    check(probe.repository)


@case("objectstore.files", "every file of the present revision has its content in the store", FORMAT)
def files(probe: Probe) -> None:
    tree = probe.repository.tree()
    names: dict[str, str] = {}
    for path, entry in tree.walk():
        if entry.flags & FILE and entry.hash and len(names) < 200:
            names[entry.hash.hex()] = path
    algorithm = algorithm_of(tree.root)
    for name, path in names.items():
        expect(probe.repository.has(name + algorithm), f"the content of {path} is not there")


@case("objectstore.schema", "root catalogs have schema 2.5", FORMAT)
def schema(probe: Probe) -> None:
    equal(probe.repository.tree().catalog().property("schema"), "2.5", "schema")


@case("objectstore.disk.names", "on disk, only objects lie below data/ in two-hex folders", FORMAT)
def disk_names(probe: Probe) -> None:
    store = probe.need(probe.target.store, "--store")
    for folder in (store / "data").iterdir():
        if folder.name == "txn":
            continue
        expect(re.fullmatch("[0-9a-f]{2}", folder.name), f"data/{folder.name}")
        wrong = [path.name for path in folder.iterdir() if not _OBJECT.fullmatch(path.name)]
        equal(wrong, [], f"other names in data/{folder.name}")


@case("objectstore.disk.temporary", "on disk, no temporary files are left in data/txn", FORMAT)
def disk_temporary(probe: Probe) -> None:
    store = probe.need(probe.target.store, "--store")
    probe.plant(probe.path())
    left = [path.name for path in (store / "data/txn").rglob("*") if path.is_file()]
    equal(left, [], "files in data/txn")


@case("objectstore.disk.content", "on disk, every object has the content that its name says", FORMAT)
def disk_content(probe: Probe) -> None:
    store = probe.need(probe.target.store, "--store")
    seen = 0
    for path in (store / "data").glob("??/*"):
        name = re.sub("[A-Z]$", "", path.parent.name + path.name)
        data = path.read_bytes()
        expect(hash_name(data, algorithm_of(name)) == name, f"{path.parent.name}/{path.name} has other content")
        seen += 1
    if not seen:
        raise NotApplicable("no objects there")


@case(
    "objectstore.disk.read",
    "on disk, objects can be read by everybody: a web server of another user serves them",
    FORMAT,
)
def disk_readable(probe: Probe) -> None:
    store = probe.need(probe.target.store, "--store")
    probe.plant(probe.path())
    closed = [str(path) for path in (store / "data").glob("??/*") if not path.stat().st_mode & 0o004]
    equal(closed, [], "objects that are closed")
