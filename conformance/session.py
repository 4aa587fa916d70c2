"""Recorded sessions: the file that one is kept in, and how its repository is put onto a server.

::

    session.json    what is recorded: requests, replies, and what the repository is to hold in the end
    packs/<n>       the object pack of request number n
    initial/...     the server's files before the session: storage, configuration, and keys made for it alone

Nothing in it is secret: tokens are numbered (``<token 1>``), signatures are left out, paths are relative. A recording
of a site has no ``initial`` and no ``tree``. Those in the folder ``sessions`` have both.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from conformance.machines.snapshot import Node, Tree
from conformance.trust import renewed
from conformance.wire import Key

SHIPPED: Final = Path(__file__).parent / "sessions"
"""Where recordings are that come with the suite."""
ROOT: Final = "@root@"
"""Stands for the server's root directory in recorded text files."""
_MOMENT: Final = (2020, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its reply. ``text`` is the body or, with a pack, what is in front of it.

    ``signed`` is what the authorization vouched for: ``body``, ``head`` (the text in front of a pack), ``token`` or "".
    """

    method: str
    path: str
    signed: str
    headers: Mapping[str, str]
    text: str
    pack: bytes | None
    status: int
    reply: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stream:
    """What one subscriber was told. ``kind`` is ``events`` or ``websocket``, ``text`` what it has asked for.

    ``opened`` is how many requests of the session had been answered before; ``messages`` are those that came.
    """

    kind: str
    path: str
    headers: Mapping[str, str]
    text: str
    opened: int
    messages: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Session:
    """A whole session. ``revision``, ``tree`` and ``catalogs`` (nested ones) are what must come of it."""

    about: str
    recorded_with: str
    fqrn: str
    revision: int
    catalogs: Sequence[str]
    tree: Tree
    exchanges: Sequence[Exchange]
    initial: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    streams: Sequence[Stream] = ()

    @property
    def key(self) -> Key | None:
        """The publishers' key, if the session has it."""
        text = self.initial.get(f"etc/cvmfs/keys/{self.fqrn}.gw")
        if text is None:
            return None
        _, name, secret = text.split()
        return Key(name.decode(), secret)

    @classmethod
    def load(cls, path: Path) -> Session:
        """Read a file; raises ``OSError``, ``ValueError``, ``KeyError`` and ``zipfile.BadZipFile``."""
        with zipfile.ZipFile(path) as archive:
            content = json.loads(archive.read("session.json"))
            exchanges = [
                Exchange(**(recorded | {"pack": archive.read(f"packs/{number}") if recorded["pack"] else None}))
                for number, recorded in enumerate(content["exchanges"])
            ]
            names = [name for name in archive.namelist() if name.startswith("initial/")]
            initial = {name.removeprefix("initial/"): archive.read(name) for name in names}
        known = {name: content[name] for name in ("about", "recorded_with", "fqrn", "revision", "catalogs")}
        tree = {path: _parse(node) for path, node in content["tree"].items()}
        streams = tuple(Stream(**each) for each in content.get("streams", ()))
        return cls(**known, tree=tree, exchanges=exchanges, initial=initial, streams=streams)

    def save(self, path: Path) -> None:
        """Write the file; the same session gives the same bytes."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:

            def add(name: str, data: bytes) -> None:
                archive.writestr(zipfile.ZipInfo(name, _MOMENT), data, zipfile.ZIP_DEFLATED)

            content = {name: getattr(self, name) for name in ("about", "recorded_with", "fqrn", "revision")}
            content["catalogs"] = list(self.catalogs)
            content["tree"] = {path: _dump(node) for path, node in sorted(self.tree.items())}
            content["exchanges"] = [asdict(each) | {"pack": each.pack is not None} for each in self.exchanges]
            if self.streams:
                content["streams"] = [asdict(each) for each in self.streams]
            add("session.json", json.dumps(content, indent=1, ensure_ascii=True).encode())
            for number, exchange in enumerate(self.exchanges):
                if exchange.pack is not None:
                    add(f"packs/{number}", exchange.pack)
            for name, data in sorted(self.initial.items()):
                add(f"initial/{name}", data)

    def unpack(self, root: Path) -> None:
        """Put the repository onto a server that is not running, below *root*, with a whitelist that is good today."""
        for name, data in self.initial.items():
            if name == "etc/cvmfs/gateway/repo.json":
                continue
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            here = "" if str(root) == "/" else os.fspath(root)
            path.write_bytes(data.replace(ROOT.encode(), here.encode()) if name.startswith("etc/") else data)
            if path.suffix in (".key", ".masterkey", ".gw"):
                path.chmod(0o600)
        whitelist = root / f"srv/cvmfs/{self.fqrn}/.cvmfswhitelist"
        master_key = root / f"etc/cvmfs/keys/{self.fqrn}.masterkey"
        if whitelist.exists() and master_key.exists():
            now = datetime.now(UTC)
            whitelist.write_bytes(renewed(whitelist.read_bytes(), master_key.read_bytes(), now))
        for number in range(256):
            (root / f"srv/cvmfs/{self.fqrn}/data/{number:02x}").mkdir(parents=True, exist_ok=True)
        (root / f"srv/cvmfs/{self.fqrn}/data/txn").mkdir(exist_ok=True)


def _dump(node: Node) -> dict[str, Any]:
    """What is known of an entry; xattrs in hexadecimal, the mode in octal digits."""
    values = {each.name: value for each in fields(Node) if (value := getattr(node, each.name)) not in (None, ())}
    values["mode"] = f"{node.mode:o}"
    if node.xattrs:
        values["xattrs"] = {name: value.hex() for name, value in node.xattrs}
    return values


def _parse(values: Mapping[str, Any]) -> Node:
    xattrs = tuple(sorted((name, bytes.fromhex(value)) for name, value in values.get("xattrs", {}).items()))
    unknown = {"uid": None, "gid": None, "mtime": None}
    return Node(**(unknown | dict(values) | {"mode": int(values["mode"], 8), "xattrs": xattrs}))


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


def load_all(folder: Path) -> dict[str, Session]:
    """Every session in a folder by the name of its file."""
    return {path.stem: Session.load(path) for path in sorted(folder.glob("*.zip"))}


def install(folder: Path, root: Path) -> list[str]:
    """Put the repositories of all sessions onto a server that is not running; returns their names."""
    names = []
    for session in load_all(folder).values():
        if session.initial:
            session.unpack(root)
            names.append(session.fqrn)
    return names
