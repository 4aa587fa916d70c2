"""What a repository may be called."""

from __future__ import annotations

import re
from typing import Final

from cvmfs_gw.engine.errors import ConfigurationError

_FQRN: Final = re.compile(
    r"(?=.{1,253}$)[a-z0-9][a-z0-9_-]{0,62}(\.[a-z0-9][a-z0-9_-]{0,62})+", re.ASCII | re.IGNORECASE
)


def check_fqrn(fqrn: str) -> str:
    """A fully qualified repository name, or :exc:`ConfigurationError`."""
    if not _FQRN.fullmatch(fqrn):
        raise ConfigurationError(f"not a fully qualified repository name (as in software.example.org): {fqrn[:80]!r}")
    return fqrn
