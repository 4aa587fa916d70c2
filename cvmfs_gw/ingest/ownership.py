"""Maps of owners: which user and group ids files get in the repository.

Source: ``CVMFS_UID_MAP`` and ``CVMFS_GID_MAP`` in ``server.conf`` name files of lines ``from to``; ``*`` stands for
every id that no other line names, ``#`` begins a comment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cvmfs_gw.ingest.errors import BadConfiguration

_MAX_ID: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class IdMap:
    """What ids become; those that are not in *known* become *other*, or stay what they are if it is None."""

    known: Mapping[int, int] = field(default_factory=dict)
    other: int | None = None

    def __call__(self, number: int) -> int:
        return self.known.get(number, number if self.other is None else self.other)

    @classmethod
    def to(cls, number: int) -> IdMap:
        """Everything becomes *number*."""
        return cls({}, number)

    @classmethod
    def load(cls, path: str) -> IdMap:
        """Read a map file. Raises :exc:`BadConfiguration`."""
        try:
            with open(path, encoding="utf-8") as file:
                return cls.parse(file, path)
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfiguration(f"cannot read {path}: {error}") from error

    @classmethod
    def parse(cls, lines: Iterable[str], source: str = "map of ids") -> IdMap:
        """Read *lines*. Raises :exc:`BadConfiguration` for one that is no pair of ids."""
        known: dict[int, int] = {}
        other: int | None = None
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if len(words) != 2 or not (words[0] == "*" or _is_id(words[0])) or not _is_id(words[1]):
                raise BadConfiguration(f"{source}, line {number}: not a pair of ids: {line.strip()[:80]!r}")
            if words[0] == "*":
                other = int(words[1])
            else:
                known[int(words[0])] = int(words[1])
        return cls(known, other)


SAME: Final = IdMap()
"""Every id stays what it is."""


def _is_id(word: str) -> bool:
    return word.isascii() and word.isdigit() and int(word) <= _MAX_ID
