"""What to publish, as people name it."""

from __future__ import annotations

import os

from cvmfs_gw.client.errors import ClientError
from cvmfs_gw.ingest.directory import DirectorySource
from cvmfs_gw.ingest.items import Source


def open_source(name: str) -> Source:
    """The source that is called *name*. Raises :exc:`ClientError`."""
    if os.path.isdir(name):
        return DirectorySource(name)
    raise ClientError(f"{name} is no directory")
