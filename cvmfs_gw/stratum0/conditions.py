"""Conditional requests: change a path only if it still has the expected content, or does not exist.

The entity tag (``ETag``) of a file is derived from the hashes of its objects, so equal tags mean equal content.

Source: RFC 9110, sections 8.8.3 (entity tags) and 13.1 (``If-Match``, ``If-None-Match``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from cvmfs_gw.stratum0.errors import PreconditionFailed
from cvmfs_objstore.formats.entry import Chunks

ANY: Final = "*"


def tag_of(content: bytes | None, chunks: Chunks = ()) -> str:
    """The entity tag, without quotes, of a file whose hash is *content*, or that has *chunks*."""
    if not chunks:
        return (content or b"").hex()
    return hashlib.sha1(b"".join(chunk.hash for chunk in chunks), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Condition:
    """Tags that the present content must, or must not, match; :data:`ANY` matches all, None means no condition."""

    match: Collection[str] | None = None
    none_match: Collection[str] | None = None

    def holds(self, tag: str | None) -> bool:
        """Whether the condition holds for a path whose file has this *tag*; None: there is no file."""
        is_match = self.match is None or (tag is not None and _among(self.match, tag))
        return is_match and (self.none_match is None or tag is None or not _among(self.none_match, tag))

    def check(self, tag: str | None) -> None:
        """Raise :exc:`PreconditionFailed` if the condition does not hold."""
        if not self.holds(tag):
            raise PreconditionFailed(
                "there is no file" if tag is None else "there is a file, with the content that ETag says", tag
            )

    def __bool__(self) -> bool:
        return self.match is not None or self.none_match is not None


ALWAYS: Final = Condition()
"""No condition."""


def _among(tags: Collection[str], tag: str) -> bool:
    return ANY in tags or tag in tags
