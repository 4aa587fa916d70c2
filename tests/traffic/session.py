"""A recorded session between publishers and a gateway, and the file that it is kept in.

The file is a zip archive::

    session.json    what is recorded: requests, replies, and what the repository is to hold in the end
    packs/<n>       the object pack of request number n
    initial/...     the server's files before the session: storage, configuration, and keys made for it alone

Nothing in it is secret and nothing in it is of the machine that it was made on: tokens are numbered (``<token 1>``),
signatures are left out (the key is at hand), and paths are relative.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from conformance.machines.snapshot import Node, Tree
from conformance.session import Exchange, Stream
from cvmfs_gw.gateway.authorization import Key
from cvmfs_objstore.local import LocalStorage

FIXTURES: Final = Path(__file__).parent / "fixtures"
ROOT: Final = "@root@"
"""Stands for the server's root directory in recorded text files."""
_MOMENT: Final = (2020, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Session:
    """A whole session. ``revision``, ``tree`` and ``catalogs`` (nested ones, by path) are what must come of it."""

    about: str
    recorded_with: str
    fqrn: str
    revision: int
    catalogs: Sequence[str]
    tree: Tree
    exchanges: Sequence[Exchange]
    initial: Mapping[str, bytes] = field(repr=False)
    streams: Sequence[Stream] = ()

    @property
    def key(self) -> Key:
        """The publishers' key."""
        _, name, secret = self.initial[f"etc/cvmfs/keys/{self.fqrn}.gw"].split()
        return Key(name.decode(), secret)

    def save(self, path: Path) -> None:
        """Write the file; the same session gives the same bytes."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:

            def add(name: str, data: bytes) -> None:
                archive.writestr(zipfile.ZipInfo(name, _MOMENT), data, zipfile.ZIP_DEFLATED)

            exchanges = [asdict(exchange) | {"pack": exchange.pack is not None} for exchange in self.exchanges]
            content = {
                "about": self.about,
                "recorded_with": self.recorded_with,
                "keys": "made for this file alone; they protect nothing",
                "fqrn": self.fqrn,
                "revision": self.revision,
                "catalogs": list(self.catalogs),
                "exchanges": exchanges,
                "tree": {entry: _dump(node) for entry, node in sorted(self.tree.items())},
            }
            if self.streams:
                content["streams"] = [asdict(stream) for stream in self.streams]
            add("session.json", json.dumps(content, indent=1).encode())
            for number, exchange in enumerate(self.exchanges):
                if exchange.pack is not None:
                    add(f"packs/{number}", exchange.pack)
            for name, data in sorted(self.initial.items()):
                add(f"initial/{name}", data)

    @classmethod
    def load(cls, path: Path) -> Session:
        """Read the file."""
        with zipfile.ZipFile(path) as archive:
            content = json.loads(archive.read("session.json"))
            exchanges = [
                Exchange(**(recorded | {"pack": archive.read(f"packs/{number}") if recorded["pack"] else None}))
                for number, recorded in enumerate(content["exchanges"])
            ]
            names = [name for name in archive.namelist() if name.startswith("initial/")]
            initial = {name.removeprefix("initial/"): archive.read(name) for name in names}
        tree = {entry: _parse(values) for entry, values in content["tree"].items()}
        known = {name: content[name] for name in ("about", "recorded_with", "fqrn", "revision", "catalogs")}
        streams = tuple(Stream(**recorded) for recorded in content.get("streams", ()))
        return cls(**known, exchanges=exchanges, tree=tree, initial=initial, streams=streams)

    def unpack(self, root: Path) -> None:
        """Lay out the server's files as they were before the session."""
        LocalStorage.create(str(root / "srv/cvmfs" / self.fqrn), durable=False).close()
        for name, data in self.initial.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.replace(ROOT.encode(), bytes(root)) if name.startswith("etc/") else data)


def read_initial(root: Path, fqrn: str, replacing: Mapping[str, str]) -> dict[str, bytes]:
    """The files of a server that has no open leases; in text files, texts are replaced as *replacing* says."""
    found: dict[str, bytes] = {}
    for top in ("etc/cvmfs", f"srv/cvmfs/{fqrn}", f"var/spool/cvmfs/{fqrn}"):
        for path in sorted((root / top).rglob("*")):
            if not path.is_file():
                continue
            data = path.read_bytes()
            if top.startswith("etc/"):
                for old, new in replacing.items():
                    data = data.replace(old.encode(), new.encode())
            found[str(path.relative_to(root))] = data
    return found


def _dump(node: Node) -> dict[str, Any]:
    values = {f.name: value for f in fields(Node) if (value := getattr(node, f.name)) not in (None, ())}
    values["mode"] = f"{node.mode:o}"
    if node.xattrs:
        values["xattrs"] = {name: value.hex() for name, value in node.xattrs}
    return values


def _parse(values: dict[str, Any]) -> Node:
    xattrs = tuple(sorted((name, bytes.fromhex(value)) for name, value in values.get("xattrs", {}).items()))
    empty = {"uid": None, "gid": None, "mtime": None}
    return Node(**(empty | values | {"mode": int(values["mode"], 8), "xattrs": xattrs}))
