"""Object packs, right ones and, for the cases, wrong ones.

::

    V2 / S<sum of sizes> / N<number> / -- / C <name><suffix> <size> for each object; then the objects' bytes
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from conformance.objects import StoredObject


@dataclass(frozen=True, slots=True)
class Pack:
    """Header and data, and what the publisher says about the header."""

    header: bytes
    data: bytes
    digest: str
    header_size: str

    @classmethod
    def raw(cls, header: bytes, data: bytes) -> Pack:
        """Any bytes, with the digest and the size that belong to the header."""
        digest = hashlib.sha1(header, usedforsecurity=False).hexdigest()
        return cls(header, data, digest, str(len(header)))

    @classmethod
    def of(cls, objects: Sequence[StoredObject]) -> Pack:
        """A pack as publishers make it."""
        total = sum(len(each.data) for each in objects)
        lines = ["V2", f"S{total}", f"N{len(objects)}", "--"]
        lines += [f"C {each.name}{each.suffix} {len(each.data)}" for each in objects]
        return cls.raw(("\n".join(lines) + "\n").encode(), b"".join(each.data for each in objects))

    def claiming(self, *, digest: str | None = None, header_size: str | None = None) -> Pack:
        """The same bytes with something else said about them."""
        return replace(self, digest=digest or self.digest, header_size=header_size or self.header_size)

    @property
    def bytes(self) -> bytes:
        return self.header + self.data
