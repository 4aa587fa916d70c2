"""How old the leases in a lease database are, for programs that are no gateway and load nothing of one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Final

DAY_MS: Final = 86_400_000


def oldest_lease_in(database: str, fqrn: str, max_lease_ms: int, now_ms: int) -> float | None:
    """When the oldest open lease of *fqrn* was granted, in seconds since the epoch; None: there is none.

    From the lease database of a gateway that may be running or not. Leases that ended more than a day ago do not count:
    no gateway has cleared them away. Raises ``sqlite3.Error``.
    """
    sql = (
        "SELECT min(coalesce(nullif(u.GrantedMs, 0), l.Expiration - ?)) FROM Lease l"
        " LEFT JOIN LeaseUpload u ON u.Token = l.Token"
        " WHERE CAST(l.Repository AS text) = ? AND l.Expiration > ?"
    )
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "Lease" not in tables:
            return None
        if "LeaseUpload" not in tables:
            sql = sql.replace("nullif(u.GrantedMs, 0)", "NULL").replace(
                " LEFT JOIN LeaseUpload u ON u.Token = l.Token", ""
            )
        (found,) = connection.execute(sql, (max_lease_ms + DAY_MS, fqrn, now_ms - DAY_MS)).fetchone()
    return None if found is None else found / 1000
