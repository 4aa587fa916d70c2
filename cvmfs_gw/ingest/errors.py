"""Errors of the ingest layer: why a source cannot become a change.

::

    IngestError
    ├── BadSource           broken, hostile or contradictory content of a source
    │   ├── BadArchive      ... of a tar archive
    │   └── BadImage        ... of a container image
    ├── SourceTooLarge      a source over a limit: entries, size of a file, length of a name
    ├── BadTarget           an operation on a path where it cannot be
    └── BadConfiguration    an invalid map of owners, dirtab, or chunk sizes

Errors of the operating system are raised as ``OSError``.
"""

from __future__ import annotations


class IngestError(Exception):
    """Base of everything that this package raises on purpose. The text is for people."""


class BadSource(IngestError):
    """A source that is broken, hostile or contradicts itself."""


class BadArchive(BadSource):
    """No tar archive, or one that is cut off, damaged or hostile."""


class BadImage(BadSource):
    """No container image, or one that does not hold what it says."""


class SourceTooLarge(IngestError):
    """A source that is over a limit."""


class BadTarget(IngestError):
    """An operation on a path where it cannot be, as below a file."""


class BadConfiguration(IngestError):
    """A map of owners, a dirtab or chunk sizes that make no sense."""
