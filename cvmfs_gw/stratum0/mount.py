"""What a client needs to mount a repository: its configuration, and a script that does all of it.

Everything that is inserted into them is checked against injection: names and URLs against a narrow alphabet, keys line
by line. The script is one function that is called in the last line, so that a truncated download does nothing.

Source: ``/etc/cvmfs/keys``, ``/etc/cvmfs/config.d``, and ``mount -t cvmfs`` of the CernVM-FS client.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Final

from cvmfs_gw.engine.errors import ConfigurationError
from cvmfs_gw.engine.names import check_fqrn

_AUTHORITY: Final = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_URL: Final = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+(?:/[A-Za-z0-9._/-]*)?")
_PEM_LINE: Final = re.compile(r"-----(?:BEGIN|END) [A-Z ]+-----|[A-Za-z0-9+/]+=*|")

_CONFIGURATION: Final = """\
CVMFS_SERVER_URL={server}
CVMFS_PUBLIC_KEY=/etc/cvmfs/keys/{fqrn}.pub
CVMFS_HTTP_PROXY=DIRECT
CVMFS_MAX_TTL=1
"""

_SCRIPT: Final = """\
#!/bin/sh
# Mounts {fqrn} with the CernVM-FS client of this machine. Has to be run by root.
set -eu

main() {{
    if ! command -v cvmfs2 >/dev/null; then
        echo "The CernVM-FS client is not installed: https://cernvm.cern.ch/fs/" >&2
        exit 1
    fi
    if [ "$(id -u)" != 0 ]; then
        echo "Only root can mount." >&2
        exit 1
    fi
    mkdir -p /etc/cvmfs/keys /etc/cvmfs/config.d /cvmfs/{fqrn}
    cat > /etc/cvmfs/keys/{fqrn}.pub <<'END_OF_KEY'
{key}END_OF_KEY
    cat > /etc/cvmfs/config.d/{fqrn}.conf <<'END_OF_CONFIGURATION'
{configuration}END_OF_CONFIGURATION
    if ! mountpoint -q /cvmfs/{fqrn}; then
        mount -t cvmfs {fqrn} /cvmfs/{fqrn}
    fi
    echo "{fqrn} is mounted at /cvmfs/{fqrn}"
}}

main
"""


@dataclass(frozen=True, slots=True)
class Mount:
    """A repository and where clients reach it; *notifications* is the gateway's URL, ``""`` for none.

    Raises :exc:`ConfigurationError` for what must not stand in a script.
    """

    fqrn: str
    server: str
    notifications: str = ""

    def __post_init__(self) -> None:
        check_fqrn(self.fqrn)
        for url in (self.server, *([self.notifications] if self.notifications else [])):
            if not _URL.fullmatch(url):
                raise ConfigurationError(f"not a URL that clients could be given: {url[:200]!r}")

    def configuration(self) -> str:
        """``/etc/cvmfs/config.d/<fqrn>.conf``."""
        text = _CONFIGURATION.format(fqrn=self.fqrn, server=shlex.quote(self.server))
        if self.notifications:
            text += f"CVMFS_NOTIFICATION_SERVER={shlex.quote(self.notifications)}\n"
        return text

    def script(self, public_key: str) -> str:
        """A shell script that mounts the repository. *public_key* is PEM; raises :exc:`ConfigurationError`."""
        lines = public_key.strip().splitlines()
        if not lines or not all(_PEM_LINE.fullmatch(line) for line in lines):
            raise ConfigurationError(f"the public key of {self.fqrn} is not PEM")
        key = "".join(f"{line}\n" for line in lines)
        return _SCRIPT.format(fqrn=self.fqrn, key=key, configuration=self.configuration())


def authority(host: str) -> tuple[str, int | None] | None:
    """Host and port of a ``Host`` header; None if it is malformed."""
    match = _AUTHORITY.fullmatch(host)
    return (match[1], int(match[2]) if match[2] else None) if match else None
