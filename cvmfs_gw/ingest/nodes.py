"""The tree that sources and operations are put together in: what is to be at each path, and what is to be gone."""

from __future__ import annotations

from typing import Protocol

from cvmfs_gw.ingest.contents import StoredContent
from cvmfs_gw.ingest.items import Item


class Rest(Protocol):
    """Children of a directory that are not in memory, none of which is a directory itself."""

    def load(self) -> dict[str, Node]:
        """Them, by name, anew each time."""


class Node:
    """One path of a tree that is gathered, and what is to be below it.

    * a directory has *children*; without an *item* it is one that has to be there for what is in it
    * anything else has an *item* and, if it is a file, *stored* content; names with the same *group* are hard links
    * with neither item nor children nothing is to be there

    *opaque*: the directory is to be there, and nothing of what is now in it stays. *is_default*: only if there is
    nothing yet. *rest* are children that are loaded when somebody asks for them.
    """

    __slots__ = ("at_hand", "group", "is_default", "item", "opaque", "rest", "stored")

    def __init__(
        self,
        item: Item | None = None,
        stored: StoredContent | None = None,
        children: dict[str, Node] | None = None,
        opaque: bool = False,
        is_default: bool = False,
        rest: Rest | None = None,
    ) -> None:
        self.item, self.stored, self.opaque = item, stored, opaque
        self.at_hand = children
        """The children that are in memory."""
        self.rest = rest
        self.group: object | None = None
        self.is_default = is_default

    @property
    def children(self) -> dict[str, Node] | None:
        """All children, which may be changed; all of them are in memory from now on."""
        if self.rest is not None and self.at_hand is not None:
            for name, node in self.rest.load().items():
                self.at_hand.setdefault(name, node)
            self.rest = None
        return self.at_hand

    def look(self) -> dict[str, Node]:
        """All children of a directory, to look at; those that were not in memory are not afterwards either."""
        assert self.at_hand is not None
        return self.at_hand if self.rest is None else {**self.rest.load(), **self.at_hand}

    @property
    def is_directory(self) -> bool:
        return self.at_hand is not None

    def copy(self) -> Node:
        """A directory with the same children, of which others can be put into it."""
        assert self.at_hand is not None
        return Node(self.item, None, dict(self.at_hand), self.opaque, self.is_default, self.rest)

    @property
    def is_gone(self) -> bool:
        return self.item is None and self.at_hand is None

    @property
    def is_needed(self) -> bool:
        """Whether anything has to be at its path: not for a directory that holds nothing but what is to be gone."""
        pending = [self]
        while pending:
            node = pending.pop()
            if node.item is not None or node.opaque:
                return True
            if node.at_hand is not None:
                pending.extend(node.look().values())
        return False

    @property
    def holds_nothing(self) -> bool:
        """Whether it is a directory of which nothing is said, and of what is in it only what is to be gone."""
        if self.item is not None or self.at_hand is None:
            return False
        return not any(child.is_needed for child in self.look().values())
