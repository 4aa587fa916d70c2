"""Pins: what a copy that is being made needs, for collectors to leave it alone.

::

    <spool>/pins/<name>    one line for each object that everything else is reached from; locked by who copies

A pin is set while nobody else changes the repository, in one turn with reading the head; a collector looks for pins in
one turn with dropping revisions. So either the collector knows of the pin, and marks what it names, or what is copied
was read when the condemned revisions were gone already. A pin whose owner has died is no more: the kernel unlocks it.

``cvmfs_server gc`` knows nothing of pins: it is kept away altogether, see :func:`cvmfs_gw.engine.locking.copying`.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from cvmfs_gw.engine.errors import StorageError
from cvmfs_gw.engine.locking import lock_now, pins_folder
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.hashes import ContentHash

_HALF_MADE: Final = "."


@contextmanager
def pinned(paths: SystemPaths, fqrn: str, names: Iterable[ContentHash]) -> Iterator[None]:
    """Let collectors keep *names* and what they refer to. Enter it alone at the repository. Raises ``OSError``."""
    folder = pins_folder(paths, fqrn)
    os.makedirs(folder, exist_ok=True)
    name = f"{os.getpid()}-{secrets.token_hex(4)}"
    path, half_made = os.path.join(folder, name), os.path.join(folder, _HALF_MADE + name)
    with open(half_made, "x", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.writelines(f"{name}\n" for name in names)
            file.flush()
            os.rename(half_made, path)
            yield
        finally:
            for made in (path, half_made):
                with suppress(FileNotFoundError):
                    os.unlink(made)


def read_pins(paths: SystemPaths, fqrn: str) -> dict[str, list[ContentHash]]:
    """What each pin names; raises :exc:`StorageError` if that cannot be known."""
    folder = pins_folder(paths, fqrn)
    found = {}
    try:
        for name in os.listdir(folder):
            if not name.startswith(_HALF_MADE) and (held := _held(os.path.join(folder, name))) is not None:
                found[name] = held
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StorageError(f"{fqrn}: cannot read what copies need, in {folder}: {error}") from error
    return found


def _held(path: str) -> list[ContentHash] | None:
    """What a pin names; None if nobody holds it."""
    try:
        file = open(path, encoding="ascii")  # noqa: SIM115 (closed below)
    except FileNotFoundError:
        return None  # let go of just now
    with file:
        if lock_now(file.fileno()):
            with suppress(OSError):
                os.unlink(path)  # its owner was killed
            return None
        return [ContentHash.parse(line.strip()) for line in file]
