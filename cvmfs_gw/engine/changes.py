"""What a change of a repository is.

A list of changes is what every source of new content is turned into: the difference of two catalog trees (a
publisher's commit), a directory or archive (the client and the upload API), a list of expired paths. It is applied
in its order by :class:`cvmfs_gw.engine.transaction.Transaction`; a source must keep to this one:

1. :class:`Drop`, and :class:`Remove` with children before their directories;
2. :class:`Put` with directories before what is in them, then :class:`PutFiles`;
3. :class:`Graft`;
4. :class:`Unnest`, :class:`Nest`.

Paths are ``""`` for the repository's root and ``/a/b`` otherwise. Entries carry no nesting flags and, for
directories, no valid link count: both belong to the tree that they go into.
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
"""What the author of a change saw at its path: an entry, nothing (None), or nobody knows and nobody minds."""


class Put(NamedTuple):
    """There is to be this entry at *path*, whatever is there now.

    *bind* is the catalog of an entry that is a bind mountpoint. Raised as an error when applied: a parent that is
    missing or no directory and that the transaction's source of ancestors does not know either.
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
    """There are to be plain files, whatever is there now; their author saw nothing at their paths.

    *data* is the database of :class:`cvmfs_gw.engine.newfiles.NewFiles`, *directories* what they are in, by key.
    """

    data: bytes
    directories: Mapping[PathKey, str]


@dataclass(frozen=True, slots=True)
class Remove:
    """There is to be nothing at *path*.

    A directory that still has entries when its turn comes stays, unless *recursive*: they were put there by somebody
    whom the source of the change did not see.
    """

    path: str
    recursive: bool = False
    base: Base = UNKNOWN


@dataclass(frozen=True, slots=True)
class Nest:
    """The directory at *path* is to be a nested catalog."""

    path: str


@dataclass(frozen=True, slots=True)
class Unnest:
    """The directory at *path* is to be part of its parent's catalog."""

    path: str


@dataclass(frozen=True, slots=True)
class Graft:
    """The directory at *path* is to be this nested catalog as a whole, in place of *old* (None: of an empty directory).

    Only for a tree in which the catalog at *path* still is *old*.
    """

    path: str
    old: NestedRef | None
    new: NestedRef


@dataclass(frozen=True, slots=True)
class Drop:
    """The nested catalog *old* at *path* goes with all that is in it; an empty directory stays."""

    path: str
    old: NestedRef


Change = Put | PutFiles | Remove | Nest | Unnest | Graft | Drop
