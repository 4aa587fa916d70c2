"""The members of configuration files, ``user.json`` and ``repo.json``: their names, and those that nobody reads.

Names count in any case, ``Port`` as ``port``, as the reference takes them; of two that differ in nothing else the last.

Most that nobody reads are misspelt, and what was meant by them silently does not happen. They are told, and never
refused, as files that are deployed have members that only other versions know. What begins with ``_``, ``#`` or ``//``
is a comment.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

_COMMENT: Final = ("_", "#", "//")
_LONGEST: Final = 60
"""So many characters of a name are shown."""


def parse_members(data: bytes) -> dict[str, Any]:
    """The object that is the JSON text *data*, with all names of members in lower case. Raises ``ValueError``."""
    try:
        document = json.loads(data, object_pairs_hook=lambda pairs: {name.lower(): value for name, value in pairs})
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document


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
