"""Random archives, for ``cvmfs_server ingest``."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from dataclasses import dataclass, replace

from conformance.machines.changes import Maker
from conformance.machines.snapshot import Node, Tree
from conformance.machines.trees import MARKER, empty, inside, parent


@dataclass(frozen=True)
class Archive:
    """A tar archive, the options it is taken in with, and what there will be then."""

    data: bytes
    options: tuple[str, ...]
    result: Tree


def random_archive(maker: Maker, present: Tree, scope: str) -> Archive | None:
    """One to be taken in at *scope*, which is a directory or not there; None if nothing came of it.

    It holds what ``ingest`` can do: nothing below what is left out, nothing of another kind than what is there, no
    sockets.
    """
    maker = replace(maker, whole_seconds=True)
    made = maker.edited(empty(), "", 8)
    result = dict(present)
    nest = False
    if scope not in result:
        result[scope] = Node(stat.S_IFDIR | 0o755, 0, 0, None)
        nest = maker.random.random() < 0.3
    buffer = io.BytesIO()
    left_out: list[str] = []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(set(made) - {""}):
            node, place = replace(made[path], uid=0, gid=0, xattrs=()), f"{scope}/{path}"
            if any(inside(path, gone) for gone in left_out) or not _fits(node, place, present):
                left_out.append(path)
                continue
            archive.addfile(_member(path, node), io.BytesIO(maker.contents.get(node.sha1 or "", b"")))
            if place not in present or not present[place].is_directory:
                result[place] = node
    if len(left_out) == len(made) - 1:
        return None
    if nest:
        marker = replace(maker.file(0), mode=0o100664, uid=0, gid=0, mtime=None, xattrs=())
        result[f"{scope}/{MARKER}"] = marker
    return Archive(buffer.getvalue(), ("-c",) if nest else (), result)


def _fits(node: Node, place: str, present: Tree) -> bool:
    """Whether ``ingest`` puts it there."""
    if stat.S_ISSOCK(node.mode):
        return False
    if place.rpartition("/")[2] == MARKER and parent(place) in present:
        return False
    old = present.get(place)
    return old is None or (old.is_directory and node.is_directory) or bool(old.sha1 and node.sha1)


def _member(path: str, node: Node) -> tarfile.TarInfo:
    """An entry as a member of an archive."""
    member = tarfile.TarInfo(path)
    kinds = {
        stat.S_IFDIR: tarfile.DIRTYPE,
        stat.S_IFREG: tarfile.REGTYPE,
        stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFIFO: tarfile.FIFOTYPE,
        stat.S_IFCHR: tarfile.CHRTYPE,
        stat.S_IFBLK: tarfile.BLKTYPE,
    }
    member.type = kinds[stat.S_IFMT(node.mode)]
    member.mode = stat.S_IMODE(node.mode)
    member.mtime = (node.mtime or 0) // 10**9
    member.size = node.size or 0
    member.linkname = node.target or ""
    member.devmajor, member.devminor = os.major(node.device or 0), os.minor(node.device or 0)
    return member
