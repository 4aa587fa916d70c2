"""Lease paths: what part of which repository a lease is for.

::

    lease path = fqrn "/"                  the whole repository
               / fqrn "/" ["/"] name *("/" name)

A path stands for itself and everything below it. Two leases conflict if one's path equals the other's or is above it,
component by component: ``/ab`` and ``/abc`` do not conflict.

Source: the reference takes the part before the first slash as the name and stores the rest (``/`` for the whole
repository); the error messages for a leading and a missing slash are the reference's. ``cvmfs_server ingest -b /a``
requests ``fqrn//a``, so a doubled slash right after the name is folded.

Divergence: in the reference, doubled and trailing slashes elsewhere corrupt the repository (issue 3785), and ``.``,
``..`` and NUL are granted; all are refused here. Its test for overlap is a string prefix that ignores case and takes
``_`` and ``%`` for wildcards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cvmfs_gw.gateway.errors import InvalidLeasePath

MAX_PATH: Final = 4096
"""Longest lease path with the repository's name, in bytes: ``PATH_MAX``."""
MAX_NAME: Final = 255
"""Longest component, in bytes: ``NAME_MAX``."""


@dataclass(frozen=True, slots=True, order=True)
class LeasePath:
    """A normalised lease path; ``path`` is ``""`` for the whole repository or ``"/a/b"`` (surrogateescape)."""

    fqrn: str
    path: str

    @classmethod
    def parse(cls, text: str) -> LeasePath:
        """Read ``<fqrn>/<path>``; raises :exc:`InvalidLeasePath`."""
        if text.startswith("/"):
            raise InvalidLeasePath("input has leading slash")
        fqrn, slash, rest = text.partition("/")
        if not slash:
            raise InvalidLeasePath("missing repository name or subpath")
        try:
            length = len(text.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError:
            raise InvalidLeasePath("invalid lease path: not made of bytes") from None
        if length > MAX_PATH:
            raise InvalidLeasePath(f"invalid lease path: over {MAX_PATH} bytes")
        if "\0" in text:
            raise InvalidLeasePath("invalid lease path: holds a NUL")
        rest = rest.removeprefix("/")
        if not rest:
            return cls(fqrn, "")
        for name in rest.split("/"):
            _check_name(name)
        return cls(fqrn, f"/{rest}")

    @property
    def components(self) -> tuple[str, ...]:
        """The names from the repository's root down; none for the whole repository."""
        return tuple(self.path.split("/")[1:])

    @property
    def stored(self) -> str:
        """The path as the lease database has it: ``/`` for the whole repository."""
        return self.path or "/"

    def __str__(self) -> str:
        return self.fqrn + self.stored

    def within(self, other: LeasePath) -> bool:
        """Whether this is *other* or lies below it."""
        return self.fqrn == other.fqrn and (self.path + "/").startswith(other.path + "/")

    def overlaps(self, other: LeasePath) -> bool:
        """Whether a lease on this and one on *other* exclude each other."""
        return self.within(other) or other.within(self)


def _check_name(name: str) -> None:
    if not name:
        raise InvalidLeasePath("invalid lease path: doubled or trailing slash")
    if name in (".", ".."):
        raise InvalidLeasePath(f"invalid lease path: component {name!r}")
    if len(name.encode("utf-8", "surrogateescape")) > MAX_NAME:
        raise InvalidLeasePath(f"invalid lease path: a component over {MAX_NAME} bytes")
