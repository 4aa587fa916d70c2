"""The file ``.cvmfsdirtab`` in a repository's root: which directories are to be nested catalogs of themselves.

::

    # a comment
    /software/*/releases     directories of that path, component by component: * any name, ? any character of one
    ! *.svn                  none of these, whatever else says so; here * and ? may be slashes, too
    ! /software/x/*

Source: "Managing nested catalogs" in CernVM-FS's documentation; ``cvmfs_server publish``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cvmfs_gw.ingest.errors import BadConfiguration

DIRTAB: Final = "/.cvmfsdirtab"
"""Where in a repository it is."""
MAX_DIRTAB: Final = 1 << 20
"""Most bytes that are read of one."""


@dataclass(frozen=True, slots=True)
class Dirtab:
    """The rules of one file."""

    wanted: tuple[re.Pattern[str], ...]
    excepted: tuple[re.Pattern[str], ...]

    @classmethod
    def parse(cls, lines: Iterable[str]) -> Dirtab:
        """Read *lines*. Raises :exc:`BadConfiguration` for rules that make no sense, or say yes and no to the same."""
        wanted: dict[str, re.Pattern[str]] = {}
        excepted: dict[str, re.Pattern[str]] = {}
        for line in lines:
            rule = line.strip()
            if not rule or rule.startswith("#"):
                continue
            if rule.startswith("!"):
                rule = "/".join(_components(rule[1:].strip()))
                excepted[rule] = _pattern(rule, ".*", ".")
                continue
            if not rule.startswith("/"):
                raise BadConfiguration(f"a rule of .cvmfsdirtab that does not begin with a slash: {rule[:100]!r}")
            rule = "/".join(_components(rule))
            wanted[rule] = _pattern(rule, "[^/]*", "[^/]")
        if both := wanted.keys() & excepted.keys():
            raise BadConfiguration(f".cvmfsdirtab says both yes and no: {min(both)[:100]!r}")
        return cls(tuple(wanted.values()), tuple(excepted.values()))

    def __call__(self, path: str) -> bool:
        """Whether the directory at *path* is to be a nested catalog."""
        return any(rule.fullmatch(path) for rule in self.wanted) and not any(
            rule.fullmatch(path) for rule in self.excepted
        )


def _components(rule: str) -> list[str]:
    """The components of a rule; the first one is empty if it begins with a slash."""
    found = [part for part in rule.split("/") if part]
    if not found:
        raise BadConfiguration("a rule of .cvmfsdirtab that names nothing")
    return ["", *found] if rule.startswith("/") else found


def _pattern(rule: str, star: str, mark: str) -> re.Pattern[str]:
    pattern, at = "", 0
    while at < len(rule):
        character = rule[at]
        if character == "\\":
            at += 1
            if rule[at : at + 1] not in ("*", "?", "\\"):
                raise BadConfiguration(f"a backslash in .cvmfsdirtab before what needs none: {rule[:100]!r}")
            pattern += re.escape(rule[at])
        else:
            pattern += {"*": star, "?": mark}.get(character) or re.escape(character)
        at += 1
    return re.compile(pattern, re.DOTALL)
