"""Which version this is."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """As the installed distribution says; ``unknown`` where it runs from somewhere else."""
    try:
        return metadata.version("cvmfs-gw")
    except metadata.PackageNotFoundError:
        return "unknown"
