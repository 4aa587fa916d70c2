"""When a repository was collected last, and whether it is time to do so again.

``.cvmfs_status.json`` in the storage, beside the manifest, says when the last collection ended, and other things that
stay as they are::

    {"last_gc": "Fri Nov 20 13:02:00 UTC 2026"}

Source: ``cvmfs_server gc`` writes it in the form of ``date --utc``; ``cvmfs_server publish`` collects where
``CVMFS_AUTO_GC`` is ``true``, the repository may be collected, and the last collection was before
``CVMFS_AUTO_GC_LAPSE``, or nobody knows when it was. Divergence: a lapse or timespan that makes no sense is an error
in the log and not one of the publish; then nothing is collected.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final

from cvmfs_gw.engine.errors import ConfigurationError
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.when import parse_time
from cvmfs_objstore.errors import ObjectNotFound

STATUS_PATH: Final = ".cvmfs_status.json"
_LAST_GC: Final = "last_gc"
_FORM: Final = "%a %b %d %H:%M:%S UTC %Y"


def last_collection(repository: Repository) -> float | None:
    """When the last collection ended, in seconds since the epoch; None where that is not known."""
    try:
        return parse_time(str(_status(repository)[_LAST_GC]), 0)
    except (KeyError, ValueError, OverflowError):
        return None


def record_collection(repository: Repository, now: float) -> None:
    """Say that a collection ended at *now*. Raises ``OSError``."""
    with repository.exclusive():
        status = {**_status(repository), _LAST_GC: time.strftime(_FORM, time.gmtime(now))}
        repository.storage.write(STATUS_PATH, json.dumps(status).encode() + b"\n")


def due(repository: Repository, now: float) -> float | None:
    """Since when revisions are to be kept by an automatic collection at *now*; None if there is to be none.

    Times in seconds since the epoch. Raises :exc:`EngineError`.
    """
    configuration = repository.configuration()
    if not configuration.auto_gc:
        return None
    if not (configuration.garbage_collection or repository.head().garbage_collectable):
        return None
    deadline, since = (
        _moment(repository, name, text, now)
        for name, text in (
            ("CVMFS_AUTO_GC_LAPSE", configuration.auto_gc_lapse),
            ("CVMFS_AUTO_GC_TIMESPAN", configuration.auto_gc_timespan),
        )
    )
    last = last_collection(repository)
    return since if last is None or last < deadline else None


def _moment(repository: Repository, name: str, text: str, now: float) -> float:
    try:
        return parse_time(text, now)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"{repository.fqrn}: {name}: {error}") from error


def _status(repository: Repository) -> dict[str, Any]:
    try:
        status = json.loads(repository.storage.read(STATUS_PATH))
    except (ObjectNotFound, ValueError):
        return {}
    return status if isinstance(status, dict) else {}
