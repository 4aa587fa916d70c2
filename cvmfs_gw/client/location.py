"""Locations of repositories on the command line: ``http://host/cvmfs/software.example.org@TAG``, or a name.

A name alone is a repository on this machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cvmfs_gw.client.errors import ClientError
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.engine.names import check_fqrn

# scheme://authority/path/fqrn, and the revision behind the first @ of the path: the authority may hold one, too
_LOCATION: Final = re.compile(
    r"(?P<url>(?:https?://[^/@]*(?:@[^/]*)?/(?:[^@]*/)?)?(?P<fqrn>[^/@]+))/?(?:@(?P<what>.+))?"
)


@dataclass(frozen=True, slots=True)
class Location:
    """A repository and a revision of it. *url* is ``""`` for one of this machine, *revision* for the head."""

    fqrn: str
    url: str = ""
    revision: str = ""

    @classmethod
    def parse(cls, text: str) -> Location:
        """Raises :exc:`ClientError`."""
        found = _LOCATION.fullmatch(text)
        if found is None:
            raise ClientError(f"not a repository (as in http://host/cvmfs/software.example.org): {text[:200]!r}")
        try:
            fqrn = check_fqrn(found["fqrn"])
        except EngineError as error:
            raise ClientError(str(error)) from error
        return cls(fqrn, found["url"] if "://" in found["url"] else "", found["what"] or "")


def repository_path(text: str) -> str:
    """A path in a repository as people write it: ``/``, ``a/b``, ``/a/b/``. Raises :exc:`ClientError`."""
    parts = [part for part in text.split("/") if part]
    if not {".", ".."}.isdisjoint(parts):
        raise ClientError(f"not a path in a repository: {text[:200]!r}")
    return "".join(f"/{part}" for part in parts)
