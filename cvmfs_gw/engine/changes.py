"""Changes of a repository, as values.

Every source of new content is turned into a list of changes: the difference of two catalog trees (a publisher's
commit), a directory or archive (the client and the upload API), a list of expired paths.
:class:`cvmfs_gw.engine.transaction.Transaction` applies them in the order of the list, which must be:

1. :class:`Drop`, and :class:`Remove` with children before their directories;
2. :class:`Put` with directories before what is in them, then :class:`PutFiles`;
3. :class:`Graft`;
4. :class:`Unnest`, :class:`Nest`.

Paths are ``""`` for the repository's root and ``/a/b`` otherwise. Entries carry no nesting flags and, for
directories, no valid link count: both are determined by the tree that they are put into.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, NamedTuple

from cvmfs_objstore.formats.catalog import NestedRef
from cvmfs_objstore.formats.entry import Chunks, Entry, PathKey

CATALOG_MARKER: Final = ".cvmfscatalog"
"""A file of this name makes its directory a nested catalog."""


class _Unknown(Enum):
    UNKNOWN = "unknown"


UNKNOWN: Final = _Unknown.UNKNOWN
Base = Entry | Literal[_Unknown.UNKNOWN] | None
"""What the author of a change saw at its path: an entry, nothing (None), or unknown, so that it cannot collide."""


class Put(NamedTuple):
    """Put this entry at *path*, replacing whatever is there now.

    *bind* is the catalog of an entry that is a bind mountpoint. Applying it fails if the parent is missing or not a
    directory and the transaction's source of ancestors does not have it either.
    """

    path: str
    entry: Entry
    chunks: Chunks = ()
    bind: NestedRef | None = None
    base: Base = UNKNOWN
    keys: tuple[PathKey, PathKey] | None = None
    """The keys of *path* and its parent, where they are known."""


@dataclass(frozen=True, slots=True)
class PutFiles:
    """Put many plain files, replacing whatever is there now; their author saw nothing at their paths.

    *data* is the database of :class:`cvmfs_gw.engine.newfiles.NewFiles`, *directories* are their parents, by key.
    """

    data: bytes
    directories: Mapping[PathKey, str]


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove what is at *path*.

    Unless *recursive*, a directory that still has entries when its turn comes is kept: somebody else has put them
    there, unseen by the author of the change.
    """

    path: str
    recursive: bool = False
    base: Base = UNKNOWN


@dataclass(frozen=True, slots=True)
class Nest:
    """Make the directory at *path* a nested catalog."""

    path: str


@dataclass(frozen=True, slots=True)
class Unnest:
    """Merge the nested catalog at *path* into its parent's catalog."""

    path: str


@dataclass(frozen=True, slots=True)
class Graft:
    """Put this whole nested catalog at *path*, replacing *old* (None: an empty directory).

    Only for a tree in which the catalog at *path* still is *old*.
    """

    path: str
    old: NestedRef | None
    new: NestedRef


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove the nested catalog *old* at *path* with its content; an empty directory remains."""

    path: str
    old: NestedRef


Change = Put | PutFiles | Remove | Nest | Unnest | Graft | Drop
