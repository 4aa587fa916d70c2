"""The whitelist, ``.cvmfswhitelist``: the certificates that may sign manifests, itself signed by the master key.

::

    20261120084148                      issued, UTC
    E20261220084148                     expires, UTC; rounded down to the hour
    Nsoftware.example.org
    AB:CD:...:EF # who this is          fingerprints of certificates, each with an optional comment
    --                                  ... then hash and signature, see ``signature``

Two flags may follow the name: ``Vpkcs7`` (the whitelist has a PKCS #7 signature in a separate file) and ``Wcachain``
(certificates must be issued by a trusted authority). Flags and unknown lines survive a rewrite, but whitelists with
either of these flags fail verification here.

Source: ``cvmfs_server resign`` and what clients accept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cvmfs_objstore.errors import FormatError, SignatureError, WhitelistError, WhitelistExpired
from cvmfs_objstore.formats.keychain import Certificate, parse_fingerprint
from cvmfs_objstore.formats.signature import Letter, Signer, Verifier
from cvmfs_objstore.hashes import Algorithm

VALIDITY: Final = timedelta(days=30)
"""The validity that ``cvmfs_server`` gives a whitelist."""

_UNSUPPORTED: Final = frozenset({"Vpkcs7", "Wcachain"})
_TIME_FORMAT: Final = "%Y%m%d%H%M%S"
_TIME: Final = re.compile(r"[0-9]{14}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Whitelist:
    """The content of a whitelist. Times are in UTC; ``fingerprints`` are lines, with comments if they have any."""

    issued: datetime
    expires: datetime
    fqrn: str
    fingerprints: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: bytes) -> Whitelist:
        """Read the unsigned text; raises :exc:`WhitelistError`."""
        lines = text.decode("utf-8", "surrogateescape").split("\n")
        if lines.pop() != "" or len(lines) < 3:
            raise WhitelistError("not a whitelist: less than three lines")
        issued, expires, name = lines[:3]
        if expires[:1] != "E" or name[:1] != "N":
            raise WhitelistError("not a whitelist: no line E or no line N")
        rest = lines[3:]
        return cls(
            _time(issued),
            _time(expires[1:]),
            name[1:],
            tuple(line for line in rest if parse_fingerprint(line) is not None),
            tuple(line for line in rest if line and parse_fingerprint(line) is None),
        )

    def serialize(self) -> bytes:
        """The unsigned text; raises :exc:`WhitelistError` for values that it cannot hold."""
        for line in self.fingerprints:
            if parse_fingerprint(line) is None:
                raise WhitelistError(f"not a fingerprint: {line[:80]!r}")
        lines = [
            self.issued.astimezone(UTC).strftime(_TIME_FORMAT),
            "E" + self.expires.astimezone(UTC).strftime(_TIME_FORMAT),
            "N" + self.fqrn,
            *self.unknown,
            *self.fingerprints,
        ]
        if any("\n" in line for line in lines):
            raise WhitelistError("a value with a line break")
        return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")

    @classmethod
    def issue(
        cls,
        fqrn: str,
        certificates: Iterable[Certificate],
        now: datetime,
        *,
        validity: timedelta = VALIDITY,
        algorithm: Algorithm = Algorithm.SHA1,
    ) -> Whitelist:
        """A new whitelist for *certificates*, by fingerprints of the repository's hash *algorithm*."""
        now = now.astimezone(UTC).replace(microsecond=0)
        return cls(now, now + validity, fqrn, tuple(c.fingerprint_by(algorithm) for c in certificates))

    def renewed(self, now: datetime, *, validity: timedelta = VALIDITY) -> Whitelist:
        """The same whitelist, issued again *now*."""
        now = now.astimezone(UTC).replace(microsecond=0)
        return Whitelist(now, now + validity, self.fqrn, self.fingerprints, self.unknown)

    def signed(self, key: Signer, algorithm: Algorithm | None = None) -> bytes:
        """The signed form. *algorithm* defaults to that of the first fingerprint, as in the reference."""
        if algorithm is None:
            first = parse_fingerprint(self.fingerprints[0]) if self.fingerprints else None
            algorithm = first.algorithm if first is not None else Algorithm.SHA1
        return Letter.seal(self.serialize(), algorithm, key).serialize()

    def is_expired(self, now: datetime) -> bool:
        """Whether it has expired. Minutes and seconds of the expiry are ignored, as clients do."""
        return now.astimezone(UTC) >= self.expires.astimezone(UTC).replace(minute=0, second=0, microsecond=0)

    def contains(self, fingerprint: str) -> bool:
        """Whether *fingerprint* (``AB:CD:...``) is listed; raises :exc:`WhitelistError` if it is malformed."""
        wanted = parse_fingerprint(fingerprint)
        if wanted is None:
            raise WhitelistError(f"not a fingerprint: {fingerprint[:80]!r}")
        return any(parse_fingerprint(line) == wanted for line in self.fingerprints)

    def lists(self, certificate: Certificate) -> bool:
        """Whether *certificate* is listed, by a fingerprint of any algorithm."""
        return any(self.contains(certificate.fingerprint_by(algorithm)) for algorithm in Algorithm)


@dataclass(frozen=True, slots=True)
class SignedWhitelist:
    """A whitelist and the letter that it came in."""

    whitelist: Whitelist
    letter: Letter

    @classmethod
    def parse(cls, data: bytes) -> SignedWhitelist:
        """Read ``.cvmfswhitelist``, verifying nothing; raises :exc:`WhitelistError`."""
        try:
            letter = Letter.parse(data)
        except FormatError as error:
            raise WhitelistError(str(error)) from None
        return cls(Whitelist.parse(letter.text), letter)

    def verify(self, public_keys: Iterable[Verifier], now: datetime) -> Whitelist:
        """The whitelist, if one of the master keys signed it and it has not expired.

        Raises :exc:`SignatureError`, or :exc:`WhitelistExpired`.
        """
        if demands := _UNSUPPORTED.intersection(self.whitelist.unknown):
            raise SignatureError(f"the whitelist demands what is not supported: {', '.join(sorted(demands))}")
        self.letter.verify(public_keys)
        if self.whitelist.is_expired(now):
            raise WhitelistExpired(f"the whitelist expired at {self.whitelist.expires:%Y-%m-%d %H}:00 UTC")
        return self.whitelist


def _time(text: str) -> datetime:
    if _TIME.fullmatch(text):
        try:
            return datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
        except ValueError:
            pass
    raise WhitelistError(f"not a time: {text[:80]!r}")
