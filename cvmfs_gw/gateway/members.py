"""Members of configuration files that nobody reads.

Most are misspelt, and what was meant by them silently does not happen. They are told, and never refused, as files that
are deployed have members that only other versions know. What begins with ``_``, ``#`` or ``//`` is a comment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

_COMMENT: Final = ("_", "#", "//")
_LONGEST: Final = 60
"""So many characters of a name are shown."""


@dataclass(frozen=True, slots=True)
class UnknownMember:
    """Where it is, and which one may be meant (``""``: none is like it)."""

    place: str
    meant: str

    @property
    def question(self) -> str:
        return f"{self.meant}?" if self.meant else ""

    def __str__(self) -> str:
        return f"{self.place}: not known here, so without effect" + (f"; {self.question}" if self.meant else "")


def unknown_members(members: object, known: Collection[str], where: str = "") -> Iterator[UnknownMember]:
    """Those of *members* (of an object of JSON, else there are none) that are not among *known*.

    *where* stands before their names: ``keys[0].``.
    """
    for name in members if isinstance(members, Mapping) else ():
        if name not in known and not name.startswith(_COMMENT):
            near = get_close_matches(name.lower(), known, 1)
            yield UnknownMember(where + repr(name[:_LONGEST])[1:-1], near[0] if near else "")


def entries(specs: Any, where: str) -> Iterator[tuple[object, str]]:
    """The entries of a list of JSON, each with what stands before the names of its members."""
    for number, spec in enumerate(specs if isinstance(specs, list) else ()):
        yield spec, f"{where}[{number}]."
